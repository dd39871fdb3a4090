"""Quantize without data: int8 from a network and the shape of its input, and a record that promises nothing more.

The network is captured on noise; calibration inputs are synthesized from what its batch normalisations remember;
neighbours are equalized; every layer that the target has an int8 kernel for gets it. The file is compared with its own
simulation, so the conversion is sound. What the network lost isn't known: only data can tell, and ``verify`` with them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from featherweight import stages
from featherweight.contracts import Artefact, Capability, Parity, Plan, PlanError, Refusal, Step, Steps, UsageError
from featherweight.files import write_atomically
from featherweight.methods import METHODS
from featherweight.methods.apply import Refit, apply, neutral_subject
from featherweight.network import Network, capture, fold_batch_norm
from featherweight.network.checks import check_precision
from featherweight.network.equalizing import equalized
from featherweight.network.grids import Compressed, save_compressed
from featherweight.network.surgery import Slim
from featherweight.observation.evidence import OBSERVED_KINDS
from featherweight.observation.synthesis import Synthesis
from featherweight.planning.plans import write_plan
from featherweight.preparation import synthesized
from featherweight.records import read_record, write_record
from featherweight.recovery import recover
from featherweight.runs import Run
from featherweight.story import versions
from featherweight.targets import Target
from featherweight.tasks.task import Task

_INT8 = {"weights": "int8", "activations": "int8"}
_LARGEST = 1 << 28  # values of one input: beyond it a shape is a slip of the pen
Shape = Sequence[int]


@dataclass(frozen=True, slots=True)
class Quantized:
    """What came of quantizing without data.

    Attributes:
        statement: what was not used and what is not proven, in plain sentences.
        proof: how to prove what it lost.
        artefact, original: the files.
        parity: of the artefact with its simulation, on the synthesized inputs: it speaks of the conversion alone.
        plan: int8 where the target has a kernel.
        calibration: where the calibration inputs come from.
        samples: how many there are.
        loss: mismatch with the remembered statistics, of noise and of the inputs that came of it.
        equalized: chains of layers that were equalized first.
        refusals: layers that stay as they are, with reasons.
        versions: package → version.
    """

    statement: str
    proof: str
    artefact: Artefact
    original: Artefact
    parity: Parity
    plan: Plan
    calibration: str
    samples: int
    loss: tuple[float, float]
    equalized: tuple[tuple[str, ...], ...]
    refusals: tuple[Refusal, ...]
    versions: dict[str, str]

    def text(self) -> str:
        """The outcome in a few lines."""
        before, after = self.original.size_bytes, self.artefact.size_bytes
        done = sum(map(bool, self.plan.choices.values()))
        lines = [
            f"{before:,} bytes became {after:,}: {done} of {len(self.plan.choices)} layers on int8.",
            self.statement,
            f"Prove it: {self.proof}",
        ]
        lines += [f"{r.subject}: stays as it is: {r.reason}. {r.remedy}".rstrip() for r in self.refusals]
        return "\n".join(lines)


def quantize(
    model: nn.Module, shapes: Sequence[Shape], target: Target, task: Task, out: Path, seed: int = 0
) -> Quantized:
    """Quantize a network without any data.

    Args:
        model: trained; it is not changed.
        shapes: of one sample of each input, batch left out.
        target: where it will run.
        task: its answers are what parity counts.
        out: gets ``artefact``, ``original``, ``plan.yaml`` and ``quantized.json``; a run that was stopped continues
            there.
        seed: of noise and sampled positions.

    Raises:
        UsageError: a shape isn't one.
        ModelError: the model can't be captured on such inputs, or doesn't compute in float32.
        PlanError: the target has no int8 kernel for any layer.
        LoweringError: the file doesn't compute what its simulation does.
    """
    captured = capture(model, noise(model, shapes, seed))
    check_precision(captured.module, captured.example, target.name)
    identity = {
        "quantize": "without data",
        "model": captured.fingerprint(),
        "shapes": [list(shape) for shape in shapes],
        "target": target.name,
        "task": task.name,
        "seed": seed,
        "versions": versions(),
    }
    run = Run(out, identity)
    with run.held():
        network = fold_batch_norm(captured)
        plan, refusals = int8_plan(network, captured.fingerprint(), target.capability)
        work = _Work(network, plan, refusals, synthesized(run, captured, seed), target, task, seed)
        return run.stage("1-quantized", {}, work.make, lambda folder: _kept(run, folder))


@dataclass(frozen=True)
class _Work:
    """What the file is made from: the folded network, its plan, and the synthesized inputs."""

    network: Network
    plan: Plan
    refusals: tuple[Refusal, ...]
    synthesis: Synthesis
    target: Target
    task: Task
    seed: int

    def make(self, folder: Path) -> None:
        """Write both files, the network, the plan and the record."""
        target, split = self.target, self.synthesis.split
        network, chains = equalized(self.network)
        applied = apply(network, self.plan, split, target.capability, METHODS, how=Refit(self.seed))
        built = recover(Slim.whole(network), applied, split, target)
        save_compressed(built, folder)
        write_plan(self.plan, folder / "plan.yaml")
        original = target.lower(Compressed(self.network), folder / f"original{target.suffix}")
        artefact, parity = stages.lowered(built, target, folder / f"artefact{target.suffix}", split, self.task)
        told = Quantized(
            statement=_statement(self.synthesis.warning),
            proof=f"featherweight verify {original.file} {artefact.file} --data DATA --target {target.name}",
            artefact=artefact,
            original=original,
            parity=parity,
            plan=self.plan,
            calibration=self.synthesis.source,
            samples=len(split),
            loss=self.synthesis.loss,
            equalized=chains,
            refusals=self.refusals,
            versions=versions(),
        )
        write_record(told, folder / "quantized.json")


def _kept(run: Run, folder: Path) -> Quantized:
    """The record of a finished stage, its files copied to the top of the run's folder."""
    told = read_record(Quantized, folder / "quantized.json")
    for name in (told.original.file, told.artefact.file, "plan.yaml", "quantized.json"):
        write_atomically(run.folder / name, (folder / name).read_bytes())
    return told


def int8_plan(network: Network, fingerprint: str, capability: Capability) -> tuple[Plan, tuple[Refusal, ...]]:
    """Static int8 for every layer that a target has a kernel for, and why the others stay as they are.

    Raises:
        PlanError: there is no such layer.
    """
    method = next(one for one in METHODS if one.name == "quantization")
    choices: dict[str, Steps] = {}
    refusals = list(network.refusals)
    for layer in network.layers:
        choices[layer.name] = ()
        if not (layer.replaceable and layer.kind in OBSERVED_KINDS):
            reason = f"a {layer.kind} layer of this kind can't be observed and replaced"
            if layer.name not in {refusal.subject for refusal in refusals}:
                refusals.append(Refusal(layer.name, "quantization int8", reason))
            continue
        subject = neutral_subject(layer, network.module.get_submodule(layer.name), capability)
        settings, refused = method.options(subject)
        if _INT8 in [dict(one) for one in settings]:
            choices[layer.name] = (Step(method.name, _INT8),)
        else:
            refusals += [one for one in refused if one.action.endswith("int8")]
    if not any(choices.values()):
        kinds = ", ".join(sorted({layer.kind for layer in network.layers})) or "no weighted layer"
        raise PlanError(
            "Quantization needs a layer that the target has an int8 kernel for.",
            f"{kinds} on {capability.target}",
            "`featherweight inspect` lists the layers; another target may have the kernels",
        )
    return Plan(fingerprint, capability.target, choices), tuple(refusals)


def _statement(warning: str) -> str:
    words = (
        "No data was used. Nothing about its accuracy is proven: the comparison here says only that the file computes "
        "what its simulation does."
    )
    return f"{words} Mind: {warning}." if warning else words


def noise(model: nn.Module, shapes: Sequence[Shape], seed: int) -> tuple[torch.Tensor, ...]:
    """Two samples of noise, in the type of the model's weights.

    Raises:
        UsageError: a shape isn't one.
    """
    generator = torch.Generator().manual_seed(seed)
    kind = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    if not shapes:
        raise UsageError("Every input needs a shape.", "none", "--shape 3,32,32")
    for shape in shapes:
        size = 1 if len(shape) else _LARGEST + 1
        for axis in shape:
            size *= axis if isinstance(axis, int) and axis > 0 else _LARGEST + 1
        if size > _LARGEST:
            got = json.dumps(list(shape), default=str)
            raise UsageError(
                "A shape is that of one sample, whole positive numbers, batch left out.", got, "--shape 3,32,32"
            )
    return tuple(torch.randn((2, *shape), generator=generator).to(kind) for shape in shapes)
