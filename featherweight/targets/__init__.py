"""The catalogue of targets: one package a runtime, one line here."""

from __future__ import annotations

from featherweight.contracts import TargetError
from featherweight.targets.litert import LiteRT
from featherweight.targets.onnxruntime import OnnxRuntime
from featherweight.targets.seam import Runner, Target

TARGETS: tuple[Target, ...] = (LiteRT(), OnnxRuntime())

__all__ = ["TARGETS", "Runner", "Target", "target_by_name"]


def target_by_name(name: str) -> Target:
    """The target of that name, ready to use.

    Raises:
        TargetError: there is none, or what it needs isn't installed.
    """
    known = {target.name: target for target in TARGETS}
    if name not in known:
        raise TargetError("The target must be one of the catalogue.", repr(name), f"one of: {', '.join(known)}")
    target = known[name]
    missing = target.missing()
    if missing:
        raise TargetError(
            f"The target {name} needs its extra.",
            f"the package {missing} isn't installed",
            f'pip install -e ".[{target.extra}]"',
        )
    return target
