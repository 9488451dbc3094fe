"""Which sandbox backend a recipe gets."""

from pathlib import Path

import pytest

from turnwise.pipeline.recipe import SandboxTable
from turnwise.pipeline.workshop import open_backend
from turnwise.types import SandboxSpec


@pytest.mark.parametrize("name", ["local", "docker", "kubernetes"])
async def test_a_recipes_backend_is_made_without_connecting_to_anything(name: str) -> None:
    backend = open_backend(SandboxTable(backend=name))
    assert (backend.name, backend.isolates) == (name, True)
    backend.create(SandboxSpec(Path("/"), image="some:image"))
    await backend.close()
