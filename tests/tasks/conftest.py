"""A package registry on this machine that serves one small package made on the spot, beside the real registry."""

import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

PAGE = "index.simple"
PACKAGE_FILES = {
    "PKG-INFO": "Metadata-Version: 2.1\nName: turnwise-demo\nVersion: 1.0\n",
    "pyproject.toml": (
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
        '[project]\nname = "turnwise-demo"\nversion = "1.0"\n'
        '[tool.setuptools.packages.find]\nwhere = ["src"]\n'
        '[tool.pytest.ini_options]\naddopts = "--no-such-option"\n'
    ),
    ".gitignore": "*.txt\n",
    "notes.txt": "kept\r\n",
    "src/turnwise_demo/__init__.py": "from turnwise_demo.numbers import clamp, mean\n",
    "src/turnwise_demo/numbers.py": (
        "def clamp(value, low, high):\n"
        '    """Value, but not below low nor above high."""\n'
        "    if value < low:  # too small\n"
        "        return low\n"
        "    return min(value, high)\n"
        "\n"
        "\n"
        "def mean(values):\n"
        "    if not values:\n"
        '        raise ValueError("no values")\n'
        "    return sum(values) / len(values)\n"
        "\n"
        "\n"
        "def never_called(a):\n"
        "    return a + 1\n"
    ),
    "tests/test_numbers.py": (
        "import pytest\n"
        "from turnwise_demo import clamp, mean\n"
        "\n"
        "\n"
        "def test_clamp_low():\n"
        "    assert clamp(-5, 0, 10) == 0\n"
        "\n"
        "\n"
        "def test_clamp_high():\n"
        "    assert clamp(50, 0, 10) == 10\n"
        "\n"
        "\n"
        "def test_mean():\n"
        "    assert mean([1, 2, 6]) == 3\n"
        "\n"
        "\n"
        "def test_mean_of_nothing():\n"
        "    with pytest.raises(ValueError):\n"
        "        mean([])\n"
        "\n"
        "\n"
        "def test_broken_before():\n"
        "    assert clamp(1, 2, 3) == 9\n"
    ),
}


def sdist(files: dict[str, str], top: str = "turnwise_demo-1.0") -> bytes:
    """A .tar.gz of these files below a top directory."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(f"{top}/{name}")
            entry.size = len(text.encode())
            entry.mode = 0o600
            tar.addfile(entry, io.BytesIO(text.encode()))
    return buffer.getvalue()


@dataclass(frozen=True)
class Registry:
    """A package index in `folder`."""

    folder: Path
    url: str

    def add(self, project: str, filename: str, content: bytes, sha256: str | None = None, **told: object) -> str:
        """Serve one more file of a project, and what else the index tells of it; its SHA-256."""
        digest = hashlib.sha256(content).hexdigest()
        place = self.folder / "simple" / project
        place.mkdir(parents=True, exist_ok=True)
        (place / filename).write_bytes(content)
        page = place / PAGE
        files = json.loads(page.read_text())["files"] if page.exists() else []
        files.append({"filename": filename, "url": filename, "hashes": {"sha256": sha256 or digest}, **told})
        page.write_text(json.dumps({"meta": {"api-version": "1.0"}, "name": project, "files": files}))
        return digest


class _Index(SimpleHTTPRequestHandler):
    """Gives JSON for a project's folder (PEP 691), or the page for browsers where it holds one."""

    def do_GET(self) -> None:
        if self.path.endswith("/") and not Path(self.translate_path(self.path), "index.html").exists():
            self.path += PAGE
        super().do_GET()

    def guess_type(self, path: str) -> str:
        return "application/vnd.pypi.simple.v1+json" if path.endswith(PAGE) else super().guess_type(path)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on the terminal."""


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    folder = tmp_path_factory.mktemp("registry")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Index, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Registry(folder, f"http://127.0.0.1:{server.server_port}/simple")
    server.shutdown()


@pytest.fixture
def registry(served: Registry, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """The local registry as the first one of pip; the public one stays behind it for pytest and setuptools."""
    monkeypatch.setenv("PIP_INDEX_URL", served.url)
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "https://pypi.org/simple")
    return served


@pytest.fixture
def make_sdist() -> Callable[[dict[str, str]], bytes]:
    return sdist


@pytest.fixture
def package_files() -> dict[str, str]:
    return dict(PACKAGE_FILES)
