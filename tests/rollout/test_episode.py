"""One episode in a real sandbox: how it goes, how it ends, how it is recorded and resumed."""

from dataclasses import replace

import numpy as np
import pytest

from turnwise.agent import ChatRenderer, opening_messages, with_tools
from turnwise.errors import PolicyError
from turnwise.policy import ScriptedPolicy
from turnwise.rollout import run_episode, turn_seed
from turnwise.store import EpisodeKey, Journal
from turnwise.types import FormatError, StopReason

from .world import CONFIG, FIX, SUBMIT, HistoryPolicy, command, make_tokenizer, says

KEY = EpisodeKey("rl-1", "train", 0, "small__calc-1", 0)


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


@pytest.fixture(scope="module")
def renderer(tokenizer):
    return ChatRenderer(tokenizer)


@pytest.fixture
def journal(tmp_path):
    with Journal.open(tmp_path / "journal.sqlite", "recipe") as journal:
        yield journal


@pytest.fixture
def play(small_world, backend, renderer, journal):
    """Plays an episode of the small world in a fresh sandbox."""

    async def play(policy, config=CONFIG, key=KEY, sandbox_of=backend.create):
        async with sandbox_of(with_tools(small_world.spec, config.window_lines)) as sandbox:
            return await run_episode(
                *(key, small_world.task),
                **{"policy": policy, "renderer": renderer, "sandbox": sandbox},
                **{"config": config, "journal": journal, "seed": 5},
            )

    return play


async def test_an_episode_is_one_flat_sequence(play, small_world, renderer, tokenizer):
    policy = HistoryPolicy(says(command("cat calc.py"), "I forgot.", FIX, SUBMIT), tokenizer)

    trajectory = await play(policy)

    assert trajectory.stop_reason is StopReason.SUBMITTED
    assert trajectory.patch == small_world.task.patch
    assert trajectory.turns[0].command == "cat calc.py"
    assert "return a - b" in trajectory.turns[0].observation
    assert [turn.format_error for turn in trajectory.turns] == [None, FormatError.NO_COMMAND, None, None]
    opening = renderer.opening(opening_messages(small_world.task, CONFIG))
    pieces = [opening]
    for turn in trajectory.turns:
        pieces.append([*tokenizer.encode(turn.response), renderer.stop_token_ids[0]])
        assert (turn.start, turn.stop) == (sum(map(len, pieces[:-1])), sum(map(len, pieces)))
        pieces.append(renderer.observation(turn.observation))
    assert trajectory.token_ids_T.tolist() == [token for piece in pieces[:-1] for token in piece]
    mask = [i % 2 == 1 for i, piece in enumerate(pieces[:-1]) for _ in piece]
    assert trajectory.action_mask_T.tolist() == mask
    expected = [-float(i // 2) if i % 2 else 0.0 for i, piece in enumerate(pieces[:-1]) for _ in piece]
    assert trajectory.behavior_logprobs_T.tolist() == expected
    assert {turn.policy_version for turn in trajectory.turns} == {7}
    assert policy.ended == [str(KEY)]


async def test_the_shipped_scripted_policy_plays_too(play, small_world, tokenizer):
    trajectory = await play(ScriptedPolicy([FIX, SUBMIT], tokenizer))

    assert (trajectory.patch, trajectory.stop_reason) == (small_world.task.patch, StopReason.SUBMITTED)


async def test_each_turn_has_a_seed_of_its_own(play, tokenizer):
    policy = HistoryPolicy(says(FIX, SUBMIT), tokenizer)

    await play(policy)

    assert policy.asked == [(str(KEY), 0, turn_seed(5, str(KEY), 0)), (str(KEY), 1, turn_seed(5, str(KEY), 1))]
    others = {turn_seed(5, str(KEY), 0), turn_seed(6, str(KEY), 0), turn_seed(5, str(replace(KEY, member=1)), 0)}
    assert len(others) == 3


@pytest.mark.parametrize(
    ("changes", "responses", "reason", "turns"),
    [
        ({"max_turns": 3}, [FIX] * 9, StopReason.TURN_LIMIT, 3),
        ({"max_consecutive_format_errors": 2}, [FIX, "no", FIX, "no", "no", FIX], StopReason.FORMAT_ERRORS, 5),
        ({"episode_timeout_s": 0.5}, [FIX, command("sleep 0.6"), FIX], StopReason.EPISODE_TIMEOUT, 2),
        ({"max_turns": 1}, [SUBMIT], StopReason.SUBMITTED, 1),
    ],
)
async def test_how_an_episode_ends(play, journal, tokenizer, changes, responses, reason, turns):
    trajectory = await play(HistoryPolicy(says(*responses), tokenizer), replace(CONFIG, **changes))

    assert (trajectory.stop_reason, len(trajectory.turns)) == (reason, turns)
    assert trajectory.action_mask_T[-1], "the sequence ends with what was sampled"
    assert trajectory.patch == "", "only what was submitted is verified"
    stored = journal.episode(KEY)
    assert stored.stop_reason is reason
    np.testing.assert_array_equal(stored.trajectory().token_ids_T, trajectory.token_ids_T)


async def test_an_observation_that_no_longer_fits_ends_the_episode(play, small_world, renderer, tokenizer):
    opening = len(renderer.opening(opening_messages(small_world.task, CONFIG)))
    config = replace(CONFIG, context_tokens=opening + 300)

    trajectory = await play(HistoryPolicy(says(command("seq 200"), SUBMIT), tokenizer), config)

    assert trajectory.stop_reason is StopReason.CONTEXT_LIMIT
    assert "200" in trajectory.turns[0].observation, "what the command said is kept for the reader"
    assert len(trajectory.token_ids_T) == trajectory.turns[0].stop


async def test_a_response_cut_by_the_context_stays_as_sampled_and_is_not_acted_on(
    play, small_world, renderer, tokenizer
):
    opening = len(renderer.opening(opening_messages(small_world.task, CONFIG)))
    long = command("touch made\n" + "# " + "x" * 400)

    trajectory = await play(HistoryPolicy(says(long), tokenizer), replace(CONFIG, context_tokens=opening + 300))

    assert trajectory.stop_reason is StopReason.CONTEXT_LIMIT
    assert len(trajectory.token_ids_T) == opening + 300
    assert int(trajectory.action_mask_T.sum()) == 300
    assert trajectory.turns[0].exit_code is None


async def test_a_response_cut_at_its_own_limit_goes_on(play, renderer, tokenizer):
    config = replace(CONFIG, max_response_tokens=60)

    trajectory = await play(HistoryPolicy(lambda _, turn: ["y" * 100, FIX, SUBMIT][turn], tokenizer), config)

    first = trajectory.turns[0]
    assert (first.format_error, first.stop - first.start) == (FormatError.NO_COMMAND, 60)
    ended = trajectory.token_ids_T[first.stop]
    assert ended == renderer.stop_token_ids[0], "the end of the cut turn is put in"
    assert not trajectory.action_mask_T[first.stop], "and was not sampled"


async def test_an_opening_that_fills_the_context_ends_at_once(play, tokenizer):
    policy = HistoryPolicy(says(FIX), tokenizer)

    trajectory = await play(policy, replace(CONFIG, context_tokens=401))

    assert (trajectory.stop_reason, trajectory.turns, policy.asked) == (StopReason.CONTEXT_LIMIT, (), [])


async def test_an_ended_episode_is_not_played_again(play, tokenizer):
    first = await play(HistoryPolicy(says(FIX, SUBMIT), tokenizer))
    policy = HistoryPolicy(says(), tokenizer)

    again = await play(policy)

    assert policy.asked == []
    assert again.token_ids_T.tolist() == first.token_ids_T.tolist()
    assert again.turns == first.turns


async def test_a_broken_off_episode_goes_on_after_its_last_finished_turn(play, small_world, journal, tokenizer):
    script = [
        FIX,
        command("cd tests; echo '# seen' >> ../calc.py; export MARK=here"),
        command("pwd; echo $MARK"),
        SUBMIT,
    ]
    whole = await play(HistoryPolicy(says(*script), tokenizer), key=replace(KEY, member=1))

    def break_off(session: str, turn: int) -> str:
        if turn == 2:
            raise PolicyError("the engine is gone")
        return script[turn]

    with pytest.raises(PolicyError):
        await play(HistoryPolicy(break_off, tokenizer))
    assert len(journal.episode(KEY).turns) == 2
    policy = HistoryPolicy(says(*script), tokenizer)
    resumed = await play(policy)

    assert [turn for _, turn, _ in policy.asked] == [2, 3], "no finished turn is sampled twice"
    assert "/testbed/tests\nhere" in resumed.turns[2].observation, "directory and variables are those of before"
    assert resumed.patch == whole.patch
    assert resumed.token_ids_T.tolist() == whole.token_ids_T.tolist()
