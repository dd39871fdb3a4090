"""Draws the pictures of sharing, low rank, binarization and grouping: one layer of the demo's network, and its error.

Run it from the repository's root: ``python docs/concepts/families_pictures.py``. It trains the demo's network first.
Every error is that of the layer's output on 300 digits without labels, as a share of the output's variance.
"""

from __future__ import annotations

from pathlib import Path

import torch

from featherweight.demo import digits, train
from featherweight.files import write_atomically
from featherweight.network import capture, fold_batch_norm
from featherweight.network.modules import weight_of
from featherweight.numerics.affine import fit_symmetric
from featherweight.numerics.binary import fit_binary, fit_ternary, gram_scale, on_levels
from featherweight.numerics.blockdiagonal import fit_block_diagonal
from featherweight.numerics.codebook import fit_codebook, nearest
from featherweight.numerics.factorisation import (
    plain_factors,
    plain_tucker,
    spatial_factors,
    tucker_factors,
    whitened_factors,
    whitened_spectrum,
)
from featherweight.numerics.gptq import RowGrids, gptq
from featherweight.numerics.gram import output_error, refit
from featherweight.numerics.ratedistortion import round_for_rate
from featherweight.numerics.rounding import round_weight
from featherweight.numerics.sequential import settled
from featherweight.observation import observe

Lines = dict[str, list[tuple[float, float]]]
COLOURS = ("#0b6e4f", "#3a86c8", "#c08a2b", "#b5483a")
FOLDER = Path(__file__).parent
LAYER = "features.7"  # 64 to 64 channels, 3×3, for 4 by 4 positions


class Observed:
    """One layer's kernel (n, c, kh, kw), and the covariance of its rows."""

    def __init__(self) -> None:
        data = digits()
        x = data.train.take(range(300)).inputs[0]
        network = fold_batch_norm(capture(train(data), x[:2]))
        self.kernel = weight_of(network.module.get_submodule(LAYER)).double()
        self.covariance = observe(network, data.train.first(300)).layers[LAYER].covariance[0]
        self.total = output_error(self.kernel.flatten(1)[None], self.covariance[None])

    def error(self, kernel: torch.Tensor) -> float:
        """Of a kernel in the place of this one, as a share of the output's variance."""
        difference = (kernel.reshape(self.kernel.shape) - self.kernel).flatten(1)
        return output_error(difference[None], self.covariance[None]) / self.total


def sharing(layer: Observed) -> Lines:
    """Error by number of values."""
    weight = layer.kernel.flatten(1)
    importance = (layer.covariance.diagonal() + 1e-9).expand_as(weight)
    lines: Lines = {"even steps": [], "k-means": [], "weighted by inputs": [], "and compensated": []}
    for count in (2, 4, 8, 16, 32, 64):
        even = torch.linspace(float(weight.min()), float(weight.max()), count).double()
        blind, aware = fit_codebook(weight, count), fit_codebook(weight, count, importance)
        made = settled(weight[None], layer.covariance[None], lambda some, _, book=aware: nearest(some, book))
        found = [*(nearest(weight, book) for book in (even, blind, aware)), made[0]]
        for name, one in zip(lines, found, strict=True):
            lines[name].append((count, layer.error(one)))
    return lines


def lowrank(layer: Observed) -> Lines:
    """Error by multiplications that are left."""
    weight, full = layer.kernel.flatten(1), layer.kernel.numel()
    spectrum = whitened_spectrum(weight, layer.covariance)
    lines: Lines = {"pair, plain SVD": [], "pair, whitened": [], "k×1 and 1×k": [], "1×1, k×k, 1×1": []}
    for rank in (4, 8, 16, 24, 32, 40, 48):
        (a, b), (c, d) = plain_factors(weight, rank), whitened_factors(weight, spectrum, rank)
        share = rank * (64 + 576) / full
        lines["pair, plain SVD"].append((share, layer.error(a @ b)))
        lines["pair, whitened"].append((share, layer.error(c @ d)))
        spatial = spatial_factors(layer.kernel, layer.covariance, 2 * rank).kernel()
        lines["k×1 and 1×k"].append((2 * rank * 6 * 64 / full, layer.error(spatial)))
        tucker = tucker_factors(layer.kernel, layer.covariance, rank, rank).kernel()
        lines["1×1, k×k, 1×1"].append(((2 * 64 * rank + 9 * rank * rank) / full, layer.error(tucker)))
    print(f"Tucker-2 at 16: plain {layer.error(plain_tucker(layer.kernel, 16, 16).kernel()):.3f}")  # noqa: T201
    return lines


def entropy(layer: Observed) -> Lines:
    """Error by bits a weight: short grids for every output under GPTQ, and coarse ones for the layer."""
    weight, covariance = layer.kernel.flatten(1)[None], layer.covariance[None]
    lines: Lines = {"short grids, bits as stored": [], "short grids, bits by entropy": [], "one coarse step": []}
    spread = float(weight.square().mean().sqrt())
    for bits in (2, 3, 4, 5, 6):
        start = RowGrids.of(fit_symmetric(weight[0], bits, layer.covariance.diagonal().expand_as(weight[0])), 1)
        made, grids = round_weight(weight, covariance, start) if bits < 6 else (gptq(weight, covariance, start), start)
        error = layer.error(made)
        lines["short grids, bits as stored"].append((bits, error))
        lines["short grids, bits by entropy"].append((_bits(made / grids.scale.unsqueeze(2)), error))
    for step in (0.12, 0.18, 0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0):
        levels = round_for_rate(weight, covariance, step * spread)
        lines["one coarse step"].append((_bits(levels), layer.error(levels * step * spread)))
    return lines


def _bits(levels: torch.Tensor) -> float:
    """Entropy of levels, in bits."""
    shares = levels.round().flatten().unique(return_counts=True)[1].double() / levels.numel()
    return round(float(-(shares * shares.log2()).sum()), 2)


def binarization(layer: Observed) -> Lines:
    """Error by how much of the data the fit looks at: nothing, variances, the covariance, and scales refit."""
    weight = layer.kernel.flatten(1)[None]
    covariance = layer.covariance[None]
    importance = layer.covariance.diagonal().expand_as(weight)
    lines: Lines = {"binary": [], "ternary": []}
    for name, fit, zero in (("binary", fit_binary, False), ("ternary", fit_ternary, True)):
        blind, aware = fit(weight), fit(weight, importance)
        made = settled(weight, covariance, lambda some, _, scale=aware, zero=zero: on_levels(some, scale, zero=zero))
        last = made.sign() * gram_scale(weight, made.sign(), covariance, aware).unsqueeze(2)
        found = (on_levels(weight, blind, zero=zero), on_levels(weight, aware, zero=zero), made, last)
        lines[name] = [(step, layer.error(one)) for step, one in enumerate(found, 1)]
    return lines


def grouping(layer: Observed) -> Lines:
    """Error by number of sets."""
    weight = layer.kernel.flatten(1)
    lines: Lines = {"cut in place": [], "cut and refit": [], "sorted and refit": []}
    for groups in (2, 4, 8, 16):
        mask = torch.block_diag(*[torch.ones(64 // groups, 576 // groups)] * groups).double()
        lines["cut in place"].append((groups, layer.error(weight * mask)))
        blocks = []
        for rows, columns in zip(torch.arange(64).chunk(groups), torch.arange(576).chunk(groups), strict=True):
            own = layer.covariance[columns][:, columns]
            cross = weight[rows] @ layer.covariance[:, columns]
            blocks.append(refit(weight[rows][:, columns][None], own[None], cross[None], 1e-9)[0])
        lines["cut and refit"].append((groups, layer.error(torch.block_diag(*blocks))))
        fit = fit_block_diagonal(weight, layer.covariance, groups, kernel=9)
        lines["sorted and refit"].append((groups, fit.error / layer.total))
    return lines


def drawing(title: str, across: str, lines: Lines, *, doubling: bool) -> str:
    """A line chart as SVG; errors on a logarithmic scale, and the other axis too where it doubles."""
    xs = sorted({x for line in lines.values() for x, _ in line})
    ys = [max(y, 1e-6) for line in lines.values() for _, y in line]
    low, high = torch.tensor(ys).log10().min().floor().item(), torch.tensor(ys).log10().max().ceil().item()
    places = torch.tensor(xs).log2().tolist() if doubling else xs

    def at(x: float, y: float) -> tuple[float, float]:
        place = places[xs.index(x)]
        return (
            70 + 400 * (place - places[0]) / (places[-1] - places[0]),
            270 - 220 * (torch.tensor(max(y, 1e-6)).log10().item() - low) / (high - low),
        )

    shapes = [f'<text x="70" y="24" font-weight="bold">{title}</text>', f'<text x="270" y="314">{across}</text>']
    for power in range(int(low), int(high) + 1):
        y = at(xs[0], 10.0**power)[1]
        shapes.append(
            f'<path d="M70 {y:.1f}H470" stroke="#d6d6d6"/><text x="8" y="{y + 4:.1f}">{100 * 10.0**power:g} %</text>'
        )
    for x in xs if doubling or len(xs) < 8 else (xs[0], xs[len(xs) // 2], xs[-1]):
        shapes.append(f'<text x="{at(x, 1)[0] - 6:.1f}" y="290">{x:.3g}</text>')
    for index, (name, line) in enumerate(lines.items()):
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*point) for point in sorted(line)))
        colour, y = COLOURS[index], 60 + 22 * index
        shapes.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        shapes += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in (at(*p) for p in line)]
        shapes.append(f'<text x="490" y="{y}" fill="{colour}">{name}</text>')
    head = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 660 326" font-family="sans-serif" font-size="13">'
    return "\n".join([head, '<rect width="660" height="326" fill="#fff"/>', *shapes, "</svg>\n"])


def main() -> None:
    """Train, measure, draw."""
    layer = Observed()
    for name, lines, across in (
        ("sharing", sharing(layer), "values"),
        ("entropy", entropy(layer), "bits a weight"),
        ("low-rank", lowrank(layer), "share of multiplications left"),
        ("binarization", binarization(layer), "1 blind, 2 variances, 3 sequential, 4 scales refit"),
        ("grouping", grouping(layer), "sets of channels"),
    ):
        title = f"{name}: output error of one layer"
        picture = drawing(title, across, lines, doubling=name in ("sharing", "grouping"))
        write_atomically(FOLDER / f"{name}.svg", picture)
        for line, points in lines.items():
            print(name, line, " ".join(f"{x:.3g}:{y:.4f}" for x, y in points))  # noqa: T201


if __name__ == "__main__":
    main()
