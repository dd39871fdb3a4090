"""What a runtime executes for a layer: kernels, known by what their time depends on and by nothing else.

Many options run on the same kernels: three bits or eight lie on the same integer kernel, zeros and shared values are
multiplied like any others, and half weights are widened once at loading. So a table of a thousand options knows a few
hundred kernels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from featherweight.contracts import Capability, Option, Step, Steps, Table
from featherweight.methods.apply import neutral_subject
from featherweight.methods.seam import Method, apply_steps, leaves
from featherweight.network.capture import Layer, Network
from featherweight.network.composition import output_sizes
from featherweight.network.encodings import AffineEncoding, carrier, encode, encoding_of
from featherweight.network.grouped import PermutedConvolution
from featherweight.network.modules import weight_of
from featherweight.numerics.affine import AffineGrid

_CONVOLUTIONS: Mapping[int, type[nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
DEPTHWISE = 0
_SAME_KERNELS = frozenset({"sparsity", "sharing", "binarization"})  # other values, the same multiplications


@dataclass(frozen=True, slots=True)
class Family:
    """Kernels that differ in their channels alone.

    Attributes:
        arithmetic: "float32"; "int8" (activations on static grids); "dynamic" (on ranges found per inference).
        sizes: of the input's spatial axes; of a linear layer how many positions one sample has.
        kernel, stride, dilation: of a convolution; empty for a linear layer.
        padding: the same, or "same" or "valid".
        groups: channel groups; ``DEPTHWISE`` where every channel is one.
        gathered: whether channels are gathered before and put back behind.
    """

    arithmetic: str
    sizes: tuple[int, ...]
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    padding: tuple[int, ...] | str = ()
    groups: int = 1
    gathered: bool = False

    def __str__(self) -> str:
        parts = [self.arithmetic, f"on {_times(self.sizes)}"]
        if self.kernel:
            padding = self.padding if isinstance(self.padding, str) else _times(self.padding)
            parts += [f"kernel {_times(self.kernel)}", f"stride {_times(self.stride)}"]
            parts += [f"dilation {_times(self.dilation)}", f"padding {padding}", f"groups {self.groups}"]
        return " ".join(parts + ["gathered"] * self.gathered)


def _times(sizes: Sequence[int]) -> str:
    return "x".join(map(str, sizes)) or "1"


@dataclass(frozen=True, slots=True)
class Kernel:
    """One kernel.

    Attributes:
        family: what it shares with others.
        rows: output channels.
        columns: input channels of one group.
    """

    family: Family
    rows: int
    columns: int

    def __str__(self) -> str:
        return f"{self.family} rows {self.rows} columns {self.columns}"


Kernels = tuple[Kernel, ...]


def kernels_of(layer: Layer, module: nn.Module) -> Kernels:
    """The kernels that a layer's replacement runs on, in execution order."""
    sizes = layer.input_shape[1:] if layer.geometry else (layer.positions,)
    found = []
    for part in leaves(module):
        found.append(_kernel(part, sizes))
        sizes = output_sizes(sizes, part) if layer.geometry else sizes
    return tuple(found)


def _kernel(part: nn.Module, sizes: tuple[int, ...]) -> Kernel:
    own = carrier(part)
    rows, columns, *kernel = weight_of(own).shape
    if not kernel:
        return Kernel(Family(_arithmetic(part), sizes), rows, columns)
    stride, dilation, padding = (_setting(own, name, len(sizes)) for name in ("stride", "dilation", "padding"))
    if isinstance(stride, str) or isinstance(dilation, str):
        raise TypeError(f"{type(own).__name__} with stride {stride!r} and dilation {dilation!r}")
    groups = int(getattr(own, "groups", 1))
    groups = DEPTHWISE if groups == rows > 1 else groups
    family = Family(_arithmetic(part), sizes, tuple(kernel), stride, dilation, padding, groups, own is not part)
    return Kernel(family, rows, columns)


def _setting(part: nn.Module, name: str, count: int) -> tuple[int, ...] | str:
    value = getattr(part, name)
    if isinstance(value, str):
        return value
    return (value,) * count if isinstance(value, int) else tuple(value)


def _arithmetic(part: nn.Module) -> str:
    encoding = encoding_of(part)
    if isinstance(encoding, AffineEncoding) and encoding.dynamic:
        return "dynamic"
    return "int8" if isinstance(encoding, AffineEncoding) and encoding.integer else "float32"


def kernels_in(
    table: Table, network: Network, capability: Capability, methods: Sequence[Method]
) -> dict[str, tuple[Kernels, ...]]:
    """For every layer of the table the kernels of each of its options.

    Layers of one shape share the work, and steps that change values alone are left out: what a step makes of a layer's
    shape is all that counts here.
    """
    known: dict[tuple[object, ...], Kernels] = {}
    found: dict[str, tuple[Kernels, ...]] = {}
    for name, options in table.options.items():
        layer, module = network.layer(name), network.module.get_submodule(name)
        row = []
        for option in options:
            steps = shaping(option)
            key = (layer.kind, layer.weight_shape, layer.geometry, layer.input_shape, str(steps))
            if key not in known:
                known[key] = kernels_of(layer, apply_steps(neutral_subject(layer, module, capability), steps, methods))
            row.append(known[key])
        found[name] = tuple(row)
    return found


def shaping(option: Option) -> Steps:
    """The steps of an option that decide what runs, in their cheapest form: where values are rounded is no matter."""
    return tuple(_hasty(step) for step in option.steps if step.method not in _SAME_KERNELS)


def _hasty(step: Step) -> Step:
    if step.settings.get("weights") != "int8":
        return step
    settings = {key: value for key, value in step.settings.items() if key not in ("bits", "ranges")}
    return Step(step.method, settings | {"rounding": "nearest"})


def built(kernel: Kernel) -> nn.Module:
    """A module with arbitrary weights that runs on this kernel, encodings in place."""
    family = kernel.family
    if not family.kernel:
        made: nn.Module = nn.Linear(kernel.columns, kernel.rows)
    else:
        settings = (family.stride, family.padding, family.dilation, _groups(kernel))
        inputs = kernel.columns * _groups(kernel)
        made = _CONVOLUTIONS[len(family.kernel)](inputs, kernel.rows, family.kernel, *settings)
        if family.gathered and isinstance(made, nn.Conv2d):
            made = _gathered(made, _groups(kernel))
    if family.arithmetic != "float32":
        largest = weight_of(made).abs().flatten(1).amax(1).clamp(min=1e-6)
        grid = AffineGrid(largest / 127, torch.zeros_like(largest, dtype=torch.int64), -127, 127)
        integer, dynamic = family.arithmetic == "int8", family.arithmetic == "dynamic"
        encode(made, AffineEncoding(grid, 0, integer, dynamic=dynamic))
    return made.eval().requires_grad_(False)


def _gathered(plain: nn.Conv2d, groups: int) -> nn.Module:
    inputs = torch.randperm(plain.in_channels).view(groups, -1)
    outputs = torch.randperm(plain.out_channels).view(groups, -1)
    return PermutedConvolution(plain, weight_of(plain), inputs, outputs)


def input_of(kernel: Kernel, batch: int) -> torch.Tensor:
    """An input of the shape that :func:`built`'s module takes."""
    family = kernel.family
    if family.kernel:
        return torch.randn(batch, kernel.columns * _groups(kernel), *family.sizes)
    positions = family.sizes if family.sizes != (1,) else ()
    return torch.randn(batch, *positions, kernel.columns)


def _groups(kernel: Kernel) -> int:
    return kernel.rows if kernel.family.groups == DEPTHWISE else kernel.family.groups
