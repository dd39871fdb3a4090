"""Churn: how many answers changed, and which way. Two networks can be right equally often on different samples."""

from __future__ import annotations

import numpy as np

from featherweight.contracts import Churn


def churn_of(before: np.ndarray, after: np.ndarray, labels: np.ndarray) -> Churn:
    """Changed answers by what they were and what they became.

    Args:
        before, after: answers of the original and of the artefact, (n,) or (n, …); a sample's answer counts as a whole.
        labels: the right answers, of the same shape.
    """
    rows = len(labels)
    before, after, labels = (part.reshape(rows, -1) for part in (before, after, labels))
    changed = (before != after).any(axis=1)
    was, now = ((part == labels).all(axis=1) for part in (before, after))
    return Churn(
        samples=rows,
        changed=int(changed.sum()),
        lost=int((was & ~now).sum()),
        gained=int((~was & now).sum()),
        both_wrong=int((changed & ~was & ~now).sum()),
    )
