"""What a recipe opens, as the first prompt of an episode shows it."""

from dataclasses import replace

from turnwise.agent import load_tokenizer
from turnwise.config import load_recipe
from turnwise.pipeline.workshop import open_workshop
from turnwise.rollout import EpisodeRequest
from turnwise.store import EpisodeKey, Journal
from turnwise.tasks import write_tasks

RECIPE = """
[run]
name = "dated"
[model]
checkpoint = "random"
today = "2023-01-09"
[tasks]
path = "tasks.jsonl"
[agent]
system_prompt = "compact"
max_turns = 1
context_tokens = 512
max_response_tokens = 2
[policy]
threads = 1
[evaluation]
points = ["base"]
runs = 1
k = 1
"""


async def test_the_first_prompt_shows_the_recipes_date(make_model, small_world, tmp_path):
    weights = make_model("qwen2", tmp_path / "random")
    template = weights / "chat_template.jinja"
    template.write_text("[{{ strftime_now('%d %B %Y') }}]" + template.read_text())
    (tmp_path / "dated.toml").write_text(RECIPE)
    task = replace(small_world.task, environment=replace(small_world.task.environment, sha256="0" * 64))
    write_tasks(tmp_path / "tasks.jsonl", [task])
    recipe = load_recipe(tmp_path / "dated.toml")
    key = EpisodeKey("base", "evaluate", 0, task.instance_id, 0)
    with Journal.open(tmp_path / "journal.sqlite", "dated") as journal:
        workshop = open_workshop(recipe, journal, str(weights), small_world)
        await workshop.collector(None).collect([EpisodeRequest(key, task)])
        await workshop.close()
        opening_ids = journal.episode(key).opening_ids_T.tolist()
    assert load_tokenizer(weights).decode(opening_ids).startswith("[09 January 2023]<|im_start|>system")
