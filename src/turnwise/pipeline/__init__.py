"""Stages in order, each resumable at any instant: `run_recipe` in `turnwise.pipeline.run`.

What has been done is read from two places only, the journal and the checkpoints on disk; there is no state file that
could disagree with them.
"""
