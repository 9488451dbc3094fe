"""What a sandbox sees of the host: bubblewrap's arguments, and the small `/etc` that stands in for the host's.

Read-only: `/usr` (with `/bin`, `/lib`, …), a minimal `/etc`, the prefix of the Python that runs Turnwise, the spec's
mounts. Writable, on the sandbox's own disk: the workdir, `/tmp` (with HOME), `/dev/shm`. Nothing else of the host
is there. Every site-packages directory of the host is masked: a package's clean source is the answer to the tasks.

A sandbox of an unpacked image sees nothing of the host but the mounts: the image is its whole root, writable by copy.
"""

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path, PurePosixPath

from turnwise.sandbox.starter import AGENT
from turnwise.types import SandboxSpec

CONTROL = "/run/turnwise"
HOME = "/tmp/home"
_ALWAYS_THERE = ("/", "/usr", "/etc", "/tmp", "/dev", "/proc")
_DEFAULT_ENV = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": HOME,
    "USER": "agent",
    "LANG": "C.UTF-8",
    "TERM": "dumb",
    "PAGER": "cat",
    "GIT_PAGER": "cat",
    "GIT_TERMINAL_PROMPT": "0",
}
_IMAGE_ENV = {
    "HOME": "/root",
    # As in `_ETC_OWN`; the image's own files stay as they are.
    "GIT_CONFIG_COUNT": "1",
    "GIT_CONFIG_KEY_0": "safe.directory",
    "GIT_CONFIG_VALUE_0": "*",
}
_PACKAGES = ("site-packages", "dist-packages", "_bundled", "google-cloud-sdk")
_ETC_FROM_HOST = (
    "alternatives",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "mime.types",
    "os-release",
    "protocols",
    "services",
    "timezone",
)
_ETC_OWN = {
    "passwd": f"root:x:0:0:root:{HOME}:/bin/bash\nagent:x:{AGENT}:{AGENT}:agent:{HOME}:/bin/bash\n"
    "nobody:x:65534:65534:nobody:/:/bin/false\n",
    "group": f"root:x:0:\nagent:x:{AGENT}:\nnogroup:x:65534:\n",
    "hosts": "127.0.0.1 localhost sandbox\n::1 localhost\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    "resolv.conf": "",
    # The repository may belong to another user than the one that git runs as.
    "gitconfig": "[safe]\n\tdirectory = *\n[user]\n\tname = agent\n\temail = agent@sandbox\n"
    "[init]\n\tdefaultBranch = main\n[advice]\n\tdetachedHead = false\n[core]\n\tpager = cat\n",
}


def write_etc(directory: Path) -> None:
    """Fill `directory` with the `/etc` that sandboxes see."""
    directory.mkdir()
    for name in _ETC_FROM_HOST:
        source = Path("/etc", name)
        if source.is_dir():
            shutil.copytree(source, directory / name, symlinks=True)
        elif source.exists():
            shutil.copyfile(source, directory / name)
    for name, text in _ETC_OWN.items():
        (directory / name).write_text(text, encoding="utf-8")


def python_prefixes() -> tuple[str, ...]:
    """Where the running Python's base installation lies, as named and as resolved, if outside `/usr` and reachable."""
    prefixes = {Path(sys.base_prefix), Path(sys.base_prefix).resolve()}
    return tuple(sorted(str(path) for path in prefixes if not path.is_relative_to("/usr") and os.access(path, os.X_OK)))


@functools.cache
def masked(prefixes: tuple[str, ...]) -> tuple[str, ...]:
    """The directories with packages of Pythons anywhere on the host (half a second; once per process).

    Wheels count: pip's own carries copies of some packages, and Debian and ensurepip keep more. So does a program that
    brings its own copies of much of the registry.
    """
    roots = ("/usr/lib", "/usr/lib64", "/usr/libexec", "/usr/local", *prefixes)
    below = [path for path in roots if Path(path).is_dir()]
    named = " -o ".join(f"-name {name}" for name in _PACKAGES).split()
    command = ["find", *below, "-xdev", "-type", "d", "(", *named, ")", "-prune", "-print0"]
    listed = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False).stdout
    found = {Path(os.fsdecode(name)) for name in listed.split(b"\0") if name}
    found |= {Path(prefix, name) for prefix in prefixes for name in ("pkgs", "envs")} | {
        Path("/usr/share/python-wheels")
    }
    return tuple(sorted(str(path) for path in found if path.is_dir() and any(path.iterdir())))


def _open_parents(path: str) -> list[str]:
    """bubblewrap makes missing parents 0700, and a shell passes over a PATH entry that it cannot look into."""
    parents = [str(parent) for parent in reversed(PurePosixPath(path).parents) if str(parent) not in _ALWAYS_THERE]
    return [argument for parent in parents for argument in ("--perms", "0755", "--dir", parent)]


def host_arguments(etc: Path) -> list[str]:
    """bubblewrap's arguments for what every sandbox of a backend sees alike."""
    arguments = ["--ro-bind", "/usr", "/usr", "--ro-bind", str(etc), "/etc"]
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        path = Path("/", name)
        if path.is_symlink():
            arguments += ["--symlink", str(path.readlink()), str(path)]
        elif path.is_dir():
            arguments += ["--ro-bind", str(path), str(path)]
    for prefix in python_prefixes():
        arguments += [*_open_parents(prefix), "--ro-bind", prefix, prefix]
    return arguments


def ground(spec: SandboxSpec) -> Path:
    """The directory that a sandbox's overlay stands on: the spec's root, or an unpacked image (`oci.UnpackedImage`)."""
    return Path(spec.image) if spec.image else spec.tree


def spec_arguments(spec: SandboxSpec, control: Path) -> list[str]:
    """bubblewrap's arguments for one sandbox; relative sources are relative to its disk."""
    arguments = ["--bind", "merged", "/"] if spec.image else []
    arguments += ["--proc", "/proc", "--dev", "/dev", "--bind", "shm", "/dev/shm"]
    arguments += ["--remount-ro", "/dev", "--bind", "tmp", "/tmp", "--dir", HOME]
    arguments += [*_open_parents(CONTROL), "--ro-bind", str(control), CONTROL, *_open_parents(spec.workdir)]
    arguments += [*([] if spec.image else ["--bind", "merged", spec.workdir]), "--chdir", spec.workdir]
    for mount in spec.mounts:
        arguments += [*_open_parents(mount.inside), "--ro-bind", str(mount.host), mount.inside]
    if spec.network:
        arguments += ["--ro-bind-try", "/etc/resolv.conf", "/etc/resolv.conf"]
    else:
        arguments += ["--unshare-net"]
    arguments += [*([] if spec.image else ["--remount-ro", "/"]), "--clearenv"]
    for name, value in {**_DEFAULT_ENV, **(_IMAGE_ENV if spec.image else {}), **spec.env}.items():
        arguments += ["--setenv", name, value]
    return arguments
