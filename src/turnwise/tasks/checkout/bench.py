"""Where a repository's own build code runs: confined by bubblewrap to the repository and the environment being built.

Paths are those that sandboxes see (/testbed, /opt/env), for editable installs and scripts write them down. The network
is there, the host's files are not, but for `/usr`, the Python, and pip's settings.
"""

import os
import re
import shutil
import subprocess
import sysconfig
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from turnwise.errors import InputError, SandboxError
from turnwise.tasks.checkout.pythons import HostPython
from turnwise.tasks.checkout.watch import watch

ENV, WORKDIR = "/opt/env", "/testbed"
_CACHE, _UV, _NOTES = "/opt/cache", "/opt/uv", "/opt/notes"
_INDEX_S = 120.0
_UNANSWERED = re.compile(r"error sending request|Request failed after|HTTP status (client|server) error \((429|5\d\d)")
DISK_FULL = re.compile(r"No space left on device|Disk quota exceeded|os error 28\b")
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ETC = (
    "alternatives",
    "ca-certificates",
    "group",
    "hosts",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "mime.types",
    "nsswitch.conf",
    "os-release",
    "passwd",
    "pip.conf",
    "pki",
    "protocols",
    "resolv.conf",
    "services",
    "ssl",
    "timezone",
    "xdg/pip",
)
# What tells uv and pip where packages come from, and how the network is reached.
_PASSED = re.compile(r"(?i)^(UV_[A-Z_]*INDEX[A-Z_]*|UV_HTTP_TIMEOUT|PIP_\w+|SSL_CERT_\w+|\w+_proxy)$")
_LOCAL_PATH = re.compile(r"(?<![\w:/])(?:file://)?(/[^\s'\",;:]+)")


def uv_executable() -> Path:
    """uv, which installs and resolves: the one beside Turnwise's Python, else the one on PATH.

    Raises InputError saying how to get it.
    """
    own = Path(sysconfig.get_path("scripts")) / "uv"
    found = own if own.exists() else shutil.which("uv")
    if found is None:
        raise InputError("building the environment of a repository needs uv: pip install uv")
    return Path(found).resolve()


def uv_environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables that uv is always run with: it trusts the certificate authorities of the system, as pip does.

    By itself uv trusts only those that it brings. `environ` may decide otherwise.
    """
    system = environ.get("UV_SYSTEM_CERTS") or environ.get("UV_NATIVE_TLS") or "true"
    # Up to 0.10 uv knows the second name alone.
    return {"UV_NO_CONFIG": "1", "UV_SYSTEM_CERTS": system, "UV_NATIVE_TLS": system}


def disk_full(folder: Path) -> str:
    """What is said of a disk that has no room for an environment."""
    return f"the disk of {folder} or of the package cache is full: free some space and start the same command again"


@dataclass(frozen=True)
class Done:
    """How a command on the bench ended; 124 when it took longer than it might."""

    exit_code: int
    output: str

    @property
    def last_words(self) -> str:
        """The end of its output in one line, fit for an error message."""
        lines = [line.strip() for line in self.output.splitlines() if line.strip()]
        telling = [line for line in lines if re.search(r"(?i)error|no solution|not found|failed", line)]
        return " | ".join((telling or lines)[-4:])[-600:] or f"exit status {self.exit_code}"


@dataclass(frozen=True)
class Bench:
    """`root` appears at /testbed and `env`, a virtual environment of `python`, at /opt/env, both writable.

    `cache` (of uv and pip) is shared between all benches. `env` lies in it, so that uv links packages into the
    environment instead of copying them: nothing links from one mount to another. `notes` is a folder for files that
    commands are given. When `stopped` is set, whatever runs is ended. A package index that does not answer is waited
    for, `patience_s` in all.
    """

    root: Path
    env: Path
    notes: Path
    cache: Path
    python: HostPython
    stopped: threading.Event
    variables: Mapping[str, str] = field(default_factory=dict)
    patience_s: Sequence[float] = (5.0, 20.0)

    def uv(self, *arguments: str, timeout_s: float, **variables: str) -> Done:
        """Run uv on the bench. Raises SandboxError where the package index does not answer: that is no row's fault."""
        command = [f"{_UV}/uv", *arguments]
        done = self.run(command, timeout_s, **variables)
        if not done.exit_code or not _UNANSWERED.search(done.output):
            return done
        for pause_s in (0.0, *self.patience_s):
            self.stopped.wait(pause_s)
            if self._index_answers(variables):
                return self.run(command, timeout_s, **variables)
        raise SandboxError(f"the package index does not answer: {done.last_words}")

    def _index_answers(self, variables: Mapping[str, str]) -> bool:
        """Whether the index does, so that it is only some package, or some other place, that does not."""
        asked = ("pip", "install", "--python", f"{ENV}/bin/python", "--dry-run", "--no-deps", "--reinstall")
        return self.run([f"{_UV}/uv", *asked, "--refresh-package=pip", "pip"], _INDEX_S, **variables).exit_code == 0

    def shell(self, command: str, timeout_s: float, **variables: str) -> Done:
        """Run a shell command at the repository's root, the environment's programs first on PATH."""
        return self.run(["/bin/bash", "-c", command], timeout_s, **variables)

    def note(self, name: str, text: str) -> str:
        """Write a file for a command to read; its path on the bench."""
        (self.notes / name).write_text(text, encoding="utf-8")
        return f"{_NOTES}/{name}"

    def shown(self, file: Path) -> str:
        """Where a command finds a file of `root` or of `notes`: those of the root as it would name them itself."""
        if file.is_relative_to(self.root):
            return str(file.relative_to(self.root))
        return f"{_NOTES}/{file.relative_to(self.notes)}"

    def run(self, command: Sequence[str], timeout_s: float, **variables: str) -> Done:
        """Run a command, and end it with all that it started after `timeout_s`.

        Raises SandboxError where it fails for want of room: whatever it says of packages then is not true.
        """
        process = subprocess.Popen(
            [*self._bwrap(variables), "--", *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            encoding="utf-8",
        )
        try:
            output, in_time = self._watch(process, timeout_s)
        finally:
            process.kill()
            process.wait()
        if not in_time:
            return Done(124, f"{output}\nerror: took more than {timeout_s:g} s")
        if process.returncode and DISK_FULL.search(output):
            raise SandboxError(disk_full(self.env))
        if process.returncode and output.startswith("bwrap: ") and not self._is_confined():
            raise InputError(f"the confinement that environments are built in does not start: {output.strip()}")
        return Done(process.returncode, output)

    def _is_confined(self) -> bool:
        """Whether the confinement itself starts, without what the row gives it."""
        plain = [*replace(self, variables={})._bwrap({}), "--", "/bin/bash", "-c", "true"]
        return subprocess.run(plain, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode == 0

    def _watch(self, process: subprocess.Popen[str], timeout_s: float) -> tuple[str, bool]:
        """The output of a process, and whether it ended in time. Raises BuildingStopped."""
        try:
            return watch(process, timeout_s, self.stopped)[0], True
        except subprocess.TimeoutExpired:
            process.kill()
            return process.communicate()[0], False

    def _bwrap(self, variables: Mapping[str, str]) -> list[str]:
        bwrap = shutil.which("bwrap")
        if bwrap is None:
            raise InputError("environments are built with `bwrap`, which is not installed: apt-get install bubblewrap")
        arguments = [bwrap, "--unshare-user-try", "--unshare-pid", "--unshare-ipc", "--unshare-uts"]
        arguments += ["--die-with-parent", "--new-session", "--cap-drop", "ALL", *_host_view()]
        for path in _shown(self.python):
            arguments += ["--ro-bind-try", path, path]
        arguments += ["--ro-bind", str(uv_executable()), f"{_UV}/uv", "--ro-bind", str(self.notes), _NOTES]
        for folder, inside in ((self.root, WORKDIR), (self.cache, _CACHE)):
            arguments += ["--bind", str(folder), inside]
        arguments += ["--symlink", f"{_CACHE}/{self.env.relative_to(self.cache)}", ENV]
        arguments += ["--chdir", WORKDIR, "--clearenv"]
        passed = {name: value for name, value in os.environ.items() if _PASSED.match(name)}
        for name, value in {**passed, **self._own(), **self.variables, **variables}.items():
            arguments += ["--setenv", name, value]
        return arguments

    def _own(self) -> dict[str, str]:
        return {
            "PATH": f"{ENV}/bin:{SYSTEM_PATH}",
            "HOME": "/tmp/home",
            "LANG": "C.UTF-8",
            "TZ": "UTC",
            "VIRTUAL_ENV": ENV,
            "UV_CACHE_DIR": f"{_CACHE}/uv",
            "PIP_CACHE_DIR": f"{_CACHE}/pip",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_NO_INPUT": "1",
            "PIP_ROOT_USER_ACTION": "ignore",
            "UV_LINK_MODE": "hardlink",
            "UV_PYTHON_DOWNLOADS": "never",
            "UV_NO_PROGRESS": "1",
            **uv_environment(),
            **_pip_settings(),
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "safe.directory",
            "GIT_CONFIG_VALUE_0": "*",
        }


def _host_view() -> list[str]:
    arguments = [
        "--ro-bind",
        "/usr",
        "/usr",
        "--proc",
        "/proc",
        "--dev",
        "/dev",
        "--tmpfs",
        "/tmp",
        "--dir",
        "/tmp/home",
    ]
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        path = Path("/", name)
        if path.is_symlink():
            arguments += ["--symlink", str(path.readlink()), str(path)]
        elif path.is_dir():
            arguments += ["--ro-bind", str(path), str(path)]
    for name in _ETC:
        arguments += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    return arguments


def _pip_files() -> list[Path]:
    """The user's own settings of pip."""
    files = [Path.home() / ".config" / "pip" / "pip.conf", Path.home() / ".pip" / "pip.conf"]
    if named := os.environ.get("PIP_CONFIG_FILE"):
        files.insert(0, Path(named))
    return [file for file in files if file.is_file()]


def _pip_settings() -> dict[str, str]:
    """Where pip finds the user's settings, and the package index that it is told to use, unless uv is told another."""
    files, settings = _pip_files(), {}
    if files:
        settings["PIP_CONFIG_FILE"] = str(files[0])
    index = os.environ.get("PIP_INDEX_URL")
    if index and not any(name in os.environ for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL")):
        settings["UV_DEFAULT_INDEX"] = index
    return settings


def _shown(python: HostPython) -> list[str]:
    """What else of the host is there: the Python, and the files and folders that the settings name."""
    prefixes = {python.prefix, python.prefix.resolve()}
    shown = [str(path) for path in sorted(prefixes) if not path.is_relative_to("/usr")]
    files = [*_pip_files(), Path("/etc/pip.conf"), Path("/etc/xdg/pip/pip.conf")]
    texts = [file.read_text(encoding="utf-8", errors="replace") for file in files if file.is_file()]
    texts += [value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_CERT_"))]
    named = {path for text in texts for path in _LOCAL_PATH.findall(text)}
    hidden = ("/etc", "/usr", "/proc", "/dev", "/tmp")
    there = [Path(path) for path in sorted(named) if not path.startswith(hidden) and Path(path).exists()]
    # The files of an index on disk lie beside its pages.
    keep = [str(path.parent if path.name == "simple" else path) for path in there if len(path.parts) > 2]
    return [*shown, *keep, *(str(file) for file in _pip_files())]
