"""A tour of the house in ten stops: one small network walks down the layers, from a module to a proven file.

Run it from the repository's root: ``python docs/tour.py``. Every stop prints one figure and names the one file to open
there. It takes under a minute, and most of that goes to the single LiteRT conversion at stop 8.
"""

from __future__ import annotations

import sys
import tempfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from featherweight.audit.verify import verify
from featherweight.contracts import Goal, Refusal
from featherweight.demo import digits
from featherweight.methods import METHODS
from featherweight.methods.apply import apply
from featherweight.methods.lowrank import LowRank
from featherweight.methods.seam import Settings, Subject, subject_of
from featherweight.network import capture, fold_batch_norm
from featherweight.network.grids import with_grids
from featherweight.network.modules import bias_of, set_bias, set_weight, weight_of
from featherweight.network.surgery import Slim
from featherweight.numerics.gram import output_error
from featherweight.observation import observe
from featherweight.planning import allocate, build_table
from featherweight.planning.plans import plan_of
from featherweight.recovery import recover
from featherweight.targets import target_by_name
from featherweight.tasks import CLASSIFICATION


def stop(number: int, title: str, figure: str, file: str) -> None:
    """Print a stop: what happens there, its figure, and the file to open."""
    sys.stdout.write(f"{number:2}. {title}\n      {figure}\n      open {file}\n")


# Before the tour: an ordinary network, trained in an ordinary way on scikit-learn's handwritten digits.
torch.manual_seed(0)
layers: OrderedDict[str, nn.Module] = OrderedDict(
    strokes=nn.Conv2d(1, 16, 3, padding=1), norm=nn.BatchNorm2d(16), relu=nn.ReLU(), pool=nn.MaxPool2d(2),
    flat=nn.Flatten(), hidden=nn.Linear(256, 128), bend=nn.ReLU(), scores=nn.Linear(128, 10),
)  # fmt: skip
module = nn.Sequential(layers)
data = digits()
training = data.train.take(range(len(data.train)))
images, labels = training.inputs[0], torch.as_tensor(training.labels)
optimizer = torch.optim.AdamW(module.parameters(), lr=3e-3)
for _ in range(20):
    for rows in torch.randperm(len(images)).split(50):
        optimizer.zero_grad()
        functional.cross_entropy(module(images[rows]), labels[rows]).backward()
        optimizer.step()

# 1. Capture: a copy of the module, its ATen graph, and what every layer costs. Batch normalisation is folded at once,
#    so that what is measured from here on is what ships.
network = fold_batch_norm(capture(module.eval(), images[:2]))
stop(
    1,
    "A module becomes a network: graph, layers, costs",
    f"{network.cost.macs:,} multiply-accumulates for one image",
    "featherweight/network/capture.py",
)

# 2. Observe: one pass over unlabelled samples keeps, for every layer, the Gram matrix of its inputs.
seen = observe(network, data.train)
hidden = network.module.get_submodule("hidden")
covariance = seen.layers["hidden"].covariance
energy = torch.linalg.eigvalsh(covariance[0]).flip(0).cumsum(0)
directions = int((energy < 0.9 * energy[-1]).sum()) + 1
stop(
    2,
    "One pass over unlabelled samples shows where the inputs of a layer lie",
    f"{directions} of {len(energy)} directions hold 90 % of the energy",
    "featherweight/observation/evidence.py",
)

# 3. Predict: the error of any replacement W + D is tr(D C Dᵀ), without running anything.
difference = 0.01 * torch.randn_like(weight_of(hidden))
predicted = output_error(difference[None], covariance)
inputs = network.module[:5](images) @ difference.T  # type: ignore[index]
measured = float(inputs.double().var(0, correction=0).sum())
stop(
    3,
    "The Gram matrix predicts the error of any replacement, in closed form",
    f"predicted / measured = {predicted / measured:.6f}",
    "featherweight/numerics/gram.py",
)

# 4. Be refused: what can't be done is a value with a reason, and ends up in the report.
target = target_by_name("litert")
evidence, layer = seen.layers["scores"], network.layer("scores")
subject = subject_of(
    layer, network.module.get_submodule("scores"), evidence.covariance, evidence.mean, 0.0, target.capability
)
_, refusals = LowRank().options(subject)
stop(
    4,
    f"{refusals[0].action} is refused on {refusals[0].subject!r}: {refusals[0].reason}",
    f"{len(refusals)} refusal",
    "featherweight/methods/lowrank.py",
)

# 5. The table: all options of all families for every layer, each with its cost and what it does to the outputs.
#    (A real run takes the whole file's bytes from the original's file; the weights' bytes do for a tour.)
whole = network.cost.size_bytes
table = build_table(network, seen, data.train, CLASSIFICATION, target.capability, METHODS, whole=network.cost)
stop(
    5,
    "One table holds the options of all families",
    f"{sum(map(len, table.options.values()))} options for {len(table.options)} layers",
    "featherweight/planning/table.py",
)

# 6. Allocate: the cheapest choice under a budget of divergence, proven best, over both families at once.
goal = Goal(max_drop=0.02)
choice = allocate(table, goal, budget=1e-3)
if choice is None:
    raise SystemExit("no limit was set, so there is always a choice")
plan = plan_of(network.fingerprint(), target.name, choice, table.fixed)
stop(
    6,
    "The plan is the exact best of that table: "
    + ", ".join(sorted({s.method for o in choice.layers.values() for s in o.steps})),
    f"{plan.predicted['size_bytes']:,.0f} bytes of weights, {whole:,} before",
    "featherweight/planning/allocate.py",
)

# 7. Apply and recover: layer by layer in execution order, each refit to what the dense network puts out there; then
#    the grids of the activations. The graph that comes out both simulates the file and is lowered to it.
small = apply(network, plan, data.train, target.capability, METHODS)
ready = recover(Slim.whole(network), small, data.train, target)
with torch.no_grad():
    few = data.validation.take(range(len(data.validation))).inputs
    before, simulated = network.module(*few).numpy(), with_grids(ready)(*few).numpy()
stop(
    7,
    "The plan is applied, and repaired as it goes",
    f"{CLASSIFICATION.divergence(before, simulated):.5f} nats between the answers of both",
    "featherweight/methods/apply.py",
)

# 8. Lower: a file for the runtime. Its kernels are counted, its weights are looked up in it, and it is run.
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / f"tour{target.suffix}"
    artefact = target.lower(ready, path)
    run = target.load(path)
stop(
    8,
    "A file that runs in LiteRT: " + ", ".join(f"{count} {name}" for name, count in artefact.operators.items()),
    f"{artefact.size_bytes:,} bytes",
    "featherweight/targets/litert/lower.py",
)


# 9. Verify: two callables and test data that nobody has looked at so far. How they were made can't be seen from here,
#    so the original may as well run in PyTorch.
def original(batch: tuple[np.ndarray, ...]) -> np.ndarray:
    """The network as it was before."""
    with torch.no_grad():
        return module(*map(torch.as_tensor, batch)).numpy()


certificate = verify(original, run, data.test, CLASSIFICATION, goal)
stop(
    9,
    "The file is proven on test data, against the original",
    certificate.statement,
    "featherweight/audit/certificate.py",
)


# 10. A method of your own: fifteen lines. This toy factorises without looking at the data, and the table shows what
#     that costs beside the whitened factorisation of the same rank.
class PlainSVD:
    """The two factors of the plain singular value decomposition."""

    name, follows = "plain-svd", frozenset[str]()

    def options(self, subject: Subject) -> tuple[list[Settings], list[Refusal]]:  # noqa: D102
        if subject.layer.kind == "linear" and min(subject.weight.shape[1:]) > 8:
            return [{"rank": 8}], []
        return [], [Refusal(subject.layer.name, self.name, "this toy wants a linear layer with more than 8 outputs")]

    def apply(self, subject: Subject, settings: Settings) -> nn.Module:  # noqa: D102
        left, sizes, right = torch.linalg.svd(subject.weight[0], full_matrices=False)
        rank, bias = int(settings["rank"]), bias_of(subject.module)
        inner, outer = nn.Linear(right.shape[1], rank, bias=False), nn.Linear(rank, len(left))
        set_weight(inner, right[:rank])
        set_weight(outer, left[:, :rank] * sizes[:rank])
        set_bias(outer, torch.zeros(len(left)) if bias is None else bias)
        return nn.Sequential(inner, outer)


grown = build_table(
    network, seen, data.train, CLASSIFICATION, target.capability, (*METHODS, PlainSVD()), whole=network.cost
)
errors = {str(option.steps[0]): option.error for option in grown.options["hidden"] if len(option.steps) == 1}
stop(
    10,
    "A method of your own goes through the same table",
    f"{errors['plain-svd(rank=8)'] / errors['lowrank(rank=8)']:.1f} times the error of the one that sees the data",
    "featherweight/methods/seam.py",
)
