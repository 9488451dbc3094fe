import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "rollout.py"


def test_the_benchmark_gives_every_engine_the_same_load():
    options = ["--episodes", "2", "--turns", "2", "--plain-episodes", "2", "--json"]
    done = subprocess.run([sys.executable, str(SCRIPT), *options], capture_output=True, text=True, check=True)
    report = json.loads(done.stdout)
    assert [engine["engine"] for engine in report["engines"]] == [
        "turnwise",
        "generate, all in a batch",
        "generate, one by one",
    ]
    assert len({engine["sampled_tokens"] for engine in report["engines"]}) == 1
    assert set(report["turnwise_is_times"]) == {"generate, all in a batch", "generate, one by one"}
