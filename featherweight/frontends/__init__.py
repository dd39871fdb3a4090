"""Ways in for models: a user's function, an exported program; weights without unpickling."""

from __future__ import annotations

from featherweight.frontends.source import resolve
from featherweight.frontends.torch_model import load_model

__all__ = ["load_model", "resolve"]
