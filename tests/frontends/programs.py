"""Exported programs for the tests: made, taken apart, tampered with and put together again."""

from __future__ import annotations

import io
import json
import warnings
import zipfile
from pathlib import Path

import torch
from torch import nn

MODEL = "models/model.json"
WEIGHTS = "data/weights/model_weights_config.json"
CONSTANTS = "data/constants/model_constants_config.json"


class Network(nn.Module):
    """Enough to meet constants, buffers, sub-modules, symbolic sizes and strings among the arguments."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(64, 3)
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x):
        y = self.drop(torch.nn.functional.gelu(self.norm(self.conv(x)), approximate="tanh"))
        with torch.no_grad():
            offset = torch.tensor(0.5)
        return {"logits": self.head(y.reshape(x.shape[0], -1) * self.scale + offset), "mean": (y.mean((1, 2, 3)),)}


def export(model, *args, dynamic=True):
    shapes = tuple({0: torch.export.Dim("batch")} for _ in args) if dynamic else None
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, about recurrent layers
        torch.export.save(torch.export.export(model, args, dynamic_shapes=shapes), buffer)
    return buffer.getvalue()


def entries_of(content):
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


def archive_of(entries, root="net"):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in entries.items():
            archive.writestr(f"{root}/{name}", content)
    return buffer.getvalue()


class Tamperer:
    """Writes an exported program with one entry changed by a function of its JSON, and with entries put in."""

    def __init__(self, content, path: Path):
        self.content, self.path = content, path

    def __call__(self, entry=None, change=lambda document: None, put=None):
        entries = entries_of(self.content)
        if entry is not None:
            document = json.loads(entries[entry])
            change(document)
            entries[entry] = json.dumps(document).encode()
        self.path.write_bytes(archive_of(entries | (put or {})))
        return self.path


def nodes(document):
    return document["graph_module"]["graph"]["nodes"]
