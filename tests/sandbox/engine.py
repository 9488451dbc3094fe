"""A Docker engine to test on: the machine's, or one that is started for the tests; and an image made on the spot.

No registry is needed: the image holds this machine's own bash, git, coreutils and Python.
"""

import io
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from turnwise.sandbox.docker import connect, sweep
from turnwise.sandbox.owner import LABEL

IMAGE = "turnwise-tests:latest"
_START_S = 30.0
_PROGRAMS = (
    *(
        "bash",
        "sh",
        "cat",
        "chmod",
        "chown",
        "cp",
        "cut",
        "date",
        "echo",
        "env",
        "false",
        "find",
        "git",
        "grep",
        "head",
        "ln",
    ),
    *(
        "ls",
        "mkdir",
        "mount",
        "mv",
        "nohup",
        "pwd",
        "readlink",
        "rm",
        "sed",
        "seq",
        "setpriv",
        "setsid",
        "sleep",
        "sort",
    ),
    *("tail", "tar", "touch", "tr", "true", "unshare", "wc", "xargs", "yes"),
)
_LEFT_OUT = {
    "test",
    "tests",
    "site-packages",
    "dist-packages",
    "idlelib",
    "ensurepip",
    "lib2to3",
    "tkinter",
    "turtledemo",
}
_ETC = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/bash\n",
    "etc/group": "root:x:0:\n",
    "etc/gitconfig": "[safe]\n\tdirectory = *\n[user]\n\tname = agent\n\temail = agent@sandbox\n",
}


def reason_for_none() -> str:
    """Why no engine can be had here; "" when one can."""
    if answers(""):
        return ""
    if shutil.which("dockerd") is None:
        return "no Docker engine answers, and there is no dockerd to start one (apt-get install docker.io)"
    if os.geteuid() != 0:
        return "no Docker engine answers, and starting one takes root"
    return ""


def answers(host: str) -> bool:
    """Whether an engine is at `host` (or at the default)."""
    import docker
    import docker.errors

    try:
        client = docker.DockerClient(base_url=host, timeout=10) if host else docker.from_env(timeout=10)
        return bool(client.ping())
    except (docker.errors.DockerException, OSError):
        return False


@contextmanager
def engine() -> Iterator[str]:
    """The address of an engine with `IMAGE`; one that had to be started is ended, and leaves nothing."""
    if answers(""):
        import_image("")
        yield ""
        return
    with tempfile.TemporaryDirectory(prefix="turnwise-dockerd-") as folder, started(Path(folder)) as host:
        import_image(host)
        yield host


@contextmanager
def started(folder: Path) -> Iterator[str]:
    """An engine of our own, which ends with this process; its mounts are in a namespace of their own."""
    host = f"unix://{folder}/docker.sock"
    with (folder / "log").open("wb") as log:
        paths = [
            f"--host={host}",
            f"--data-root={folder}/data",
            f"--exec-root={folder}/exec",
            f"--pidfile={folder}/pid",
        ]
        bare = ["--iptables=false", "--ip6tables=false", "--bridge=none"]
        command = ["setpriv", "--pdeathsig=TERM", "unshare", "--mount", "dockerd", *paths, *bare]
        daemon = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + _START_S
        while not answers(host):
            if daemon.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"dockerd did not start: {(folder / 'log').read_text()[-2000:]}")
            time.sleep(0.05)
        yield host
    finally:
        daemon.kill()  # it takes seconds to end otherwise; its containerd ends with it
        daemon.wait(timeout=30)


def left_over(host: str) -> list[str]:
    """The containers and snapshots of any backend that no sweep would remove."""
    api = connect(host)
    sweep(api)
    wanted = {"label": [LABEL]}
    return [item["Id"] for item in api.containers(all=True, filters=wanted) + api.images(all=True, filters=wanted)]


def import_image(host: str) -> None:
    """Make `IMAGE`, if the engine has none."""
    import docker
    import docker.errors

    client = docker.DockerClient(base_url=host) if host else docker.from_env()
    try:
        client.images.get(IMAGE)
    except docker.errors.ImageNotFound:
        client.api.import_image_from_data(root_file_system(), repository=IMAGE.split(":")[0], tag="latest",
                                          changes=["ENV PATH=/usr/bin:/bin"])  # fmt: skip
    client.close()


def root_file_system(files: Mapping[str, str] = _ETC) -> bytes:
    """A tar archive of the least that sandboxes need of a system, and `files`."""
    python = Path(sys.base_prefix).resolve() / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    stdlib = Path(sysconfig.get_path("stdlib", vars={"installed_base": sys.base_prefix})).resolve()
    programs = [Path(path).resolve() for path in map(shutil.which, _PROGRAMS) if path]
    git = Path(subprocess.run(["git", "--exec-path"], capture_output=True, text=True, check=True).stdout.strip())
    dynamic = [python, *programs, *stdlib.glob("lib-dynload/_ctypes*.so")]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in ("usr/bin", "tmp", "root", "proc", "dev", "sys", "run", "etc"):
            add_folder(archive, name, 0o1777 if name == "tmp" else 0o755)
        for name in ("bin", "lib", "lib64"):
            add_link(archive, name, f"usr/{name}")
        for name, path in zip(_PROGRAMS, map(shutil.which, _PROGRAMS), strict=True):
            if path:
                archive.add(Path(path).resolve(), f"usr/bin/{name}")
        for path in sorted({library for program in dynamic for library in libraries(program)} | {python}):
            archive.add(path.resolve(), inside(path))
        add_link(archive, "usr/bin/python3", str(python))
        archive.add(stdlib, str(stdlib)[1:], filter=wanted)
        add_link(archive, f"{git}/git"[1:], "/usr/bin/git")
        for name, text in files.items():
            add_file(archive, name, text.encode())
    return buffer.getvalue()


def inside(path: Path) -> str:
    """Where a host's library goes in a tree whose /lib is a link into /usr."""
    return re.sub(r"^/(lib|lib64)/", r"usr/\1/", str(path)).lstrip("/")


def wanted(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if set(Path(member.name).parts) & _LEFT_OUT or "/config-" in member.name else member


def libraries(program: Path) -> list[Path]:
    listed = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=False).stdout
    return [Path(match) for match in re.findall(r"(/\S+\.so\S*) \(0x", listed)]


def add_folder(archive: tarfile.TarFile, name: str, mode: int) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.mode = tarfile.DIRTYPE, mode
    archive.addfile(member)


def add_link(archive: tarfile.TarFile, name: str, target: str) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.SYMTYPE, target
    archive.addfile(member)


def add_file(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))
