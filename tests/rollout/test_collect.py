"""Many episodes: verified once per patch, paid, retried, given up, grouped, cancelled, killed and gone on with."""

import asyncio
import pickle
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from turnwise.agent import ChatRenderer
from turnwise.errors import InfrastructureError, InputError, PolicyError, TaskFailure
from turnwise.rollout import Collector, EpisodeRequest, groups
from turnwise.store import EpisodeKey, Journal
from turnwise.types import Mount, StopReason, Trajectory, VerdictKind

from .world import CONFIG, FIX, SUBMIT, HistoryPolicy, command, make_tokenizer, says

WRONG = command("sed -i 's/a - b/a * b/' calc.py")


def key(member: int, purpose: str = "train") -> EpisodeKey:
    return EpisodeKey("rl-1", purpose, 0, "small__calc-1", member)


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


@pytest.fixture
def journal(tmp_path):
    with Journal.open(tmp_path / "journal.sqlite", "recipe") as journal:
        yield journal


class CountingBackend:
    """A backend that counts the sandboxes it makes, and fails the first `failing` of them."""

    name, isolates = "counting", True

    def __init__(self, backend, failing: int = 0) -> None:
        self._backend = backend
        self._failing = failing
        self.made = 0

    def create(self, spec):
        self.made += 1
        broken = replace(spec, mounts=(*spec.mounts, Mount(Path("/nowhere"), "/opt/nowhere")))
        return self._backend.create(broken if self.made <= self._failing else spec)

    async def close(self) -> None:
        await self._backend.close()


@pytest.fixture
def make_collector(small_world, backend, tokenizer, journal):
    def make(script, **changes) -> Collector:
        settings = {
            **{"policy": HistoryPolicy(script, tokenizer), "renderer": ChatRenderer(tokenizer), "backend": backend},
            **{"environments": small_world, "journal": journal, "agent_config": CONFIG, "seed": 5, "concurrency": 4},
        }
        return Collector(**{**settings, **changes})

    return make


@pytest.fixture
def requests(small_world):
    def requests(count: int, purpose: str = "train") -> list[EpisodeRequest]:
        return [EpisodeRequest(key(member, purpose), small_world.task) for member in range(count)]

    return requests


async def test_episodes_are_verified_and_paid_in_the_order_asked(make_collector, requests, journal):
    def script(session: str, turn: int) -> str:
        return [FIX if session.endswith(("0", "2")) else WRONG, SUBMIT][turn]

    seen: list[Trajectory] = []
    trajectories = await make_collector(script).collect(requests(4), seen.append)

    assert [trajectory.episode_id for trajectory in trajectories] == [str(key(member)) for member in range(4)]
    assert [trajectory.reward for trajectory in trajectories] == [1.0, 0.0, 1.0, 0.0]
    assert [trajectory.verdict.kind for trajectory in trajectories[:2]] == ["resolved", "unresolved"]
    assert sorted(each.episode_id for each in seen) == sorted(each.episode_id for each in trajectories)
    assert [summary.resolved for summary in journal.episodes("rl-1", "train", 0)].count(True) == 2


async def test_equal_patches_at_the_same_time_share_one_verification(make_collector, requests, backend):
    counting = CountingBackend(backend)

    trajectories = await make_collector(says(FIX, SUBMIT), backend=counting).collect(requests(4))

    assert counting.made == 4 + 1
    assert all(trajectory.resolved for trajectory in trajectories)


async def test_what_was_not_submitted_is_paid_nothing_and_costs_no_verification(make_collector, requests, backend):
    counting = CountingBackend(backend)
    collector = make_collector(lambda *_: FIX, backend=counting, agent_config=replace(CONFIG, max_turns=2))

    (trajectory,) = await collector.collect(requests(1))

    assert (trajectory.stop_reason, trajectory.reward) == (StopReason.TURN_LIMIT, 0.0)
    assert trajectory.verdict.kind is VerdictKind.EMPTY_PATCH
    assert counting.made == 1


async def test_the_length_penalty_is_for_training_episodes(make_collector, requests):
    collector = make_collector(says(FIX, "hm", "hm", SUBMIT), length_threshold=3)

    (trained,) = await collector.collect(requests(1, "train"))
    (evaluated,) = await collector.collect(requests(1, "evaluate"))

    assert trained.rewards == {"resolved": 1.0, "length": pytest.approx(-1 / 5)}
    assert evaluated.rewards == {"resolved": 1.0}


def test_a_threshold_that_cannot_work_is_refused_at_once(make_collector):
    with pytest.raises(InputError, match="threshold"):
        make_collector(says(), length_threshold=CONFIG.max_turns)


async def test_a_failing_sandbox_is_tried_again_and_counted(make_collector, requests, backend, journal):
    counting = CountingBackend(backend, failing=2)

    trajectories = await make_collector(says(FIX, SUBMIT), backend=counting, retries=2).collect(requests(1))

    assert [trajectory.reward for trajectory in trajectories] == [1.0]
    assert journal.failures_by_cause() == {"sandbox_failure": 2}
    assert not any(failure.dropped for failure in journal.failures())


async def test_an_episode_that_keeps_failing_is_dropped_and_stays_dropped(make_collector, requests, journal):
    def script(session: str, turn: int) -> str:
        if session.endswith("1") and turn == 1:
            raise PolicyError("the engine is gone")
        return [FIX, SUBMIT][turn]

    trajectories = await make_collector(script, retries=1).collect(requests(3))

    assert [trajectory.episode_id for trajectory in trajectories] == [str(key(0)), str(key(2))]
    assert journal.failures_by_cause() == {"policy_failure": 2}
    assert [failure.dropped for failure in journal.failures()] == [False, True]
    assert journal.episode(key(1)).stop_reason is StopReason.POLICY_FAILURE
    (group,) = groups(trajectories)
    assert len(group.trajectories) == 2
    again = await make_collector(says(FIX, SUBMIT)).collect(requests(3))
    assert len(again) == 2


async def test_a_retry_goes_on_from_the_last_finished_turn(make_collector, requests, tokenizer):
    failed = Counter[str]()

    def script(session: str, turn: int) -> str:
        if turn == 1 and failed[session] == 0:
            failed[session] += 1
            raise PolicyError("a moment's weakness")
        return [FIX, SUBMIT][turn]

    policy = HistoryPolicy(script, tokenizer)
    (trajectory,) = await make_collector(script, policy=policy).collect(requests(1))

    assert trajectory.resolved
    assert [turn for _, turn, _ in policy.asked] == [0, 1, 1]


async def test_a_failing_verification_is_tried_again_then_dropped(
    make_collector, requests, backend, journal, small_world
):
    class VerificationFails(CountingBackend):
        def create(self, spec):
            verifying = any(mount.inside.endswith("verify") for mount in spec.mounts)
            self._failing = self.made + 1 if verifying else 0
            return super().create(spec)

    def script(session: str, turn: int) -> str:
        return SUBMIT if session.endswith("1") else [FIX, SUBMIT][turn]  # an empty patch needs no verification

    collector = make_collector(script, backend=VerificationFails(backend), retries=1)

    assert [trajectory.episode_id for trajectory in await collector.collect(requests(2))] == [str(key(1))]
    assert journal.failures_by_cause() == {"verification_failure": 2}
    assert journal.episode(key(0)).stop_reason is StopReason.VERIFICATION_FAILURE
    assert journal.verdict("small__calc-1", small_world.task.patch) is None


async def test_a_task_at_fault_is_given_up_at_once_and_the_others_go_on(make_collector, small_world, journal):
    class OneCannotBeMade:
        async def prepare(self, task):
            if task.instance_id == "small__odd-1":
                raise TaskFailure("no such commit")
            return await small_world.prepare(task)

    tasks = [small_world.task, replace(small_world.task, instance_id="small__odd-1")]
    asked = [EpisodeRequest(replace(key(0), task_id=task.instance_id), task) for task in tasks]
    collector = make_collector(says(FIX, SUBMIT), environments=OneCannotBeMade(), retries=2)

    assert [trajectory.task_id for trajectory in await collector.collect(asked)] == ["small__calc-1"]
    assert journal.failures_by_cause() == {"task_failure": 1}
    assert journal.episode(asked[1].key).stop_reason is StopReason.TASK_FAILURE


async def test_an_image_that_no_sandbox_can_run_in_is_its_tasks_fault(
    make_collector, requests, small_world, backend, journal, tmp_path
):
    class InAnImage:
        async def prepare(self, task):
            return replace(small_world.spec, root=None, image=str(tmp_path))

    with pytest.raises(InfrastructureError, match=r"\(1 task_failure\).* has no bash"):
        await make_collector(says(FIX, SUBMIT), environments=InAnImage(), retries=2).collect(requests(1))
    assert [failure.dropped for failure in journal.failures()] == [True]


async def test_when_every_episode_fails_it_says_so_and_the_same_call_tries_them_again(
    make_collector, requests, backend, journal
):
    broken = make_collector(says(FIX, SUBMIT), backend=CountingBackend(backend, failing=99), retries=1)
    with pytest.raises(InfrastructureError, match=r"all 2 episodes failed \(4 sandbox_failure\).*/nowhere"):
        await broken.collect(requests(2))

    mended = await make_collector(says(FIX, SUBMIT)).collect(requests(2))

    assert [trajectory.reward for trajectory in mended] == [1.0, 1.0]
    assert journal.failures_by_cause() == {"sandbox_failure": 4}


async def test_an_error_that_is_nobodys_retry_stops_the_collection(make_collector, requests):
    def script(session: str, turn: int) -> str:
        raise InputError("this request cannot be served")

    with pytest.raises(InputError, match="cannot be served"):
        await make_collector(script).collect(requests(3))


async def test_cancelled_it_leaves_a_journal_to_go_on_from(make_collector, requests, journal):
    under_way = asyncio.Event()

    def script(session: str, turn: int) -> str:
        if session.endswith("0"):
            return [FIX, SUBMIT][turn]
        if turn == 1:
            under_way.set()
        return [FIX, command("sleep 30")][turn]

    work = asyncio.create_task(make_collector(script).collect(requests(2)))
    await asyncio.wait_for(under_way.wait(), 30)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work

    assert journal.episode(key(1)).stop_reason is None
    trajectories = await make_collector(says(FIX, SUBMIT)).collect(requests(2))
    assert [trajectory.reward for trajectory in trajectories] == [1.0, 1.0]


async def test_a_killed_run_goes_on_with_nothing_paid_for_twice(
    make_collector, requests, small_world, tmp_path, tokenizer
):
    script = [FIX, command("cd tests && echo '# mark' >> ../calc.py"), command("pwd"), SUBMIT]
    folder = tmp_path / "run"
    folder.mkdir()
    asked = small_world.task, small_world.spec, [key(0)], script
    (folder / "asked").write_bytes(pickle.dumps(asked))

    process = await asyncio.create_subprocess_exec(sys.executable, Path(__file__).with_name("killed.py"), folder)

    assert await asyncio.wait_for(process.wait(), 60) == -9
    policy = HistoryPolicy(says(*script), tokenizer)
    with Journal.open(folder / "journal.sqlite", "recipe") as journal:
        (resumed,) = await make_collector(None, policy=policy, journal=journal).collect(requests(1))
    (whole,) = await make_collector(says(*script)).collect(requests(1))
    assert [turn for _, turn, _ in policy.asked] == [2, 3]
    assert "/testbed/tests" in resumed.turns[2].observation
    assert resumed.token_ids_T.tolist() == whole.token_ids_T.tolist()
    assert (resumed.patch, resumed.reward) == (whole.patch, 1.0)


async def test_groups_are_by_task_and_iteration_and_need_two(make_collector, requests):
    collector = make_collector(says(FIX, SUBMIT))
    trajectories = await collector.collect(requests(2))
    alone = replace(trajectories[0], episode_id="rl-1/train/1/small__calc-1/0")
    failed = replace(trajectories[1], stop_reason=StopReason.SANDBOX_FAILURE)

    assert [len(group.trajectories) for group in groups([*trajectories, alone])] == [2]
    assert groups([trajectories[0], failed]) == []
