"""One past for all tests of the room; they only read it."""

import pytest

from .past import Past, make_past


@pytest.fixture(scope="session")
def past(tmp_path_factory: pytest.TempPathFactory) -> Past:
    return make_past(tmp_path_factory.mktemp("past") / "acme__calc")
