"""The values that travel between stages, and the errors a person can meet.

Everything here is a frozen value. Nothing here computes on tensors, knows a runtime, or imports another part of
Featherweight, so every part may import it.

The errors, each with the exit code that the command line ends with::

    FeatherweightError            1   never raised itself
    ├── UsageError                2   the call's words are off
    ├── ModelError                3   the model can't be read, captured or trusted
    ├── DataError                 4   the data can't be read or can't support the work
    ├── GoalError                 5   the goal contradicts itself
    ├── TargetError               6   the target is unknown, or its extra isn't installed
    ├── RunError                  7   the run's folder can't be used or written
    ├── PlanError                 8   the plan doesn't fit this network, target or version
    ├── LoweringError             9   the target can't hold what the plan asks for
    └── OutOfReachError          11   the table shows already that no plan can meet the goal's limits

A goal that was tried and not met is a result, not an error: the command line ends with ``EXIT_UNMET``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import ClassVar, Literal

EXIT_UNMET = 10
EXIT_STOPPED = 130
STOPPED = "featherweight: stopped; the same command continues where it was\n"

Scalar = int | float | str | bool


class FeatherweightError(Exception):
    """A failure told in three parts: the rule, what came, what to do.

    Args:
        rule: what must hold, as a sentence ("The batch dimension must be free").
        got: what came instead.
        remedy: what the reader can do now.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, rule: str, got: str, remedy: str) -> None:
        self.rule, self.got, self.remedy = rule, got, remedy
        super().__init__(rule, got, remedy)

    def __str__(self) -> str:
        # From our own fields: whoever runs a graph (torch.fx) adds a page of its own to an exception's arguments.
        return f"{self.rule}\n  got: {self.got}\n  try: {self.remedy}"


class UsageError(FeatherweightError):
    """The words of a call are off."""

    exit_code = 2


class ModelError(FeatherweightError):
    """The model can't be read, captured or trusted."""

    exit_code = 3


class DataError(FeatherweightError):
    """The data can't be read, or can't support the work."""

    exit_code = 4


class GoalError(FeatherweightError):
    """The goal contradicts itself."""

    exit_code = 5


class TargetError(FeatherweightError):
    """The target is unknown, or what it needs isn't installed."""

    exit_code = 6


class RunError(FeatherweightError):
    """The run's folder can't be used or written."""

    exit_code = 7


class PlanError(FeatherweightError):
    """The plan doesn't fit this network, target or version."""

    exit_code = 8


class LoweringError(FeatherweightError):
    """The target can't hold what the plan asks for."""

    exit_code = 9


class OutOfReachError(FeatherweightError):
    """The table shows that no plan can meet the goal's limits, before anything is made."""

    exit_code = 11


@dataclass(frozen=True, slots=True)
class Refusal:
    """Something that can't be done, kept as data and shown in the report.

    Attributes:
        subject: the layer, unit or node it is about.
        action: what was wanted there ("lowrank", "quantization", "capture").
        reason: why it can't be done.
        remedy: what would make it possible; empty where nothing would.
    """

    subject: str
    action: str
    reason: str
    remedy: str = ""


Quantity = Literal["size", "package", "macs", "latency", "memory"]
_LIMIT_FIELDS: Mapping[Quantity, str] = {
    "size": "max_size_bytes",
    "package": "max_package_bytes",
    "macs": "max_macs",
    "latency": "max_latency_ms",
    "memory": "max_memory_bytes",
}
QUANTITIES: tuple[Quantity, ...] = ("size", "package", "macs", "latency", "memory")


@dataclass(frozen=True, slots=True)
class Goal:
    """What to minimise, under which limits, and how sure to be.

    Attributes:
        max_drop: the largest loss of the task's metric, as a fraction (0.01 is one point of accuracy).
        confidence: the probability that the certificate's bound must hold with, in (0.5, 1).
        minimize: ``"size"`` (bytes of the artefact), ``"package"`` (bytes to download), ``"macs"``
            (multiply-accumulates for one sample), ``"latency"`` (milliseconds for one sample) or ``"memory"`` (peak
            bytes of activations).
        max_size_bytes, max_package_bytes, max_macs, max_latency_ms, max_memory_bytes: limits on these, or None.
        relative: whether ``max_drop`` is a share of the original's metric instead of a difference.
        max_group_drop: the largest loss of any class or group, like ``max_drop``, or None.

    Raises:
        GoalError: a limit that no network can meet or that means nothing.
    """

    max_drop: float = 0.01
    confidence: float = 0.95
    minimize: Quantity = "size"
    max_size_bytes: int | None = None
    max_macs: int | None = None
    max_package_bytes: int | None = None
    max_latency_ms: float | None = None
    max_memory_bytes: int | None = None
    relative: bool = False
    max_group_drop: float | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.max_drop) and 0.0 <= self.max_drop < 1.0):
            raise GoalError(
                "The largest drop must lie between 0 and 1 (0 to 100 points).",
                f"max_drop = {self.max_drop!r}",
                "give it in points, like --max-drop 1pp, or as a fraction, like 0.01",
            )
        if self.max_group_drop is not None and not (math.isfinite(self.max_group_drop) and 0 < self.max_group_drop < 1):
            raise GoalError(
                "The largest drop of a group must lie between 0 and 1 (0 to 100 points).",
                f"max_group_drop = {self.max_group_drop!r}",
                "give it in points, like --max-group-drop 3pp, or as a fraction, like 0.03",
            )
        if not (math.isfinite(self.confidence) and 0.5 < self.confidence < 1.0):
            raise GoalError(
                "The confidence must lie between 50 % and 100 %, both excluded: no finite test makes anybody certain.",
                f"confidence = {self.confidence!r}",
                "95% is the usual choice",
            )
        if self.minimize not in QUANTITIES:
            raise GoalError(
                f"What is minimised must be one of: {', '.join(QUANTITIES)}.",
                f"minimize = {self.minimize!r}",
                "--minimize size",
            )
        for quantity, value in self.limits.items():
            if not (math.isfinite(value) and value > 0):
                raise GoalError(
                    "A limit must leave room for a network.",
                    f"a limit on {quantity} of {value!r}",
                    "give a positive number, or leave the limit out",
                )

    @property
    def limits(self) -> dict[Quantity, float]:
        """Quantity → its limit, for those that have one."""
        found: dict[Quantity, float | None] = {
            "size": self.max_size_bytes,
            "package": self.max_package_bytes,
            "macs": self.max_macs,
            "latency": self.max_latency_ms,
            "memory": self.max_memory_bytes,
        }
        return {quantity: float(value) for quantity, value in found.items() if value is not None}

    def with_limits(self, limits: Mapping[Quantity, float | None]) -> Goal:
        """The same goal with other limits on some quantities; None takes one away. Whole ones are rounded down."""
        changed: dict[str, float | int | None] = {}
        for quantity, limit in limits.items():
            changed[_LIMIT_FIELDS[quantity]] = limit if limit is None or quantity == "latency" else math.floor(limit)
        return replace(self, **changed)  # type: ignore[arg-type]

    @property
    def quantities(self) -> tuple[Quantity, ...]:
        """What is minimised, then what is limited."""
        return tuple(dict.fromkeys((self.minimize, *self.limits)))


@dataclass(frozen=True, slots=True)
class Step:
    """One act of one method on one unit, with its settings: ``Step("lowrank", {"rank": 32})``."""

    method: str
    settings: Mapping[str, Scalar] = field(default_factory=dict)

    def __str__(self) -> str:
        inside = ", ".join(f"{key}={value}" for key, value in self.settings.items())
        return f"{self.method}({inside})" if inside else self.method


Steps = tuple[Step, ...]


def describe(steps: Steps) -> str:
    """The steps as one line: ``lowrank(rank=32) > quantization(weights=int8, ...)``; ``keep`` where there are none."""
    return " > ".join(str(step) for step in steps) or "keep"


@dataclass(frozen=True, slots=True)
class Cost:
    """What a layer, a unit or a network costs.

    Attributes:
        size_bytes: bytes in the artefact for weights, biases and their scales.
        macs: multiply-accumulates for one sample.
        parameters: number of stored values.
        package_bytes: bytes in the package, from the coder's own estimate; 0 where nobody asked.
        milliseconds: in the target's runtime, from measurements of such layers; 0 where nobody asked.
    """

    size_bytes: int
    macs: int
    parameters: int
    package_bytes: float = 0.0
    milliseconds: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.size_bytes + other.size_bytes,
            self.macs + other.macs,
            self.parameters + other.parameters,
            self.package_bytes + other.package_bytes,
            self.milliseconds + other.milliseconds,
        )

    def __sub__(self, other: Cost) -> Cost:
        return Cost(
            self.size_bytes - other.size_bytes,
            self.macs - other.macs,
            self.parameters - other.parameters,
            self.package_bytes - other.package_bytes,
            self.milliseconds - other.milliseconds,
        )

    def of(self, quantity: Quantity) -> float:
        """The figure that a goal calls ``quantity``.

        Raises:
            KeyError: of "memory", which is no sum over layers.
        """
        amounts: dict[str, float] = {
            "size": self.size_bytes,
            "package": self.package_bytes,
            "macs": self.macs,
            "latency": self.milliseconds,
        }
        return amounts[quantity]


Terms = tuple[int, int, int, int]
"""What multiplies (rows · columns, rows, columns, 1)."""

RealTerms = tuple[float, float, float, float]
"""The same of quantities that are estimated or measured."""

_NOTHING: RealTerms = (0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class CostForm:
    """A layer's cost at any width: exact for every way of storing a weight of shape (rows, columns, kernel …).

    Attributes:
        size_bytes, macs, parameters: terms of ``a·rows·columns + b·rows + c·columns + d``, exact.
        package_bytes, milliseconds: the same, fitted.
    """

    size_bytes: Terms
    macs: Terms
    parameters: Terms
    package_bytes: RealTerms = _NOTHING
    milliseconds: RealTerms = _NOTHING

    def at(self, rows: int, columns: int) -> Cost:
        """The cost when this many rows and columns of the weight are left."""
        widths = (rows * columns, rows, columns, 1)
        size, macs, parameters = (
            sum(a * b for a, b in zip(terms, widths, strict=True))
            for terms in (self.size_bytes, self.macs, self.parameters)
        )
        package, milliseconds = (
            sum(a * b for a, b in zip(terms, widths, strict=True)) for terms in (self.package_bytes, self.milliseconds)
        )
        return Cost(size, macs, parameters, package, milliseconds)

    def terms(self, quantity: Quantity) -> RealTerms:
        """The terms of what a goal calls ``quantity``."""
        forms: dict[str, RealTerms] = {
            "size": self.size_bytes,
            "package": self.package_bytes,
            "macs": self.macs,
            "latency": self.milliseconds,
        }
        return forms[quantity]


@dataclass(frozen=True, slots=True)
class Option:
    """One thing that can be done to one unit, with its cost and its error.

    Attributes:
        unit: the unit's name.
        steps: what is done, in order; empty keeps the unit as it is.
        cost: of the unit after these steps.
        error: predicted squared error of the unit's output per sample and position, ``tr(D G Dᵀ)`` plus the noise of
            quantized activations, in the square of the output's own unit.
        divergence: the error scaled by the unit's measured sensitivity: the predicted change of the network's outputs.
        form: the cost at other widths, for when neighbours lose channels; None where it doesn't depend on them.
    """

    unit: str
    steps: Steps
    cost: Cost
    error: float
    divergence: float
    form: CostForm | None = None


@dataclass(frozen=True, slots=True)
class Keep:
    """How many groups of a coupled unit's channels stay: one of its choices, beside those of the layers around it.

    Attributes:
        unit: the unit's name: that of the first layer that produces its channels.
        steps: the pruning step; empty where all stay.
        rows: layer of the table → rows that its weight loses.
        columns: layer of the table → columns that its weight loses.
        saved: what goes elsewhere: parameters that belong to no layer of the table.
        error: predicted squared error of the consumers' outputs after their refit, summed.
        divergence: what that does to the network's outputs, from measured anchors.
    """

    unit: str
    steps: Steps
    rows: Mapping[str, int]
    columns: Mapping[str, int]
    saved: Cost
    error: float
    divergence: float


@dataclass(frozen=True, slots=True)
class Table:
    """All options of all units, what was refused, and what stays the same whatever is chosen.

    Attributes:
        options: for every layer its options; the first keeps the layer as it is.
        refusals: what was asked of the methods and can't be done.
        fixed: the cost of everything that no option touches.
        widths: layer → (rows, columns) of its weight, kernel positions left out.
        keeps: for every coupled unit its choices; the first keeps all channels.
    """

    options: Mapping[str, tuple[Option, ...]]
    refusals: tuple[Refusal, ...]
    fixed: Cost
    widths: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    keeps: Mapping[str, tuple[Keep, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Choice:
    """One option for every layer, with its cost at the widths that are left, and one keep for every coupled unit.

    Attributes:
        layers: layer → option.
        keeps: unit → keep.
    """

    layers: Mapping[str, Option]
    keeps: Mapping[str, Keep] = field(default_factory=dict)

    @property
    def cost(self) -> Cost:
        """Of everything chosen, without the table's fixed part."""
        total = Cost(0, 0, 0)
        for option in self.layers.values():
            total += option.cost
        for keep in self.keeps.values():
            total -= keep.saved
        return total

    @property
    def divergence(self) -> float:
        """The predicted divergence of all choices together: their sum."""
        return sum(one.divergence for one in (*self.layers.values(), *self.keeps.values()))


@dataclass(frozen=True, slots=True)
class Knobs:
    """The few settings that hold for a whole plan: what it is calibrated on, and how weights are refit and rounded.

    Attributes:
        samples: how many calibration samples the plan is made with, or all where there are fewer; 0 is as many as the
            table was made with.
        draw: which ones: 0 for those that begin with what the table saw, other numbers for other random draws.
        ranges: how ranges of activations are found where a step doesn't say, by a name of
            :data:`featherweight.numerics.ranges.RANGE_SEARCHES`.
        refit: whether layers are refit in closed form once something before them changed.
        damping: of that refit, relative to the mean variance of a layer's inputs.
        rounding_damping: of GPTQ, likewise.
        largest_first: GPTQ's order: the columns with the largest inputs first, or as they stand.
    """

    samples: int = 0
    draw: int = 0
    ranges: str = "mse"
    refit: bool = True
    damping: float = 1e-3
    rounding_damping: float = 1e-2
    largest_first: bool = True

    @property
    def turned(self) -> dict[str, Scalar]:
        """Name → value, of those that differ from the defaults."""
        pairs = ((one.name, getattr(self, one.name), one.default) for one in fields(self))
        return {name: value for name, value, default in pairs if value != default}

    def __str__(self) -> str:
        words = (
            f"{name.replace('_', ' ')} {value:.2g}"
            if isinstance(value, float)
            else f"{name.replace('_', ' ')} {str(value).lower()}"
            for name, value in self.turned.items()
        )
        return ", ".join(words) or "defaults"


@dataclass(frozen=True, slots=True)
class Plan:
    """The chosen steps of every unit: a small YAML file that can be read, edited and replayed.

    Attributes:
        network: fingerprint of the network that the plan was made for.
        target: name of the target.
        choices: unit name → steps.
        predicted: the cost and divergence that the table promised for these choices.
        knobs: how they are carried out.
    """

    network: str
    target: str
    choices: Mapping[str, Steps]
    predicted: Mapping[str, float] = field(default_factory=dict)
    knobs: Knobs = Knobs()


@dataclass(frozen=True, slots=True)
class Capability:
    """What a target can run, as data. Methods read this and never a target's name.

    Attributes:
        target: the target's name, for messages only.
        weight_types: storage types of weights that its kernels execute ("float32", "float16", "int8").
        activation_types: types of activations ("float32", "int8").
        layer_kinds: for each weight type, the layer kinds that have a kernel for it.
        channel_multiple: ranks and channel counts should be a multiple of this.
        bytes_per_channel: for each weight type, bytes beside the weight and its bias for each output channel
            (scales, zero points).
        bytes_per_layer: bytes of the file's own description of one weighted layer with its bias, about.
        dynamic_kinds: layer kinds with a kernel for int8 weights that puts real activations on int8 per inference.
        bytes_per_integer: what an integer kernel's description takes more: the grids of its activations, about.
        bytes_per_bias: for each weight type, what a layer without a bias takes less: of its description, about, and
            for every output channel.
    """

    target: str
    weight_types: tuple[str, ...]
    activation_types: tuple[str, ...]
    layer_kinds: Mapping[str, frozenset[str]]
    channel_multiple: int
    bytes_per_channel: Mapping[str, int]
    bytes_per_layer: int
    dynamic_kinds: frozenset[str] = frozenset()
    bytes_per_integer: int = 0
    bytes_per_bias: Mapping[str, tuple[int, int]] = field(
        default_factory=lambda: dict.fromkeys(("float32", "float16", "int8"), (0, 4))
    )


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """An input or output of an artefact: what an app must hand over.

    Attributes:
        name: the tensor's name in the file.
        shape: for one sample, batch first.
        dtype: numpy's name of the type.
        layout: "NHWC", "NCHW" or "" where the tensor is no image.
        scale: real value of one step, or None for real types.
        zero_point: the integer that means zero, or None.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    layout: str = ""
    scale: float | None = None
    zero_point: int | None = None


@dataclass(frozen=True, slots=True)
class Artefact:
    """A file made for a target, byte for byte what ships.

    Attributes:
        target: name of the target.
        file: the file's name inside the run's folder.
        size_bytes: its length.
        sha256: of its bytes.
        inputs, outputs: what goes in and comes out.
        operators: operator → how often, as the runtime lists them ("CONV_2D int8": 20).
    """

    target: str
    file: str
    size_bytes: int
    sha256: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    operators: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Timing:
    """Milliseconds for one sample, measured in the target's runtime, several files interleaved in one run.

    Attributes:
        median_ms, p90_ms: over the timed runs.
        runs: how many were timed, after warming up.
        threads: the runtime's threads.
    """

    median_ms: float
    p90_ms: float
    runs: int
    threads: int


@dataclass(frozen=True, slots=True)
class Churn:
    """How many answers changed, and from what to what. An answer is right where the labels say so.

    Attributes:
        samples: test samples.
        changed: answers of the artefact that aren't the original's.
        lost: of these, right before and wrong now.
        gained: wrong before and right now.
        both_wrong: wrong before and wrong now, but another answer.
    """

    samples: int
    changed: int
    lost: int
    gained: int
    both_wrong: int


@dataclass(frozen=True, slots=True)
class GroupProof:
    """What one class or group of test samples loses; all groups' bounds hold together.

    Attributes:
        group: its name.
        samples: test samples in it.
        original, artefact: the metric of both, in this group.
        drop: how much worse the artefact is.
        drop_bound: with the certificate's confidence no group's true drop lies above its bound; None where the group
            has too few samples for any.
        holds: whether the bound is at most the goal's drop of a group; also True where there is no such goal.
        statement: the claim in one plain sentence, or why it can't be made.
        samples_needed: samples of this group that would do at these rates; None where more don't help.
        metric: what groups are measured by: the certificate's, or where that is a figure of the whole set, the mean
            over samples that the task has.
        points: whether it is a share, told in percent.
    """

    group: str
    samples: int
    original: float
    artefact: float
    drop: float
    drop_bound: float | None
    holds: bool
    statement: str
    samples_needed: int | None = None
    metric: str = ""
    points: bool = False


@dataclass(frozen=True, slots=True)
class Certificate:
    """What was measured on the artefact with data that no earlier stage saw, and whether the goal holds.

    Attributes:
        metric: the task's metric ("accuracy").
        samples: test samples used.
        original, artefact: the metric of both, in the target's own runtime.
        drop: how much worse the artefact is: ``original - artefact``, or the other way round where less is better.
        drop_bound: with probability ``confidence`` the true drop lies at or below this.
        confidence: of the bound.
        bound_method: the name of the bound ("exact", "tango", "bootstrap", "worst-case").
        lost, gained: answers that turned wrong and that turned right; None where the metric isn't 0/1.
        holds: whether ``drop_bound`` is at most the goal's drop, and every group keeps its own limit.
        statement: the claim in one plain sentence, or why it can't be made.
        samples_needed: test samples that would do for the claim at these rates; None where more samples don't help.
        higher_is_better: whether more of the metric is better.
        points: whether the metric is a share, told in percent, and its differences in points.
        limit: the largest drop allowed, like ``drop``; for a relative goal the share of what the original has at least.
            None in certificates of earlier versions: the goal's own.
        tested: what was tested, word for word.
        smallest_provable: the smallest drop that a test set of this size could prove, without any answer lost; None
            where the metric isn't 0/1.
        churn: how many answers changed; None where outputs aren't answers.
        groups: by class or group, the worst first.
        looks: how many artefacts this run has shown its test data to, this one included.
    """

    metric: str
    samples: int
    original: float
    artefact: float
    drop: float
    drop_bound: float
    confidence: float
    bound_method: str
    lost: int | None
    gained: int | None
    holds: bool
    statement: str
    samples_needed: int | None
    higher_is_better: bool = True
    points: bool = False
    limit: float | None = None
    tested: str = ""
    smallest_provable: float | None = None
    churn: Churn | None = None
    groups: tuple[GroupProof, ...] = ()
    looks: int = 1


@dataclass(frozen=True, slots=True)
class Attempt:
    """One turn of the correction loop: a plan, made into a file, measured on validation data.

    Attributes:
        number: from 1.
        predicted_divergence: what the table promised for the whole network.
        measured_divergence: of the artefact's outputs from the original's, on validation data.
        size_bytes: of the artefact.
        macs: of the compressed network.
        check: the same figures as a certificate, but on validation data: it steers, it proves nothing.
        plan: what was tried.
        expected_lost, expected_gained: forecast shares of answers that turn wrong and right; 0 where the metric isn't
            0/1.
        package_bytes, milliseconds, memory_bytes: measured where the goal names them, else 0.
    """

    number: int
    predicted_divergence: float
    measured_divergence: float
    size_bytes: int
    macs: int
    check: Certificate
    plan: Plan
    expected_lost: float = 0.0
    expected_gained: float = 0.0
    package_bytes: float = 0.0
    milliseconds: float = 0.0
    memory_bytes: float = 0.0

    def of(self, quantity: Quantity) -> float:
        """The measured figure that a goal calls ``quantity``."""
        amounts: dict[str, float] = {
            "size": self.size_bytes,
            "package": self.package_bytes,
            "macs": self.macs,
            "latency": self.milliseconds,
            "memory": self.memory_bytes,
        }
        return amounts[quantity]


@dataclass(frozen=True, slots=True)
class Parity:
    """How well an artefact agrees with the network that it was lowered from, on data.

    Attributes:
        samples: compared.
        largest, mean: absolute difference of outputs, in their own unit.
        spread: standard deviation of the network's outputs, to read the differences against.
        same_answers: share of samples with the same answer.
    """

    samples: int
    largest: float
    mean: float
    spread: float
    same_answers: float


@dataclass(frozen=True, slots=True)
class LayerStory:
    """One layer before and after.

    Attributes:
        name, kind: of the layer.
        input_shape, output_shape: of one sample.
        before, after: its cost on the target, kept and as planned.
        activation_bytes: of its output for one sample, as float32.
        chosen: the steps, in words ("keep" where there are none).
        error, divergence: predicted for the choice.
        refused: "method: reason" for everything that couldn't be done here.
        options: how many options the table held.
    """

    name: str
    kind: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    before: Cost
    after: Cost
    activation_bytes: int
    chosen: str
    error: float
    divergence: float
    refused: tuple[str, ...]
    options: int


@dataclass(frozen=True, slots=True)
class GroupScore:
    """How much one group of a unit matters, by a criterion that explains.

    Attributes:
        group: its number.
        score: what the network's outputs lose without it, as the criterion measures it.
        standard_error: of the score; None where a single draw can't tell.
        kept: whether it stayed.
    """

    group: int
    score: float
    standard_error: float | None
    kept: bool


@dataclass(frozen=True, slots=True)
class UnitStory:
    """One coupled unit: what was asked of it, and what was reached.

    Attributes:
        unit: its name, that of the first layer that produces its channels.
        layers: that lose channels or columns with it.
        groups: how many it had.
        asked, reached: how many were to stay, and how many did, counted on the smaller network.
        parameters: how many went.
        criterion: how the groups were chosen.
        error, divergence: predicted.
        explanation: why asked and reached differ; empty where they don't.
        scores: by group, where the criterion explains ("causal", "shapley"); else empty.
    """

    unit: str
    layers: tuple[str, ...]
    groups: int
    asked: int
    reached: int
    parameters: int
    criterion: str
    error: float = 0.0
    divergence: float = 0.0
    explanation: str = ""
    scores: tuple[GroupScore, ...] = ()


@dataclass(frozen=True, slots=True)
class Side:
    """The original or the artefact: a file, what it costs, how long it takes and where that goes.

    Attributes:
        artefact: the file.
        macs, parameters: of the network inside.
        peak_activation_bytes: of live activations while the file runs one sample, read off the file.
        timing: of the file in its runtime.
        operators_ms: (operator, milliseconds) in execution order, each timed alone.
        parts: where the file's bytes are.
        parity: with the network that it was lowered from.
        package_bytes: of the file packed for download.
    """

    artefact: Artefact
    macs: int
    parameters: int
    peak_activation_bytes: int
    timing: Timing
    operators_ms: tuple[tuple[str, float], ...]
    parts: Mapping[str, int]
    parity: Parity
    package_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Story:
    """Everything that a report tells, as plain values.

    Attributes:
        goal, plan, certificate: of the run.
        met: whether the goal holds, limits included.
        verdict: the outcome in one plain sentence, with the reason where the goal is unmet.
        original, compressed: side by side.
        layers: in execution order.
        units: coupled channels that a plan took away from.
        attempts: turns of the correction loop.
        refusals: what couldn't be done anywhere, with reasons.
        samples: split name → how many samples it holds; "calibration" too.
        hashes: "model", "data", "original", "artefact" → SHA-256.
        versions: package → version.
        device: the machine that timed it.
        labelled: whether labels were there; without them the original's own answers stand in.
        calibration: where the calibration samples come from, in words.
        preparation: what was done to the network before anything was planned, in sentences.
        table: the options that the plan was chosen from, or None.
    """

    goal: Goal
    plan: Plan
    certificate: Certificate
    met: bool
    verdict: str
    original: Side
    compressed: Side
    layers: tuple[LayerStory, ...]
    attempts: tuple[Attempt, ...]
    refusals: tuple[Refusal, ...]
    samples: Mapping[str, int]
    hashes: Mapping[str, str]
    versions: Mapping[str, str]
    device: str
    labelled: bool
    units: tuple[UnitStory, ...] = ()
    calibration: str = "training samples"
    preparation: tuple[str, ...] = ()
    table: Table | None = None
