"""A metric of the user's own, and everything that can be wrong with it."""

from __future__ import annotations

import textwrap

import numpy as np
import pytest
import torch

from featherweight.contracts import DataError
from featherweight.tasks import metric_by_name, own_metric

RANDOM = np.random.default_rng(0)
TARGETS = RANDOM.normal(size=50)
OUTPUTS = TARGETS + 0.1 * RANDOM.normal(size=50)


@pytest.fixture
def functions(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        textwrap.dedent("""
            import numpy as np

            def closeness(outputs, targets): return -np.abs(outputs - targets)
            def spread(outputs, targets): return float(np.std(outputs - targets))
            spread.higher_is_better = False
            def one(outputs): return 1.0
            def unclear(outputs, targets): return 1.0
            unclear.higher_is_better = "maybe"
        """)
    )
    return str(path)


def test_by_name(functions):
    closeness, spread = (metric_by_name(f"{functions}:{name}") for name in ("closeness", "spread"))
    assert (closeness.name, closeness.higher_is_better, spread.higher_is_better) == ("closeness", True, False)
    np.testing.assert_array_equal(closeness.scores_or_value(OUTPUTS, TARGETS), -np.abs(OUTPUTS - TARGETS))
    assert spread.value(OUTPUTS, TARGETS) == np.std(OUTPUTS - TARGETS)
    assert metric_by_name(f"{functions}:closeness", higher_is_better=False).sign == -1
    assert closeness.digest != spread.digest


@pytest.mark.parametrize(
    ("suffix", "told"), [("one", "with 2 arguments"), ("absent", "must name a function"), ("unclear", "True or False")]
)
def test_functions_that_are_no_metrics(functions, suffix, told):
    with pytest.raises(DataError, match=told):
        metric_by_name(f"{functions}:{suffix}")


def fails(outputs, targets):
    raise KeyError("weights")


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (fails, "KeyError"),
        (lambda outputs, targets: float("nan"), "must be finite"),
        (lambda outputs, targets: np.where(outputs > 0, np.inf, 1.0), "of 50 numbers that are NaN or infinite"),
        (lambda outputs, targets: outputs[:-1], "one number, or one for every sample"),
        (lambda outputs, targets: np.ones((50, 2)), "one number, or one for every sample"),
        (lambda outputs, targets: "good", "one number, or one for every sample"),
        (lambda outputs, targets: None, "one number, or one for every sample"),
        (lambda outputs, targets: 1 + 2j, "one number, or one for every sample"),
    ],
)
def test_what_comes_out_is_checked(function, told):
    with pytest.raises(DataError, match=told):
        own_metric(function, "mine").scores_or_value(OUTPUTS, TARGETS)


def test_tensors_and_single_numbers_in_arrays_count():
    assert own_metric(lambda outputs, targets: torch.tensor(2.0)).value(OUTPUTS, TARGETS) == 2.0
    assert own_metric(lambda outputs, targets: [3.0]).scores_or_value(OUTPUTS, TARGETS).shape == ()


def test_the_direction_is_checked_against_shuffled_outputs():
    own_metric(lambda outputs, targets: -np.abs(outputs - targets)).check_direction(OUTPUTS, TARGETS)
    own_metric(lambda o, t: np.abs(o - t).mean(), higher_is_better=False).check_direction(OUTPUTS, TARGETS)
    with pytest.raises(DataError, match="say that lower is better"):
        own_metric(lambda outputs, targets: np.abs(outputs - targets)).check_direction(OUTPUTS, TARGETS)
    with pytest.raises(DataError, match="never moves"):
        own_metric(lambda outputs, targets: 1.0).check_direction(OUTPUTS, TARGETS)
    chance = np.random.default_rng(0)
    with pytest.raises(DataError, match="the same twice"):
        own_metric(lambda outputs, targets: chance.random()).check_direction(OUTPUTS, TARGETS)
