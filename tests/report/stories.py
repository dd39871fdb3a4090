"""Stories made by hand: a residual network of digits-like size, and variations of it."""

from __future__ import annotations

from dataclasses import replace

from featherweight.contracts import (
    Artefact,
    Attempt,
    Certificate,
    Cost,
    Goal,
    GroupScore,
    LayerStory,
    Parity,
    Plan,
    Refusal,
    Side,
    Step,
    Story,
    TensorSpec,
    Timing,
    UnitStory,
    describe,
)

INT8 = Step("quantization", {"weights": "int8", "activations": "int8"})
HALF = Step("quantization", {"weights": "float16", "activations": "float32"})
_WIDTHS = (16, 16, 16, 32, 32, 32, 64, 64, 64)


def certificate(**changes) -> Certificate:
    made = Certificate(
        metric="accuracy",
        samples=10_000,
        original=0.9173,
        artefact=0.9166,
        drop=0.0007,
        drop_bound=0.0026,
        confidence=0.95,
        bound_method="exact",
        lost=71,
        gained=64,
        holds=True,
        statement=(
            "With 95 % confidence the artefact loses at most 0.26 points of accuracy against the original (10,000 test "
            "samples: 71 answers lost, 64 gained); the goal of 1.00 points holds."
        ),
        samples_needed=None,
    )
    return replace(made, **changes)


def layer(index: int, name: str, width: int, steps: tuple[Step, ...]) -> LayerStory:
    parameters = 9 * width * width
    side = 32 * 16 // width
    shrink = 1 if not steps else 2 if steps == (HALF,) else 4
    before = Cost(4 * parameters + 4 * width, parameters * side * side, parameters + width)
    after = Cost(before.size_bytes // shrink + 24 * width, before.macs, before.parameters)
    refused = ("lowrank: 16 by 144 is too small: two layers of rank 8 would cost more than the one",) * (width == 16)
    return LayerStory(
        name=name,
        kind="conv2d",
        input_shape=(width, side, side),
        output_shape=(width, side, side),
        before=before,
        after=after,
        activation_bytes=4 * width * side * side,
        chosen=describe(steps),
        error=0.0021 * index,
        divergence=2.3e-5 * (index + 1) * bool(steps),
        refused=refused,
        options=3 if refused else 9,
    )


def layers() -> tuple[LayerStory, ...]:
    made = [layer(0, "stem", 16, (HALF,))]
    for stage, width in enumerate(_WIDTHS):
        for half in (1, 2):
            steps = (Step("lowrank", {"rank": 24}), INT8) if width == 64 and half == 2 else (INT8,)
            made.append(layer(len(made), f"layer{stage // 3 + 1}.{stage % 3}.conv{half}", width, steps))
    return (*made, layer(len(made), "head", 16, ()))


def plan(rows: tuple[LayerStory, ...]) -> Plan:
    choices = {one.name: () if one.chosen == "keep" else (INT8,) for one in rows}
    return Plan("5f" * 32, "litert", choices, {"size_bytes": 301_000.0, "macs": 40.8e6, "divergence": 0.0041})


def attempt(number: int, predicted: float, measured: float, size_bytes: int, bound: float, chosen: Plan) -> Attempt:
    check = certificate(samples=5_000, drop_bound=bound, drop=bound / 3, artefact=0.92 - bound / 3, holds=bound <= 0.01)
    return Attempt(number, predicted, measured, size_bytes, 40_800_000, check, chosen)


def units() -> tuple[UnitStory, ...]:
    scores = tuple(GroupScore(group, 0.4 / (group + 1), 0.01, group < 2) for group in range(3))
    return (
        UnitStory("layer1.0.conv1", ("layer1.0.conv1", "layer1.0.conv2"), 16, 12, 12, 1_152, "obs", 0.02, 1.5e-4),
        UnitStory(
            "layer3.2.conv1", ("layer3.2.conv1", "layer3.2.conv2"), 3, 2, 1, 9_216, "shapley", 0.7, 3e-3,
            "asked to keep 2 of 3, kept 1: layer3.2.conv1:groups took some of the same channels", scores,
        ),
    )  # fmt: skip


def sides() -> tuple[Side, Side]:
    image = TensorSpec("serving_default_args_0:0", (1, 32, 32, 3), "float32", "NHWC")
    answer = TensorSpec("StatefulPartitionedCall:0", (1, 10), "float32")
    original = Artefact(
        "litert", "original.tflite", 1_106_448, "a1" * 32, (image,), (answer,),
        {"ADD float32": 9, "CONV_2D float32": 21, "FULLY_CONNECTED float32": 1, "MEAN float32": 1, "PAD float32": 2},
    )  # fmt: skip
    artefact = Artefact(
        "litert", "artefact.tflite", 320_416, "b2" * 32,
        (replace(image, dtype="int8", scale=0.0186584480106831, zero_point=-14),),
        (replace(answer, dtype="int8", scale=0.171, zero_point=3),),
        {"ADD int8": 9, "CONV_2D int8": 29, "DEQUANTIZE float16": 1, "FULLY_CONNECTED float32": 1, "MEAN int8": 1},
    )  # fmt: skip
    slow = [*(("CONV_2D", 0.041) for _ in range(21)), *(("ADD", 0.006) for _ in range(9)), ("MEAN", 0.004)]
    fast = [*(("CONV_2D", 0.011) for _ in range(29)), *(("ADD", 0.0031) for _ in range(9)), ("MEAN", 0.0021)]
    before = Side(
        original, 41_214_848, 272_474, 196_608, Timing(0.94, 1.02, 100, 1),
        (*slow, ("FULLY_CONNECTED", 0.0008)),
        {"float32 constants": 1_088_376, "int32 constants": 96, "graph, scales, names": 17_976},
        Parity(64, 3.1e-6, 4.2e-7, 4.87, 1.0), 901_638,
    )  # fmt: skip
    after = Side(
        artefact, 40_800_000, 261_002, 196_608, Timing(0.36, 0.39, 100, 1),
        (*fast, ("FULLY_CONNECTED", 0.0008)),
        {"int8 constants": 265_824, "int32 constants": 2_848, "float16 constants": 864, "float32 constants": 2_560,
         "graph, scales, names": 48_320},
        Parity(64, 0.171, 0.0034, 4.87, 0.984375), 224_800,
    )  # fmt: skip
    return before, after


def story(**changes) -> Story:
    rows = layers()
    chosen = plan(rows)
    original, compressed = sides()
    proof = certificate()
    other = replace(chosen, choices={**chosen.choices, "stem": (INT8,), "head": (INT8,)})
    third = replace(chosen, choices={**chosen.choices, "stem": (INT8,)})
    made = Story(
        goal=Goal(),
        plan=chosen,
        certificate=proof,
        met=True,
        verdict=f"Goal met. {proof.statement}",
        original=original,
        compressed=compressed,
        layers=rows,
        attempts=(
            attempt(1, 0.0310, 0.0552, 297_104, 0.0148, other),
            attempt(2, 0.0041, 0.0046, 320_416, 0.0039, chosen),
            attempt(3, 0.0113, 0.0161, 308_800, 0.0107, third),
        ),
        refusals=(
            Refusal("stem", "lowrank", "16 by 27 is too small: two layers of rank 8 would cost more than the one"),
            Refusal("head", "quantization int8", "litert has no int8 kernel for it here", "put a ReLU before it"),
        ),
        samples={"train": 45_000, "calibration": 512, "validation": 5_000, "test": 10_000},
        hashes={"model": "5f" * 32, "data": "d4" * 32, "original": "a1" * 32, "artefact": "b2" * 32},
        versions={"python": "3.11.2", "featherweight": "0.1.0", "torch": "2.13.0", "ai-edge-litert": "2.3.0"},
        device="Intel(R) Xeon(R) Processor @ 2.80GHz, Linux x86_64",
        labelled=True,
        units=units(),
    )
    return replace(made, **changes)


def unmet() -> Story:
    proof = certificate(
        samples=360, original=0.9806, artefact=0.9722, drop=0.0084, drop_bound=0.0217, lost=4, gained=1, holds=False,
        statement=(
            "The goal of 1.00 points can't be shown, because the test set is too small for the claim: the artefact "
            "loses 0.84 points of accuracy against the original (360 test samples: 4 answers lost, 1 gained), but so "
            "few samples leave 2.17 points of accuracy possible at 95 % confidence; about 1,480 test samples would do."
        ),
        samples_needed=1_476,
    )  # fmt: skip
    verdict = (
        f"Goal not met; this is the nearest result. {proof.statement} The smallest file in reach has 320,416 bytes; "
        "the goal allows 300,000."
    )
    return story(goal=Goal(max_size_bytes=300_000), certificate=proof, met=False, verdict=verdict)
