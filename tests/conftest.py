"""What holds for every test: one thread, fixed seeds, no deadline on a busy machine."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)  # the workers share the cores

settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    """Torch starts every test from the same seed (pytest-randomly does it for random and numpy), gradients on."""
    torch.manual_seed(0)
    yield
    left = torch.is_grad_enabled()
    torch.set_grad_enabled(True)
    assert left, "this test left gradients switched off"
