from __future__ import annotations

import math

import numpy as np

from featherweight.packaging.tables import BUCKET, ESCAPE, RATES, SCALE, SQUASH, STARTS, STRETCH


def test_squash_is_the_logistic_function():
    logit = np.arange(-2048, 2048) / 256
    np.testing.assert_allclose(SQUASH, 65536 / (1 + np.exp(-logit)), atol=1.01)
    assert SQUASH.min() > 0
    assert SQUASH.max() < 65536


def test_stretch_inverts_squash():
    np.testing.assert_allclose(SQUASH[STRETCH[100:-100] + 2048], np.arange(4096)[100:-100] * 16 + 8, atol=70)
    assert (np.diff(STRETCH) >= 0).all()


def test_rates_are_those_of_the_estimator():
    np.testing.assert_allclose(RATES / 65536, 1 / (np.arange(1024) + 1.5), atol=2e-5)


def test_buckets_hold_their_magnitudes():
    assert STARTS.tolist() == [0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192]
    for magnitude in range(ESCAPE + 1):
        assert STARTS[BUCKET[magnitude]] <= magnitude
        assert BUCKET[magnitude] == 15 or magnitude < STARTS[BUCKET[magnitude] + 1]


def test_scales_are_two_to_the_octave():
    for mean in range(0, 16384, 7):
        assert SCALE[mean] == min(23, math.floor(2 * math.log2(1 + mean / 4) + 1e-12))
