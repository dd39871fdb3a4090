"""What happens to a run's samples and network before anything is planned: samples made up, outliers moved away."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import nn

from featherweight.contracts import Step
from featherweight.files import write_atomically
from featherweight.methods.apply import neutral_subject
from featherweight.network import Network
from featherweight.network.smoothing import Site, sites_of
from featherweight.observation import smoothing
from featherweight.observation.smoothing import Smoothing
from featherweight.observation.synthesis import STEPS, Synthesis, load_synthesis, save_synthesis, synthesize
from featherweight.planning.rules.addressing import Addressing
from featherweight.records import from_json, to_json
from featherweight.runs import Run
from featherweight.stages import Job

SYNTHESIZED = 128  # calibration inputs where there are no samples: four batches
_INT8 = Step("quantization", {"weights": "int8", "activations": "int8"})
_DECISIONS = "smoothing.json"


def synthesized(run: Run, captured: Network, seed: int) -> Synthesis:
    """Calibration inputs made up once for a run; a resumed run reads the same."""
    return run.stage(
        "0-calibration",
        {"samples": SYNTHESIZED, "steps": STEPS, "seed": seed},
        lambda folder: save_synthesis(synthesize(captured, SYNTHESIZED, seed), folder),
        load_synthesis,
    )


def calibrated(run: Run, job: Job) -> Job:
    """The job with calibration samples: a data-free one has them synthesized here."""
    if not job.data.data_free:
        return job
    made = synthesized(run, job.captured, job.seed)
    # Channels that made-up inputs leave dead may be just those that real ones need.
    return replace(job, calibration=made.split, source=made.source, pruning=None)


def smoothed(run: Run, job: Job) -> Job:
    """The job with outliers moved from normalisations into the weights that read them, where int8 gains much by it.

    Decided once a run. A network without such places, or one that gains little, comes back as it is, and all that is
    made of it stays what it was.
    """
    sites = sites_for(job)
    if not sites:
        return job

    def make(folder: Path) -> None:
        decided = smoothing.decide(job.network, job.calibration, sites, seed=job.seed)
        write_atomically(folder / _DECISIONS, to_json(decided, tuple[Smoothing, ...]))

    names = {site.producer: site.readers for site in sites}
    decided = run.stage(
        "1-smoothing",
        {"samples": len(job.calibration), "seed": job.seed, "sites": names},
        make,
        lambda folder: from_json(tuple[Smoothing, ...], (folder / _DECISIONS).read_text()),
    )
    moved = tuple(one for one in decided if one.scale)
    return replace(job, network=smoothing.smoothed(job.network, moved), smoothing=moved) if moved else job


def sites_for(job: Job) -> tuple[Site, ...]:
    """The layer normalisations that only layers read which the target runs on int8, and none that the rules keep.

    Between convolutions there is little to gain: scale follows the weights there, and each channel has its own.
    """
    # Names that match nothing are refused once the table is there.
    kept = Addressing(job.rules, {layer.name: layer.kind for layer in job.network.layers}, {}).untouched
    return tuple(
        site
        for site in sites_of(job.network)
        if type(job.network.module.get_submodule(site.producer)) is nn.LayerNorm
        and all(name not in kept and _on_int8(job, name) for name in site.readers)
    )


def _on_int8(job: Job, name: str) -> bool:
    """Whether one of the run's methods offers static int8 for a layer on the target."""
    subject = neutral_subject(job.network.layer(name), job.network.module.get_submodule(name), job.capability)
    return any(
        dict(settings) == _INT8.settings
        for method in job.methods
        if method.name == _INT8.method
        for settings in method.options(subject)[0]
    )
