from __future__ import annotations

import pytest
import torch

from tests.frontends.programs import Network, Tamperer, export


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return Network().eval()


@pytest.fixture(scope="module")
def exported(network):
    return export(network, torch.rand(2, 1, 4, 4))


@pytest.fixture
def tampered(exported, tmp_path):
    return Tamperer(exported, tmp_path / "net.pt2")
