"""From a layer's error to the network's divergence: a few measured anchors, and a monotone curve through them.

Near zero both are quadratic in the perturbation, so divergence is proportional to error. Far from zero it is not: the
rank that cuts off a class's direction costs far more than its share of the energy. So a few options of every layer are
measured alone in the network, and all others are read off the curve between them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_SMALLEST = 1e-12


def spread_anchors(errors: Sequence[float], count: int) -> list[int]:
    """Which options to measure: those at even shares of the ranking by error, the worst one always among them.

    Args:
        errors: of all options, 0 or more; those without error need no measuring.
        count: how many to choose at most.

    Returns:
        Numbers of options by rising error; fewer where errors are much alike.
    """
    ranked = [index for index in np.argsort(np.asarray(errors), kind="stable").tolist() if errors[index] > 0.0]
    if not ranked:
        return []
    places = sorted({round(len(ranked) * (step + 1) / count) - 1 for step in range(count)} - {-1})
    chosen: list[int] = []
    for place in reversed(places):
        if not chosen or errors[ranked[place]] < errors[chosen[-1]] / 1.5:
            chosen.append(ranked[place])
    return chosen[::-1]


def divergence_curve(anchors: Sequence[float], divergences: Sequence[float], errors: Sequence[float]) -> np.ndarray:
    """Divergences of all options from those of a few.

    Straight lines between anchors in the logarithms of both; proportional below the first and above the last. Measured
    divergences that fall while the error rises are noise and are raised to the one before, so the curve is monotone.

    Args:
        anchors: errors that were measured, rising, all positive.
        divergences: what they did to the network's outputs.
        errors: of all options.

    Returns:
        A divergence for every error; 0 where the error is 0.
    """
    wanted = np.asarray(errors, dtype=float)
    if not len(anchors):
        return np.zeros_like(wanted)
    x = np.log(np.asarray(anchors, dtype=float))
    y = np.log(np.maximum.accumulate(np.maximum(divergences, _SMALLEST)))
    at = np.log(np.maximum(wanted, np.finfo(float).tiny))
    inside = np.interp(at, x, y)
    below, above = y[0] + (at - x[0]), y[-1] + (at - x[-1])
    curve = np.exp(np.where(at < x[0], below, np.where(at > x[-1], above, inside)))
    return np.where(wanted > 0.0, curve, 0.0)
