"""Recipes: what is read, what is refused and with which words, and the paper's numbers in the recipes that ship."""

from pathlib import Path

import pytest

from turnwise.config import (
    RftStage,
    RlStage,
    differences,
    dump_recipe,
    evaluation_recipe,
    load_recipe,
    parse_recipe,
    sandbox_settings,
)
from turnwise.errors import RecipeError

RECIPES = Path(__file__).parents[1] / "recipes"
MINI = """
[run]
name = "mini"
[model]
checkpoint = "../model"
[[stages]]
name = "rft"
kind = "rft"
runs = 2
lr = 1e-3
batch_size = 4
[[stages]]
name = "rl-1"
kind = "rl"
iterations = 4
problems_per_iteration = 2
group_size = 2
batch_size = 4
clip_low = 0.2
clip_high = 0.3
lr = 1e-4
[[stages]]
name = "rl-2"
kind = "rl"
refresh = { max_success = "2/3" }
iterations = 4
problems_per_iteration = 2
group_size = 2
batch_size = 4
clip_low = 0.2
clip_high = 0.26
lr = 1e-4
[evaluation]
points = ["base", "rl-2"]
runs = 3
k = 2
"""


@pytest.fixture
def mini(tmp_path: Path) -> Path:
    path = tmp_path / "recipes" / "mini.toml"
    path.parent.mkdir()
    path.write_text(MINI)
    return path


def test_values_defaults_and_fractions_arrive(mini: Path) -> None:
    recipe = load_recipe(mini)
    rl_2 = recipe.stage("rl-2")
    assert isinstance(rl_2, RlStage)
    assert rl_2.refresh is not None
    assert rl_2.refresh.max_success == 2 / 3
    assert rl_2.refresh.drop_never_solved
    assert recipe.trainer.betas == (0.9, 0.999)
    assert recipe.context_tokens(rl_2) == recipe.agent.context_tokens


def test_relative_paths_start_at_the_recipe(mini: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    assert load_recipe(mini).model.checkpoint == str(tmp_path / "model")


def test_a_checkpoint_that_is_no_folder_is_a_hub_id(mini: Path) -> None:
    assert load_recipe(mini, ["model.checkpoint=Qwen/Qwen3-0.6B"]).model.checkpoint == "Qwen/Qwen3-0.6B"


def test_overrides_reach_stages_by_name(mini: Path) -> None:
    recipe = load_recipe(mini, ["stages.rl-1.lr=2e-5", "run.seed=7", 'evaluation.points=["rft"]'])
    assert recipe.stage("rl-1").lr == 2e-5
    assert recipe.stage("rl-2").lr == 1e-4
    assert recipe.run.seed == 7
    assert recipe.evaluation.points == ("rft",)


REFUSED = [
    ("stages.rl-1.lrr=1", ["stages.rl-1.lrr", "unknown key", "'lr'"]),
    ("stages.rl-1.weight_decay=0.1", ["stages.rl-1.weight_decay", "trainer.weight_decay"]),
    ("stages.rl-2.refresh.max_succes=0.5", ["stages.rl-2.refresh.max_succes", "'max_success'"]),
    ("polcy.threads=1", ["polcy", "'policy'"]),
    ("stages.rl1.lr=1", ["no stage is called 'rl1'", "'rl-1'"]),
    ("stages.rft.clip_low=0.2", ["stages.rft.clip_low", "no effect", "nothing is clipped"]),
    ("stages.rl-1.demonstration=true", ["stages.rl-1.demonstration", "no effect"]),
    ("stages.rl-1.schedule=cosine", ["stages.rl-1.schedule", "no effect"]),
    ("sandbox.base_image=python:3.12", ["sandbox.base_image", "no effect", "'local'", "docker and kubernetes"]),
    ("sandbox.node_selector.pool=cpu", ["sandbox.node_selector", "no effect", "kubernetes"]),
    ("stages.rl-1.group_size=1", ["stages.rl-1.group_size", "advantage"]),
    ("stages.rl-1.refresh.max_success=0.5", ["stages.rl-1.refresh", "no RL stage comes before"]),
    ("stages.rl-1.length_threshold=40", ["stages.rl-1.length_threshold", "turn limit is 40"]),
    ("stages.rl-1.context_tokens=4096", ["stages.rl-1.context_tokens", "no room"]),
    ("stages.rl-1.kind=dpo", ["stages.rl-1", 'kind = "rft"']),
    ("stages.rl-2.name=rl-1", ["two stages have this name"]),
    ("stages.rl-1.name=base", ["means something else"]),
    ("run.name=a/b", ["run.name", "^[a-z0-9]"]),
    ("stages.rl-1.name=a/b", ["stages.a/b.name", "episode ids"]),
    ("evaluation.points=['rl-9']", ["evaluation.points", "'rl-9' is no stage", "rl-1, rl-2"]),
    ("evaluation.points=['rft', 'rft']", ["evaluation.points", "twice"]),
    ("evaluation.k=4", ["evaluation.k", "evaluation.runs is 3"]),
    ("evaluation.every_runs=1", ["evaluation.every_runs", "without evaluation.every"]),
    ("evaluation.every=2", ["evaluation.every", "needs evaluation.every_runs"]),
    ("tasks.heldout_split=train", ["tasks.heldout_split", "must not be trained on"]),
    ("run.seed=soon", ["run.seed", "valid integer", "'soon'"]),
    ("run.seed", ["write it as key=value"]),
    ("run.seed.deeper=1", ["run.seed"]),
]


@pytest.mark.parametrize(("override", "words"), REFUSED)
def test_refused_with_the_key_and_the_reason(mini: Path, override: str, words: list[str]) -> None:
    with pytest.raises(RecipeError) as refused:
        load_recipe(mini, [override])
    assert "--set" in str(refused.value) or str(mini) in str(refused.value)
    for word in words:
        assert word in str(refused.value)


def test_a_wrong_key_in_the_file_names_the_file(mini: Path) -> None:
    mini.write_text(MINI.replace("batch_size", "batchsize", 1))
    with pytest.raises(RecipeError) as refused:
        load_recipe(mini)
    assert f"{mini}: stages.rft.batchsize: unknown key; did you mean 'batch_size'?" in str(refused.value)
    assert f"{mini}: stages.rft.batch_size: is missing" in str(refused.value)


def test_demonstration_after_training_is_refused(mini: Path) -> None:
    second = '[[stages]]\nname = "again"\nkind = "rft"\nruns = 1\nlr = 1.0\nbatch_size = 1\ndemonstration = true\n'
    mini.write_text(MINI + second)
    with pytest.raises(RecipeError, match=r"stages\.again\.demonstration"):
        load_recipe(mini)


def test_no_file_and_no_toml(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no such recipe"):
        load_recipe(tmp_path / "absent.toml")
    (tmp_path / "bad.toml").write_text("[run\n")
    with pytest.raises(RecipeError, match=r"bad\.toml: not valid TOML"):
        load_recipe(tmp_path / "bad.toml")


def test_without_stages_the_trainer_has_no_effect() -> None:
    raw = {"run": {"name": "x"}, "model": {"checkpoint": "m"}, "trainer": {"eps": 1e-8}}
    with pytest.raises(RecipeError, match="trainer: has no effect"):
        parse_recipe({**raw, "evaluation": {"points": ["base"], "runs": 1, "k": 1}}, source="x", base=Path())


@pytest.mark.parametrize("name", ["quickstart", "paper-stage1", "paper", "endpoint"])
def test_a_dumped_recipe_reads_back_the_same_from_elsewhere(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(RECIPES / f"{name}.toml")
    copy = tmp_path / "recipe.toml"
    copy.write_text(dump_recipe(recipe, tmp_path))
    assert differences(recipe, load_recipe(copy)) == []


def test_differences_name_the_keys_and_leave_out_the_operational(mini: Path) -> None:
    other = load_recipe(mini, ["stages.rl-1.lr=0.5", "policy.threads=1", "stages.rl-2.refresh.drop_never_solved=false"])
    assert differences(load_recipe(mini), other) == [
        "stages.rl-1.lr: 0.0001 → 0.5",
        "stages.rl-2.refresh.drop_never_solved: True → False",
    ]


def test_paper_rejection_fine_tuning() -> None:
    recipe = load_recipe(RECIPES / "paper.toml")
    stage = recipe.stage("rft")
    assert isinstance(stage, RftStage)
    assert (stage.runs, stage.lr, stage.batch_size, stage.warmup_steps) == (10, 5e-6, 64, 10)
    assert stage.schedule == "cosine"
    assert stage.demonstration
    assert recipe.context_tokens(stage) == 65_536
    trainer = recipe.trainer
    assert (trainer.betas, trainer.eps, trainer.weight_decay, trainer.grad_clip) == ((0.9, 0.999), 1e-8, 0.1, 1.0)


PAPER_STAGES = {
    "rl-1": {"context": 65_536, "problems": 300, "batch": 128, "clip": (0.2, 0.3), "turns": 40, "threshold": 10},
    "rl-2": {"context": 131_072, "problems": 100, "batch": 256, "clip": (0.2, 0.26), "turns": 80, "threshold": 10},
}


@pytest.mark.parametrize(("file", "name"), [("paper", "rl-1"), ("paper", "rl-2"), ("paper-stage1", "rl-1")])
def test_paper_rl_stages(file: str, name: str) -> None:
    stage, expected = load_recipe(RECIPES / f"{file}.toml").stage(name), PAPER_STAGES[name]
    assert isinstance(stage, RlStage)
    assert (stage.group_size, stage.lr) == (10, 1e-6)
    assert stage.context_tokens == expected["context"]
    assert stage.problems_per_iteration == expected["problems"]
    assert stage.batch_size == expected["batch"]
    assert (stage.clip_low, stage.clip_high) == expected["clip"]
    assert (stage.max_turns, stage.length_threshold) == (expected["turns"], expected["threshold"])


def test_paper_refresh_iterations_and_evaluation() -> None:
    recipe = load_recipe(RECIPES / "paper.toml")
    rl = [stage for stage in recipe.stages if isinstance(stage, RlStage)]
    assert rl[0].refresh is None
    assert rl[1].refresh is not None
    assert (rl[1].refresh.max_success, rl[1].refresh.drop_never_solved) == (2 / 3, True)
    assert sum(stage.iterations for stage in rl) > 100
    assert (recipe.evaluation.runs, recipe.evaluation.k) == (10, 10)


CHAT = """
[run]
name = "chat"
[model]
name = "org/model"
[agent]
max_turns = 7
[policy]
backend = "chat"
concurrency = 4
[policy.chat]
base_url = "http://localhost:8000/v1"
request = { temperature = 0.6, stop = ["x"] }
price = { prompt = 2.0, completion = 8.0 }
[evaluation]
points = ["base"]
runs = 1
k = 1
"""


@pytest.fixture
def chat(tmp_path: Path) -> Path:
    path = tmp_path / "chat.toml"
    path.write_text(CHAT)
    return path


def test_an_endpoints_recipe_arrives_and_reads_back_from_elsewhere(chat: Path, tmp_path: Path) -> None:
    recipe = load_recipe(chat)
    assert recipe.policy.chat is not None
    assert recipe.policy.chat.request == {"temperature": 0.6, "stop": ["x"]}
    assert recipe.policy.chat.price is not None
    assert recipe.policy.chat.price.prices.cached == 2.0
    assert (recipe.model_name, recipe.weights) == ("org/model", "")
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "recipe.toml").write_text(dump_recipe(recipe, tmp_path / "kept"))
    assert load_recipe(tmp_path / "kept" / "recipe.toml").policy == recipe.policy


CHAT_REFUSED = [
    ("policy.chat.bas_url=x", ["policy.chat.bas_url", "'base_url'"]),
    ("policy.chat.price.prmpt=1", ["policy.chat.price.prmpt", "'prompt'"]),
    ("policy.chat.base_url=localhost:8000", ["policy.chat.base_url", "pattern"]),
    ("policy.chat.request.messages=[]", ["policy.chat.request.messages", "scaffold"]),
    ("policy.chat.requests_per_minute=0.1", ["policy.chat.requests_per_minute", "lower the concurrency"]),
    ("policy.threads=2", ["policy.threads", "no effect", "'chat'"]),
    ("run.seed=3", ["run.seed", "no effect"]),
    ("agent.max_response_tokens=9", ["agent.max_response_tokens", "policy.chat.request"]),
    ("model.checkpoint=org/other", ["model.checkpoint", "no effect"]),
    ("policy.backend=torch", ["policy.chat", "no effect without", "model.checkpoint: is missing"]),
    ("trainer.eps=1e-7", ["trainer", "no effect"]),
]


@pytest.mark.parametrize(("override", "words"), CHAT_REFUSED)
def test_what_has_no_effect_with_an_endpoint_is_refused(chat: Path, override: str, words: list[str]) -> None:
    with pytest.raises(RecipeError) as refused:
        load_recipe(chat, [override])
    for word in words:
        assert word in str(refused.value)


def test_an_endpoint_cannot_be_trained(mini: Path) -> None:
    with pytest.raises(RecipeError) as refused:
        load_recipe(mini, ["policy.backend=chat", "policy.chat.base_url=http://x/v1"])
    assert "stages need 'torch'" in str(refused.value)
    with pytest.raises(RecipeError, match=r"policy\.chat: policy\.backend 'chat' needs this table"):
        load_recipe(mini, ["policy.backend=chat"])


def test_an_evaluation_of_an_endpoint_takes_the_scaffold_and_leaves_the_engine(mini: Path) -> None:
    mini.write_text(MINI + "[agent]\nmax_turns = 9\nmax_response_tokens = 7\n[policy]\nthreads = 3\n")
    settings = {"evaluation": {"runs": 2, "k": 2}, "overrides": [], "name": "eval"}
    local = evaluation_recipe(mini, model="Qwen/Qwen3-8B", **settings)
    assert (local.model.checkpoint, local.policy.threads) == ("Qwen/Qwen3-8B", 3)
    remote = evaluation_recipe(mini, model="a/b/c:d", chat={"base_url": "https://api.example.org/v1"}, **settings)
    assert (remote.model.name, remote.model.checkpoint) == ("a/b/c:d", None)
    assert (remote.agent.max_turns, remote.policy.threads, remote.policy.backend) == (9, 0, "chat")


def test_an_endpoint_in_the_recipe_is_the_evaluations(chat: Path) -> None:
    settings = {"evaluation": {"runs": 2, "k": 2}, "overrides": [], "name": "eval"}
    recipe = evaluation_recipe(chat, model="other", **settings)
    assert (recipe.model.name, recipe.policy.concurrency) == ("other", 4)
    moved = evaluation_recipe(chat, model="other", chat={"base_url": "http://elsewhere/v1"}, **settings)
    assert moved.policy.chat is not None
    assert (moved.policy.chat.base_url, moved.policy.chat.request) == (
        "http://elsewhere/v1",
        {"temperature": 0.6, "stop": ["x"]},
    )


def test_the_sandboxs_settings_alone(chat: Path) -> None:
    chat.write_text(CHAT + "[sandbox]\nmemory_mb = 2048\n")
    settings = sandbox_settings(chat, ["sandbox.verifications=5"])
    assert (settings.memory_mb, settings.verifications) == (2048, 5)
    assert sandbox_settings(None, []).memory_mb == 1024
    with pytest.raises(RecipeError, match=r"--set: sandbox\.memory_mbs: unknown key; did you mean 'memory_mb'"):
        sandbox_settings(chat, ["sandbox.memory_mbs=5"])
    with pytest.raises(RecipeError, match=r"run\.seed: has no effect here"):
        sandbox_settings(chat, ["run.seed=5"])


def test_the_gates_verdicts_are_a_path_and_do_not_make_another_run(tmp_path):
    (tmp_path / "mini.toml").write_text(MINI)
    plain = load_recipe(tmp_path / "mini.toml")
    gated = load_recipe(tmp_path / "mini.toml", ["tasks.gate=none", "tasks.repos=clones"])
    assert gated.tasks.gate == "none"
    assert gated.tasks.repos == str(Path.cwd() / "clones")
    assert differences(plain, gated) == []
    assert load_recipe(tmp_path / "mini.toml", ["tasks.gate=v.jsonl"]).tasks.gate == str(Path.cwd() / "v.jsonl")
