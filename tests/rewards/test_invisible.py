"""The test run is the row's own: the recorder changes nothing that tests can see."""

import json

import pytest

from turnwise.rewards import with_suite
from turnwise.rewards.suite import Supervised, recorded_command
from turnwise.types import TestRun

LOOKS = """\
import json, os, sys

def test_looks(request):
    config = request.config
    seen = {
        "modules": sorted(sys.modules),
        "argv": sys.argv[1:], "program": os.path.basename(sys.argv[0]), "path": sys.path, "cwd": os.getcwd(),
        "environ": {k: v for k, v in os.environ.items() if k not in ("_", "SHLVL", "OLDPWD", "PYTEST_CURRENT_TEST")},
        "flags": list(sys.flags), "args": list(config.invocation_params.args), "dir": str(config.invocation_params.dir),
        "options": {k: repr(v) for k, v in vars(config.option).items()}, "rootdir": str(config.rootpath),
        "fds": [fd for fd in range(10, 256) if os.path.exists(f"/proc/self/fd/{fd}") and os.get_inheritable(fd)],
    }
    open("/tmp/seen.json", "w").write(json.dumps(seen, default=repr))
"""


@pytest.mark.parametrize(
    "command", ["python -m pytest -rA tests/test_it.py", "cd tests && python -X dev -m pytest test_it.py"]
)
async def test_tests_see_the_same_with_the_recorder_as_without(small_world, backend, command):
    seen = []
    for recorded in (False, True):
        async with backend.create(with_suite(small_world.spec)) as sandbox:
            await sandbox.write("/testbed/tests/test_it.py", LOOKS.encode())
            await sandbox.write("/tmp/secret", b"secret")
            if recorded:
                own = recorded_command(TestRun(command, "parse_log_pytest"))
                _, record = await Supervised(own, 60, b"secret", "/tmp/secret").run(sandbox)
                assert list(record.outcomes.values()) == ["passed"], record.log
            else:
                done = await sandbox.exec(f"({command}) </dev/null", 60)
                assert done.exit_code == 0, done.output
            seen.append(json.loads(await sandbox.read("/tmp/seen.json")))

    plain, ours = seen
    assert {key: value for key, value in ours.items() if value != plain[key] and key != "modules"} == {}
    assert [name for name in ours["modules"] if name not in plain["modules"]] == []
