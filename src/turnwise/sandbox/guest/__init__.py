"""The text of process 1 of a container, and how it gets there; the modules beside run inside, not here."""

import json
from importlib import resources

# Python in the image: its own where it has one on the PATH, else where conda and Debian put it.
_START = """for python in python3 /opt/miniconda3/bin/python3 /usr/bin/python3 /usr/local/bin/python3; do
    "$python" -I -S -c 'import ctypes, sys; sys.exit(sys.version_info < (3, 6))' 2>/dev/null &&
        exec "$python" -I -S -B -c "$0" "$1" "$2"
done
echo 'the image has no Python 3.6 or newer (with ctypes), which sandboxes need' >&2
exit 127"""
_LOAD = """import json, sys, types
for name, text in json.loads(sys.argv.pop(1)):
    module = sys.modules[name] = types.ModuleType(name)
    exec(compile(text, name, "exec"), module.__dict__)
module.main()"""
_MODULES = ("processes", "streams", "main")


def program(config: dict[str, object]) -> list[str]:
    """The command line that makes a container's process 1 ours; `config` is what `main.Guest` reads."""
    files = resources.files(__package__)
    sources = [(f"{__package__}.{name}", (files / f"{name}.py").read_text()) for name in _MODULES]
    return ["/bin/sh", "-c", _START, _LOAD, json.dumps(sources), json.dumps(config)]
