"""Draws docs/concepts/pruning.svg: what pruning does to the demo's network, without labels and without training.

Run it from the repository's root: ``python docs/concepts/pruning_picture.py``. It trains the demo's network first.
Left: the same share of channels goes from every layer; right: the same share of weights. Accuracy is on the demo's 800
test digits. The readers' refit and the least squares look at 300 digits without labels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch

from featherweight.demo import digits, train
from featherweight.files import write_atomically
from featherweight.methods.pruning.ranking import rank_groups
from featherweight.network import Network, capture, fold_batch_norm
from featherweight.network.channels import Coupling, analyse
from featherweight.network.modules import bias_of, weight_of
from featherweight.network.surgery import silence
from featherweight.numerics.elimination import compensated
from featherweight.numerics.sparsity import Share, magnitude_mask, sparsify, wanda_mask
from featherweight.observation import Evidence, observe
from featherweight.observation.readers import readers_of
from featherweight.observation.rows import weight_rows
from featherweight.tasks import CLASSIFICATION, Batch, Split

CHANNELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
ZEROS = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.96)
COLOURS = ("#0b6e4f", "#3a86c8", "#c08a2b", "#7a5ea8", "#b5483a", "#6b7280")

Weights = dict[str, torch.Tensor]
Rule = Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor]
Line = list[tuple[float, float]]


class Subject:
    """The demo's network, folded, with what was seen of it and the digits to test on."""

    def __init__(self, network: Network, calibration: Split, test: Batch) -> None:
        self.network, self.calibration, self.test = network, calibration, test
        self.coupling: Coupling = analyse(network.graph)
        self.evidence: Evidence = observe(network, calibration)

    def accuracy(self, removals: Mapping[str, tuple[int, ...]], weights: Weights) -> float:
        """With these channels silenced and these weights in place."""
        with torch.no_grad():
            outputs = silence(self.network.graph, self.coupling, removals, weights)(*self.test.inputs)
        answers = (outputs[0] if isinstance(outputs, tuple) else outputs).numpy()
        return float(CLASSIFICATION.scores(answers, np.asarray(self.test.labels)).mean())

    def replaced(self, name: str, rows: torch.Tensor) -> Weights:
        """A layer's new weight, and the bias that takes the mean of the error."""
        layer, module = self.network.layer(name), self.network.module.get_submodule(name)
        old, bias = weight_rows(layer, weight_of(module)).double(), bias_of(module)
        rows = rows.reshape(old.shape)
        shift = ((old - rows) @ self.evidence.layers[name].mean.unsqueeze(-1)).flatten()
        assert bias is not None, "a folded layer has one"
        weight = rows.reshape(layer.weight_shape)
        return {layer.weight: weight.float(), f"{name}.bias": (bias.double() + shift).float()}


def channels(subject: Subject, criterion: str, repaired: bool) -> Line:
    """Accuracy against the share of channels that go from every unit."""
    line = []
    ranked = {
        unit.name: rank_groups(
            subject.network, unit, subject.evidence, criterion, split=subject.calibration, task=CLASSIFICATION
        )
        for unit in subject.coupling.units
    }
    for share in CHANNELS:
        removals, weights = {}, {}
        for unit in subject.coupling.units:
            gone = ranked[unit.name].order[: int(unit.groups * share)].tolist()
            removals[unit.name] = tuple(gone)
            for name, reader in readers_of(subject.network, unit, subject.evidence).items() if repaired else ():
                fitted = compensated(reader.weight, reader.covariance, reader.columns[gone].flatten())
                weights |= subject.replaced(name, fitted)
        line.append((share, subject.accuracy(removals, weights)))
    return line


def zeros(subject: Subject, rule: Rule) -> Line:
    """Accuracy against the share of weights that go from every layer."""
    line = []
    for share in ZEROS:
        weights: Weights = {}
        for name, seen in subject.evidence.layers.items():
            rows = weight_rows(subject.network.layer(name), weight_of(subject.network.module.get_submodule(name)))
            weights |= subject.replaced(name, rule(rows.double(), seen.covariance, share))
        line.append((share, subject.accuracy({}, weights)))
    return line


def by_the_surgeon(rows: torch.Tensor, covariance: torch.Tensor, share: float) -> torch.Tensor:
    """One by one in narrow layers, in blocks in wide ones, as the product does it."""
    narrow = rows.numel() * rows.shape[-1] ** 2 <= 5e8
    return sparsify(rows, covariance, Share(share), "obs" if narrow else "sparsegpt").weight


def below_a_threshold(rows: torch.Tensor, _: torch.Tensor, share: float) -> torch.Tensor:
    """The misprint: w where |w| is meant. The threshold is the right one for |w|."""
    return rows * (rows > rows.abs().quantile(share))


def over_their_sum(rows: torch.Tensor, _: torch.Tensor, share: float) -> torch.Tensor:
    """The misprint: what stays is divided by its sum."""
    kept = rows * magnitude_mask(rows, Share(share))
    return kept / kept.sum()


def drawn(panels: Mapping[str, Mapping[str, Line]]) -> str:
    """The panels side by side as SVG, every line with its name."""
    parts = []
    for number, (title, lines) in enumerate(panels.items()):
        left, (low, high) = 44 + 400 * number, (min(lines[next(iter(lines))])[0], max(lines[next(iter(lines))])[0])
        parts.append(f'<text x="{left}" y="18" font-weight="bold">{title}</text>')
        for step in range(6):
            y = 230 - 40 * step
            parts.append(f'<line x1="{left}" x2="{left + 340}" y1="{y}" y2="{y}" stroke="#ddd"/>')
            parts.append(f'<text x="{left - 6}" y="{y + 4}" text-anchor="end">{20 * step}%</text>')
        for at in (low, (low + high) / 2, high):
            x = left + 340 * (at - low) / (high - low)
            parts.append(f'<text x="{x:.0f}" y="246" text-anchor="middle">{at:.0%}</text>')
        for rank, (name, line) in enumerate(lines.items()):
            points = [f"{left + 340 * (x - low) / (high - low):.1f},{230 - 200 * y:.1f}" for x, y in line]
            parts.append(
                f'<polyline points="{" ".join(points)}" fill="none" stroke="{COLOURS[rank]}" stroke-width="2"/>'
            )
            parts.append(f'<rect x="{left}" y="{262 + 18 * rank}" width="16" height="4" fill="{COLOURS[rank]}"/>')
            parts.append(f'<text x="{left + 24}" y="{268 + 18 * rank}">{name}</text>')
    size = 270 + 18 * max(map(len, panels.values()))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 800 {size}" font-family="sans-serif" font-size="11">'
        f'<rect width="100%" height="100%" fill="white"/>{"".join(parts)}</svg>\n'
    )


def main() -> None:
    """Train, prune in every way, draw."""
    torch.set_num_threads(1)
    data = digits()
    test = data.test.take(range(len(data.test)))
    calibration = Split.of(data.train.take(range(300)).inputs[0])  # without labels
    network = fold_batch_norm(capture(train(data), test.inputs[0][:2]))
    subject = Subject(network, calibration, test)
    left = {
        "obs, readers refit": channels(subject, "obs", True),
        "magnitude, readers refit": channels(subject, "magnitude", True),
        "obs": channels(subject, "obs", False),
        "taylor": channels(subject, "taylor", False),
        "magnitude": channels(subject, "magnitude", False),
    }
    right = {
        "surgeon's choice, least squares": zeros(subject, by_the_surgeon),
        "Wanda's choice, least squares": zeros(
            subject, lambda w, c, share: sparsify(w, c, Share(share), "wanda").weight
        ),
        "Wanda's choice": zeros(subject, lambda w, c, share: w * wanda_mask(w, c, Share(share))),
        "magnitude": zeros(subject, lambda w, c, share: w * magnitude_mask(w, Share(share))),
        "misprint: divided by their sum": zeros(subject, over_their_sum),
        "misprint: w below the threshold": zeros(subject, below_a_threshold),
    }
    panels = {"Share of channels that go": left, "Share of weights that go": right}
    write_atomically(Path(__file__).with_name("pruning.svg"), drawn(panels))


if __name__ == "__main__":
    main()
