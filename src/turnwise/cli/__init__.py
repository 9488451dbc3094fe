"""The command `turnwise`. Each verb imports what it needs when it runs, so that `--help` loads no torch."""

from turnwise.cli.main import app, main
