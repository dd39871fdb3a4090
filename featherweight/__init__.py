"""Featherweight makes a trained neural network small and fast, and proves what that cost.

The public API is what stands here, and nothing else::

    import featherweight as fw

    outcome = fw.compress(model, {"train": (x, y), "validation": ..., "test": ...}, fw.Goal(max_drop=0.01), "litert")
    print(outcome.verdict, outcome.artefact, outcome.report)
"""

__version__ = "0.1.0"

from featherweight.api import (
    advise,
    apply,
    compress,
    inspect,
    load_data,
    load_model,
    plan,
    quantize,
    read_plan,
    read_rules,
    recalibrate,
    verify,
)
from featherweight.contracts import Certificate, FeatherweightError, Goal, Plan, Refusal, Step
from featherweight.network import Network, capture
from featherweight.pipeline import Outcome
from featherweight.planning.rules.rule import Rules
from featherweight.targets import Target, target_by_name
from featherweight.tasks import Data, Split, Task

__all__ = [
    "Certificate",
    "Data",
    "FeatherweightError",
    "Goal",
    "Network",
    "Outcome",
    "Plan",
    "Refusal",
    "Rules",
    "Split",
    "Step",
    "Target",
    "Task",
    "advise",
    "apply",
    "capture",
    "compress",
    "inspect",
    "load_data",
    "load_model",
    "plan",
    "quantize",
    "read_plan",
    "read_rules",
    "recalibrate",
    "target_by_name",
    "verify",
]
