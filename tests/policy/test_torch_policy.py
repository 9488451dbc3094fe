import asyncio
import json

import pytest
import torch
from transformers import AutoModelForCausalLM, MambaConfig

from turnwise.errors import CheckpointError, InputError, PolicyError
from turnwise.policy.torch_policy import TorchPolicy
from turnwise.types import Sampling

OPENING = list(range(5, 45))


@pytest.fixture
async def start(build_model):
    """Starts policies and closes them at the end."""
    started = []

    def begin(model=None, **options):
        started.append(TorchPolicy(build_model() if model is None else model, threads=1, **options))
        return started[-1]

    yield begin
    for policy in started:
        await policy.close()


async def until_sampling(policy):
    while not policy.stats.sampled_tokens:  # noqa: ASYNC110 - the worker thread has no event to wait for
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("name", ["qwen2", "llama", "qwen3", "mistral", "gpt2"])
async def test_logprobs_equal_a_full_forward_over_turns_and_ragged_batches(
    name, start, build_model, play, assert_parity
):
    policy, oracle = start(build_model(name)), build_model(name)
    episodes = await asyncio.gather(
        *(play(policy, f"e{i}", range(2, 4 + 9 * i), seed=i, observation=range(i + 1)) for i in range(7))
    )
    for played in episodes:
        assert_parity(oracle, played)


async def test_a_turn_costs_only_its_new_tokens(start, play):
    policy = start()
    played = await play(policy, "e", OPENING, turns=4, observation=(7, 8, 9))
    last_history, last = played[-1]
    # Every token is computed once, but for the last one sampled: nothing follows it.
    assert policy.stats.computed_tokens == len(last_history) + len(last.token_ids) - 1


async def test_seeds_reproduce_alone_and_in_a_batch(start, play):
    together = start()
    batch = await asyncio.gather(*(play(together, f"e{i}", OPENING[: 10 + i], seed=i) for i in range(6)))
    alone = await play(start(), "again", OPENING[:13], seed=3)
    assert [sample.token_ids for _, sample in alone] == [sample.token_ids for _, sample in batch[3]]
    other = await play(start(), "other", OPENING[:13], seed=4)
    assert [sample.token_ids for _, sample in other] != [sample.token_ids for _, sample in alone]


async def test_equal_openings_are_computed_once(start, build_model, play, assert_parity):
    policy = start()
    group = await asyncio.gather(*(play(policy, f"e{i}", OPENING, turns=1, seed=i) for i in range(8)))
    sampled = sum(len(sample.token_ids) for _, [(_, sample)] in enumerate(group))
    # The group's first computes the opening; the others its last token and all their own.
    assert policy.stats.computed_tokens == len(OPENING) + 7 + sampled - 8
    assert len({sample.token_ids for [(_, sample)] in group}) > 1
    for played in group:
        assert_parity(build_model(), played)


async def test_a_shared_system_prompt_is_computed_once_across_tasks(start, build_model, play, assert_parity):
    policy = start()
    openings = [[*OPENING, 50 + task, 60 + task] for task in range(4)]
    episodes = await asyncio.gather(*(play(policy, f"t{i}", opening, turns=1) for i, opening in enumerate(openings)))
    assert policy.stats.reused_tokens == 3 * len(OPENING)
    for played in episodes:
        assert_parity(build_model(), played)


@pytest.mark.parametrize("name", ["qwen2", "mistral"])
async def test_groups_that_share_openings_decode_together(name, start, build_model, play, assert_parity):
    policy = start(build_model(name))
    openings = [[5 + (i * i + task) % 80 for i in range(70 + task)] for task in range(3)]
    episodes = await asyncio.gather(
        *(
            play(policy, f"t{t}/{i}", openings[t], seed=9 * t + i, observation=range(i + 1))
            for t in range(3)
            for i in range(4)
        ),
        play(policy, "alone", range(4, 90), seed=99),
    )
    for played in episodes:
        assert_parity(build_model(name), played)


async def test_more_sessions_than_slots_lose_their_cache_but_not_their_correctness(
    start, build_model, play, assert_parity
):
    policy = start(max_sequences=2)
    episodes = await asyncio.gather(*(play(policy, f"e{i}", range(2 + i, 30 + i), seed=i) for i in range(6)))
    roomy = start()
    for i, played in enumerate(episodes):
        assert_parity(build_model(), played)
        again = await play(roomy, f"e{i}", range(2 + i, 30 + i), seed=i)
        assert [sample.token_ids for _, sample in played] == [sample.token_ids for _, sample in again]
    assert policy.stats.computed_tokens > roomy.stats.computed_tokens


async def test_long_prompts_in_chunks_beside_running_responses(start, build_model, play, assert_parity):
    policy = start(prefill_tokens=16)
    episodes = await asyncio.gather(*(play(policy, f"e{i}", [2 + i] * (100 + i), seed=i, turns=2) for i in range(4)))
    for played in episodes:
        assert_parity(build_model(), played)


async def test_a_rewritten_history_is_computed_from_where_it_differs(start, build_model, play, assert_parity):
    policy = start()
    await play(policy, "e", OPENING)
    played = await play(policy, "e", [*OPENING[:20], 90, 91, 92])
    assert_parity(build_model(), played)


async def test_stop_tokens_end_a_response_and_max_tokens_cuts_it(start, build_model):
    policy = start()
    whole = await policy.sample(OPENING, Sampling(30, seed=5), "a")
    assert len(whole.token_ids) == len(whole.logprobs) == 30
    assert not whole.stopped
    stop = whole.token_ids[4]
    first = whole.token_ids.index(stop)
    cut = await policy.sample(OPENING, Sampling(30, stop_token_ids=(stop, 96), seed=5), "b")
    assert cut.stopped
    assert cut.token_ids == whole.token_ids[: first + 1]


async def test_new_weights_change_version_and_outputs_and_forget_the_old_keys(start, build_model, play, assert_parity):
    policy, other = start(), build_model(seed=1)
    old = await play(policy, "e", OPENING)
    await policy.update_weights(other.state_dict(), 7)
    new = await play(policy, "e", OPENING)
    assert policy.version == 7
    assert {sample.policy_version for _, sample in old} == {0}
    assert {sample.policy_version for _, sample in new} == {7}
    assert_parity(build_model(), old)
    assert_parity(other, new)


async def test_an_update_waits_for_running_requests(start, build_model, play, assert_parity):
    policy, other = start(), build_model(seed=1)
    before = asyncio.create_task(policy.sample(OPENING, Sampling(60, seed=1), "before"))
    await until_sampling(policy)
    update = asyncio.create_task(policy.update_weights(other.state_dict(), 1))
    await asyncio.sleep(0)
    after = asyncio.create_task(policy.sample(OPENING, Sampling(60, seed=1), "after"))
    await update
    assert_parity(build_model(), [(OPENING, await before)])
    assert (await before).policy_version == 0
    assert_parity(other, [(OPENING, await after)])
    assert (await after).policy_version == 1


async def test_weights_that_do_not_fit_are_refused_whole(start, build_model, play, assert_parity):
    policy, state = start(), build_model(seed=1).state_dict()
    misfit = {name: tensor[:-1] if name == "model.norm.weight" else tensor for name, tensor in state.items()}
    partial = {name: tensor for name, tensor in state.items() if name != "model.norm.weight"}
    for wrong, word in (
        (misfit, "another shape"),
        (partial, "missing"),
        ({**state, "x": state["lm_head.weight"]}, "unknown"),
    ):
        with pytest.raises(InputError, match=word):
            await policy.update_weights(wrong, 1)
    assert policy.version == 0
    assert_parity(build_model(), await play(policy, "e", OPENING))


async def test_a_failure_in_the_worker_reaches_every_caller_and_new_weights_mend_it(
    start, build_model, play, assert_parity
):
    policy = start(max_sequences=2)
    broken = {name: torch.full_like(tensor, torch.nan) for name, tensor in build_model().state_dict().items()}
    await policy.update_weights(broken, 1)
    results = await asyncio.gather(
        *(policy.sample(OPENING[i:], Sampling(5), f"e{i}") for i in range(5)), return_exceptions=True
    )
    assert all(isinstance(result, PolicyError) for result in results)
    assert "not finite" in str(results[0])
    await policy.update_weights(build_model().state_dict(), 2)
    assert_parity(build_model(), await play(policy, "e0", OPENING))


async def test_a_cancelled_caller_frees_its_slot(start):
    policy = start(max_sequences=1)
    hog = asyncio.create_task(policy.sample(OPENING, Sampling(450), "hog"))
    queued = asyncio.create_task(policy.sample(OPENING, Sampling(450), "queued"))
    await until_sampling(policy)
    hog.cancel()
    queued.cancel()
    await asyncio.wait_for(policy.sample(OPENING[5:], Sampling(3), "next"), 5)
    assert hog.cancelled()
    assert policy.stats.sampled_tokens < 450


async def test_ending_a_session_fails_its_request_under_way(start):
    policy = start()
    running = asyncio.create_task(policy.sample(OPENING, Sampling(450), "e"))
    await until_sampling(policy)
    await policy.end_session("e")
    with pytest.raises(PolicyError, match="ended"):
        await running
    await policy.end_session("never heard of")


async def test_a_session_has_one_request_at_a_time(start):
    policy = start()
    results = await asyncio.gather(
        *(policy.sample(OPENING, Sampling(5), "e") for _ in range(2)), return_exceptions=True
    )
    assert [isinstance(result, PolicyError) for result in results] == [False, True]


async def test_a_response_that_takes_too_long_is_a_policy_error(start):
    policy = start(sample_timeout_s=0.02)
    with pytest.raises(PolicyError, match=r"0\.02 s"):
        await policy.sample(OPENING, Sampling(450), "e")


async def test_closing_fails_what_is_under_way_and_what_comes_after(start):
    policy = start()
    running = asyncio.create_task(policy.sample(OPENING, Sampling(450), "e"))
    await asyncio.sleep(0.01)
    await policy.close()
    with pytest.raises(PolicyError, match="closed"):
        await running
    with pytest.raises(PolicyError, match="closed"):
        await policy.sample(OPENING, Sampling(4), "e")
    await policy.end_session("e")


@pytest.mark.parametrize(
    ("token_ids", "sampling", "word"),
    [
        ([], Sampling(4), "history"),
        ([97], Sampling(4), "0 to 96"),
        ([5] * 500, Sampling(13), "512"),
        ([5], Sampling(0), "max_tokens=0"),
        ([5], Sampling(4, seed=-1), "seed=-1"),
        ([5], Sampling(4, temperature=0.7), "temperature=0.7"),
        ([5], Sampling(4, top_k=20), "top_k=20"),
        ([5], Sampling(4, top_p=0.9), "top_p=0.9"),
        ([5], Sampling(4, min_p=0.1), "min_p=0.1"),
        ([5], Sampling(4, repetition_penalty=1.1), "repetition_penalty"),
    ],
)
async def test_requests_that_cannot_be_served_as_asked_are_refused(token_ids, sampling, word, start):
    with pytest.raises(InputError, match=word):
        await start().sample(token_ids, sampling, "e")


async def test_the_whole_context_can_be_used(start, play, build_model, assert_parity):
    policy, history = start(), [5 + i % 80 for i in range(500)]
    assert_parity(build_model(), [(history, await policy.sample(history, Sampling(12), "e"))], bound=2e-5)


async def test_an_evaluation_may_decode_its_own_way(start, build_model, plain_logits):
    policy, oracle = start(for_training=False), build_model()
    greedy = await policy.sample(OPENING, Sampling(10, temperature=0.0), "greedy")
    logits = plain_logits(oracle, [*OPENING, *greedy.token_ids])
    assert greedy.token_ids == tuple(logits[len(OPENING) - 1 : -1].argmax(-1).tolist())
    narrow = await policy.sample(OPENING, Sampling(60, top_k=2, temperature=1.5), "narrow")
    ranks = plain_logits(oracle, [*OPENING, *narrow.token_ids])[len(OPENING) - 1 : -1].topk(2).indices.tolist()
    assert all(token in best for token, best in zip(narrow.token_ids, ranks, strict=True))


async def test_the_checkpoints_generation_config_does_not_leak_in(build_model, plain_logits, assert_parity, tmp_path):
    build_model(initializer_range=0.05).save_pretrained(tmp_path)
    settings = {"do_sample": True, "top_k": 2, "temperature": 0.3, "repetition_penalty": 1.5}
    (tmp_path / "generation_config.json").write_text(json.dumps(settings))
    policy = TorchPolicy.from_pretrained(tmp_path, threads=1)
    sample = await policy.sample(OPENING, Sampling(100, seed=3), "e")
    await policy.close()
    oracle = build_model(initializer_range=0.05)
    assert_parity(oracle, [(OPENING, sample)])
    ranks = plain_logits(oracle, [*OPENING, *sample.token_ids])[len(OPENING) - 1 : -1].topk(2).indices.tolist()
    assert any(token not in best for token, best in zip(sample.token_ids, ranks, strict=True))


def test_an_architecture_that_cannot_be_run_packed_is_refused():
    config = MambaConfig(vocab_size=97, hidden_size=32, num_hidden_layers=2, state_size=8)
    with pytest.raises(CheckpointError, match="Mamba"):
        TorchPolicy(AutoModelForCausalLM.from_config(config))


def test_missing_checkpoints_and_contexts_beyond_the_model_are_refused(build_model, tmp_path):
    with pytest.raises(CheckpointError, match=str(tmp_path)):
        TorchPolicy.from_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="512 positions"):
        TorchPolicy(build_model(), context_tokens=1024)
