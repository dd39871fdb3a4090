"""The closed-form bound for 0/1 scores, and how many resamples suit a confidence."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, multinomial

from featherweight.audit.bounds import RESAMPLES, bootstrap, resamples_for, shares_bound
from featherweight.contracts import DataError


@given(st.integers(0, 20), st.integers(0, 20), st.integers(40, 300), st.sampled_from([0.9, 0.95, 0.999]))
def test_it_is_made_of_two_exact_limits(lost, gained, samples, confidence):
    error = 1 - confidence
    upper, name = shares_bound(lost, gained, samples, confidence)
    most = binomtest(lost, samples, alternative="less").proportion_ci(1 - 0.9 * error, "exact").high
    least = binomtest(gained, samples, alternative="greater").proportion_ci(1 - 0.1 * error, "exact").low
    assert name == "shares"
    assert upper == pytest.approx(most - least, rel=1e-9)
    assert upper > (lost - gained) / samples


@pytest.mark.parametrize(("lost", "gained"), [(0.1, 0.0), (0.05, 0.02), (0.3, 0.2), (0.02, 0.4)])
def test_it_covers_whatever_the_shares(lost, gained):
    """Summed over every outcome of 30 samples."""
    counts = [(b, c) for b in range(31) for c in range(31 - b)]
    chances = multinomial.pmf([(b, c, 30 - b - c) for b, c in counts], 30, [lost, gained, 1 - lost - gained])
    held = [shares_bound(b, c, 30, 0.95)[0] >= lost - gained for b, c in counts]
    assert np.sum(chances * held) >= 0.95


def test_counts_that_cannot_be_are_refused():
    with pytest.raises(DataError):
        shares_bound(6, 6, 10, 0.95)


def test_a_high_confidence_gets_the_resamples_that_it_needs():
    assert resamples_for(500, 0.95) == RESAMPLES
    assert resamples_for(50_000, 0.95) < RESAMPLES
    assert resamples_for(500, 0.9998) == 50_000
    differences = np.random.default_rng(0).normal(size=60)
    bounds = [bootstrap(differences, confidence) for confidence in (0.95, 0.999, 0.9995)]
    assert bounds == sorted(bounds)
