"""What a bench makes of a package index that does not answer; the index is a small server of the test's own."""

import io
import re
import sys
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from turnwise.errors import InputError, SandboxError
from turnwise.tasks.checkout.bench import ENV, Bench, uv_environment
from turnwise.tasks.checkout.install import Installer
from turnwise.tasks.checkout.pythons import find_python


class Index(ThreadingHTTPServer):
    """A package index that has pip, and answers 503 to its first `down` requests."""

    down = 0

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Index

    def do_GET(self) -> None:
        if self.server.down > 0:
            self.server.down -= 1
            self._answer(503, b"later")
        elif self.path == "/simple/pip/":
            self._answer(200, b'<a href="/pip-99.0-py3-none-any.whl">pip-99.0-py3-none-any.whl</a>')
        elif self.path.endswith("pip-99.0-py3-none-any.whl"):
            self._answer(200, _wheel())
        else:
            self._answer(503 if "broken" in self.path else 404, b"")

    do_HEAD = do_GET

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "text/html" if self.path.endswith("/") else "application/octet-stream")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


def _wheel() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as wheel:
        folder = "pip-99.0.dist-info"
        wheel.writestr(f"{folder}/METADATA", "Metadata-Version: 2.1\nName: pip\nVersion: 99.0\n")
        wheel.writestr(
            f"{folder}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{folder}/RECORD", "")
    return buffer.getvalue()


@pytest.fixture
def index() -> Iterator[Index]:
    with Index() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def bench(tmp_path: Path, index: Index) -> Bench:
    """A bench with a bare environment that takes packages from `index`, and asks each time only once."""
    folders = [tmp_path / name for name in ("root", "cache/env", "notes", "cache")]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    python = find_python(f"{sys.version_info[0]}.{sys.version_info[1]}")
    assert python is not None
    variables = {"UV_HTTP_RETRIES": "0", "UV_DEFAULT_INDEX": f"{index.url}/simple"}
    bench = Bench(*folders, python, threading.Event(), variables, patience_s=(0.1,))
    made = bench.uv("venv", "-q", "--allow-existing", "--python", str(python.executable), ENV, timeout_s=60)
    assert made.exit_code == 0, made.output
    return bench


SYSTEM_STORE = re.compile(r"\b(system_certs|native_tls): true")  # the latter up to uv 0.10


def test_uv_trusts_the_authorities_of_the_system(bench: Bench) -> None:
    done = bench.uv("pip", "list", "--show-settings", timeout_s=60)
    assert SYSTEM_STORE.search(done.output), done.output
    assert "deprecated" not in done.output


@pytest.mark.parametrize("name", ["UV_SYSTEM_CERTS", "UV_NATIVE_TLS"])
def test_a_users_own_word_on_the_systems_store_counts(bench: Bench, name: str) -> None:
    variables = uv_environment({name: "false"})
    done = bench.uv("pip", "list", "--show-settings", timeout_s=60, **variables)
    assert not SYSTEM_STORE.search(done.output)


def test_wherever_uv_is_run_it_is_given_its_environment() -> None:
    top = Path(__file__).parents[3]
    files = [path for folder in ("src", "benchmarks", "scripts", "examples") for path in (top / folder).rglob("*.py")]
    runs = {path.name for path in files if re.search(r"(?<!def )uv_executable\(", path.read_text(encoding="utf-8"))}
    told = {path.name for path in files if re.search(r"(?<!def )uv_environment\(", path.read_text(encoding="utf-8"))}
    assert runs == told == {"bench.py", "environments.py"}


def _install(bench: Bench, *arguments: str) -> int:
    return bench.uv("pip", "install", "--python", f"{ENV}/bin/python", *arguments, timeout_s=60).exit_code


def test_an_index_that_comes_back_is_waited_for(bench: Bench, index: Index) -> None:
    index.down = 2
    assert _install(bench, "pip") == 0


def test_packages_are_linked_from_the_cache_under_the_paths_of_sandboxes(bench: Bench) -> None:
    assert _install(bench, "pip") == 0
    (wheel,) = bench.env.glob("lib/python*/site-packages/pip-99.0.dist-info/WHEEL")
    assert wheel.stat().st_nlink > 1
    told = bench.shell("python -c 'import sys; print(sys.prefix, sys.executable)'", timeout_s=60).output
    assert told == f"{ENV} {ENV}/bin/python\n"


def test_what_a_row_breaks_is_not_laid_to_the_confinement(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    assert bench.shell("echo 'bwrap: not by me'; exit 3", 20).exit_code == 3
    assert bench.run(["/no/such/program"], 20).output.startswith("bwrap: execvp /no/such/program")
    assert replace(bench, variables={"A=B": ""}).shell("true", 20).exit_code
    broken = bench.notes / "bwrap"
    broken.write_text("#!/bin/sh\necho 'bwrap: no user namespaces here'; exit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", str(bench.notes), prepend=":")
    with pytest.raises(InputError, match="does not start: bwrap: no user namespaces here"):
        bench.shell("true", 20)


def test_a_package_that_breaks_as_it_is_imported_is_taken_out_and_told(bench: Bench) -> None:
    (site_packages,) = bench.env.glob("lib/python*/site-packages")
    (site_packages / "broken.py").write_text("raise RuntimeError('error: no library')\n")
    (site_packages / "sound.py").write_text("")
    installer = Installer(bench, None)
    for package in ("broken", "sound", "not_there"):
        installer.take_out_unless_it_loads(package)
    (told,) = installer.left_out
    assert told.startswith("broken: does not load here (")
    assert told.endswith("RuntimeError: error: no library)")


def test_an_index_that_stays_away_is_the_infrastructures_failure(bench: Bench, index: Index) -> None:
    index.down = 1000
    with pytest.raises(SandboxError, match=r"the package index does not answer: .*503"):
        _install(bench, "pip")


def test_what_the_index_does_not_have_is_the_rows_failure(bench: Bench, index: Index) -> None:
    assert _install(bench, "no-such-package") != 0
    assert _install(bench, f"broken @ {index.url}/broken-1.0-py3-none-any.whl") != 0
