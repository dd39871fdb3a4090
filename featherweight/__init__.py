"""Featherweight makes a trained neural network small and fast, and proves what that cost.

The public API is what stands here, and nothing else::

    import featherweight as fw

    outcome = fw.compress(model, {"train": (x, y), "validation": ..., "test": ...}, fw.Goal(max_drop=0.01), "litert")
    print(outcome.verdict, outcome.artefact, outcome.report)

A name is loaded when it is asked for first: the command can answer Ctrl-C before torch begins to load.
"""

import importlib
import typing

__version__ = "0.1.0"

if typing.TYPE_CHECKING:
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

_HOMES = {
    "contracts": ("Certificate", "FeatherweightError", "Goal", "Plan", "Refusal", "Step"),
    "network": ("Network", "capture"),
    "pipeline": ("Outcome",),
    "planning.rules.rule": ("Rules",),
    "targets": ("Target", "target_by_name"),
    "tasks": ("Data", "Split", "Task"),
}


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if not typing.TYPE_CHECKING:  # a checker would take every name for one of ours

    def __getattr__(name: str) -> object:
        """A public name, from where it is made."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        home = next((module for module, names in _HOMES.items() if name in names), "api")
        found = globals()[name] = getattr(importlib.import_module(f"{__name__}.{home}"), name)
        return found
