"""The text of process 1 of a container, and how it gets there; the modules beside run inside, not here."""

import json
from importlib import resources

# The image's own Python where it has one on the PATH, else where conda and Debian put it.
_START = """for python in python3 /opt/miniconda3/bin/python3 /usr/bin/python3 /usr/local/bin/python3; do
    command -v "$python" >/dev/null && exec "$python" -I -S -B -c "$0"
done
echo 'the image has no python3, which sandboxes need' >&2
exit 127"""
# The rest comes over stdin: on the command line, every `ps` inside would show it.
_LOAD = """import json, os, sys, types
sys.version_info >= (3, 6) or sys.exit("the image's Python is older than 3.6")
size, text = int(os.read(0, 8)), b""
while len(text) < size: text += os.read(0, size - len(text)) or sys.exit(1)
sources, config = json.loads(text.decode())
for name, source in sources:
    module = sys.modules[name] = types.ModuleType(name)
    exec(compile(source, name, "exec"), module.__dict__)
module.main(config)"""
_MODULES = ("processes", "streams", "replies", "files", "children", "main")

COMMAND = ("/bin/sh", "-c", _START, _LOAD)
"""The command line of a container's process 1; `opening` is the first thing to send to it."""


def opening(config: dict[str, object]) -> bytes:
    """What makes process 1 ours: its text, and the `config` that `main.Guest` reads."""
    files = resources.files(__package__)
    sources = [(f"{__package__}.{name}", (files / f"{name}.py").read_text(encoding="utf-8")) for name in _MODULES]
    text = json.dumps([sources, config]).encode()
    return b"%08d" % len(text) + text
