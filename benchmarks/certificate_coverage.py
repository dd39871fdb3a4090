"""How often the bounds of ``featherweight.audit`` hold, and how sharp they are, to a JSON file in ``results``.

For 0/1 metrics the coverage of a rule is summed over all outcomes that matter (their probability is trinomial), for
Newcombe's, which needs the accuracies too, over drawn outcomes. Drops are taken evenly and just above the bounds of
outcomes that are likely, where coverage is lowest. For other metrics differences are drawn; for figures of a whole
set, limits relative to the original and several groups at once, whole studies are.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from scipy.special import gammaln, xlogy

from featherweight.audit import resampling
from featherweight.audit.bounds import MOST_EXACT, answers_bound, bootstrap, newcombe, shares_bound, tango
from featherweight.audit.exact import Floats, exact, lower_share, upper_share
from featherweight.audit.measure import bounded
from featherweight.contracts import DataError
from featherweight.tasks.metrics import METRICS, SetMetric

CONFIDENCE = 0.95
SAMPLES = (50, 200, 1_000, 10_000)
GAINED = (0.0, 0.001, 0.003, 0.01, 0.03)
DROPS = np.linspace(0.0, 0.05, 26)
ACCURACIES = (0.6, 0.9, 0.99, 0.999)
REACH = 5.0  # standard deviations of a count that are summed over
EXACT_LIMIT = 10  # expected gained answers up to which exact bounds are summed: each costs some hundredths of a second
DRAWS = 20_000
RESULT = Path(__file__).parent / "results" / "certificate_coverage.json"

Rule = Callable[[int, int, int], float]


@dataclass(frozen=True)
class Setting:
    """The truth: samples, and the shares of answers that are lost and gained."""

    samples: int
    lost: float
    gained: float

    @property
    def drop(self) -> float:
        """The true drop."""
        return self.lost - self.gained


def counts(samples: int, share: float) -> np.ndarray:
    """The counts within ``REACH`` standard deviations of their mean."""
    mean, spread = samples * share, math.sqrt(samples * share)
    return np.arange(
        max(0, int(mean - REACH * spread)), min(samples, int(mean + REACH * spread + 8.0 * (share > 0))) + 1
    )


def probabilities(setting: Setting, lost: np.ndarray, gained: np.ndarray) -> Floats:
    """Trinomial probabilities, shape (lost, gained)."""
    b, c, n = lost[:, None].astype(float), gained[None].astype(float), float(setting.samples)
    same = np.maximum(n - b - c, 0.0)
    logs = gammaln(n + 1) - gammaln(b + 1) - gammaln(c + 1) - gammaln(same + 1)
    logs += xlogy(b, setting.lost) + xlogy(c, setting.gained) + xlogy(same, 1.0 - setting.lost - setting.gained)
    return np.where(b + c <= n, np.exp(logs), 0.0)


def coverage_of_table(setting: Setting, table: Floats) -> float:
    """Coverage of a bound whose value for every outcome is known, shape (lost, gained)."""
    lost, gained = counts(setting.samples, setting.lost), counts(setting.samples, setting.gained)
    missed = table[np.ix_(lost, gained)] < setting.drop
    return 1.0 - float(np.sum(probabilities(setting, lost, gained) * missed))


def coverage_of_steps(setting: Setting, rule: Rule) -> float:
    """Coverage of a bound that rises with lost and falls with gained answers, from the step between the two regions."""
    lost, gained = counts(setting.samples, setting.lost), counts(setting.samples, setting.gained)
    chances, missed = probabilities(setting, lost, gained), 0.0
    for column, count in enumerate(gained.tolist()):
        room = setting.samples - count
        fitting = np.arange(min(room, lost[-1]) + 1)  # Tango's step is near
        first = int(np.sum(tango(fitting, np.full(fitting.size, count), setting.samples, CONFIDENCE) < setting.drop))
        while first > 0 and rule(first - 1, count, setting.samples) >= setting.drop:
            first -= 1
        while first <= room and rule(first, count, setting.samples) < setting.drop:
            first += 1
        missed += float(chances[lost < first, column].sum())
    return 1.0 - missed


def coverage_by_drawing(setting: Setting, accuracy: float, random: np.random.Generator) -> float:
    """Coverage of Newcombe's bound over drawn outcomes."""
    shares = np.array([accuracy - setting.lost, setting.lost, setting.gained, 1.0 - accuracy - setting.gained])
    drawn = random.multinomial(setting.samples, np.maximum(shares, 0.0), DRAWS)
    both_right, lost, gained, both_wrong = drawn.T
    return float(np.mean(newcombe(both_right, lost, gained, both_wrong, CONFIDENCE) >= setting.drop))


def settings(hard: Callable[[int, int, int], float]) -> Iterator[Setting]:
    """Even drops, and drops just above the ``hard`` bound of outcomes with few lost answers."""
    for samples in SAMPLES:
        for gained in GAINED:
            typical = round(samples * gained)
            edges = [hard(typical + more, typical, samples) + 1e-7 for more in range(7)]
            for drop in (*DROPS, *(edge for edge in edges if 0.0 < edge < DROPS[-1])):
                yield Setting(samples, float(drop) + gained, gained)


@cache
def cached_exact(lost: int, gained: int, samples: int) -> float:
    """The exact bound, remembered."""
    return exact(lost, gained, samples, CONFIDENCE)


def default(lost: int, gained: int, samples: int) -> float:
    """The default bound."""
    return answers_bound(lost, gained, samples, CONFIDENCE)[0]


def clopper_pearson_table(lost: np.ndarray, gained: np.ndarray, samples: int) -> Floats:
    """Clopper-Pearson's bound of the lost share, which the drop can't exceed."""
    return upper_share(lost, samples, CONFIDENCE) + 0.0 * gained


def tango_table(lost: np.ndarray, gained: np.ndarray, samples: int) -> Floats:
    """Tango's bound; 1 for impossible outcomes."""
    fitting = lost + gained <= samples
    return np.where(fitting, tango(np.where(fitting, lost, 0), np.where(fitting, gained, 0), samples, CONFIDENCE), 1.0)


def lowest(found: list[tuple[float, Setting]], margin: float, how: str) -> dict[str, object]:
    """A rule's row: its lowest coverage, where that is, and its margin."""
    coverage, setting = min(found, key=lambda one: one[0])
    at = {"samples": setting.samples, "drop": round(setting.drop, 5), "gained": setting.gained}
    return {
        "lowest_coverage": round(coverage, 4),
        "at": at,
        "settings": len(found),
        "coverage": how,
        "margin": margin,
    }


def margin(bound: Callable[[int, int, int], float]) -> float:
    """Mean distance of a bound from the observed drop, relative to the exact bound's, over typical outcomes."""
    outcomes = [(b, c, n) for n in (200, 1_000, 10_000) for b in (0, 1, 3, 10, 30) for c in (0, 1, 3, 10)]
    ratios = [(bound(b, c, n) - (b - c) / n) / (cached_exact(b, c, n) - (b - c) / n) for b, c, n in outcomes]
    return round(float(np.mean(ratios)), 3)


def summed(bound: Callable[[np.ndarray, np.ndarray, int], Floats]) -> dict[str, object]:
    """A row for a bound that works on arrays."""
    tables = {}
    for samples in SAMPLES:
        lost, gained = (counts(samples, share)[-1] + 1 for share in (DROPS[-1] + GAINED[-1], GAINED[-1]))
        tables[samples] = bound(np.arange(lost)[:, None], np.arange(gained)[None], samples)

    def one(lost: int, gained: int, samples: int) -> float:
        return float(bound(np.array(lost), np.array(gained), samples))

    found = [(coverage_of_table(setting, tables[setting.samples]), setting) for setting in settings(one)]
    return lowest(found, margin(one), "summed")


def drawn() -> dict[str, object]:
    """A row for Newcombe's bound."""
    random, found = np.random.default_rng(0), []
    for setting in settings(newcombe_at):
        for accuracy in ACCURACIES:
            if setting.lost <= accuracy and setting.gained <= 1.0 - accuracy + 1e-12:
                found.append((coverage_by_drawing(setting, accuracy, random), setting))
    return lowest(found, margin(newcombe_at), "drawn")


def newcombe_at(lost: int, gained: int, samples: int) -> float:
    """Newcombe's bound where the original is right on nine samples in ten."""
    right = max(0.9 * samples - lost, 0.0)
    return float(newcombe(right, lost, gained, max(samples - right - lost - gained, 0.0), CONFIDENCE))


def beyond_exact() -> list[Setting]:
    """Settings around and beyond the number of discordant answers at which the default bound changes."""
    edges = [float(tango(lost, 0, 10_000, CONFIDENCE)) + 1e-7 for lost in (MOST_EXACT + 1, MOST_EXACT + 40)]
    return [Setting(10_000, 0.045, 0.003), Setting(10_000, 0.08, 0.03), *(Setting(10_000, edge, 0.0) for edge in edges)]


def answers() -> dict[str, dict[str, object]]:
    """A row for every rule for 0/1 metrics."""
    few = [
        one
        for place, one in enumerate(settings(cached_exact))
        if one.samples * one.gained <= EXACT_LIMIT
        and one.samples * (one.lost + one.gained) <= MOST_EXACT - 100
        and (one.samples < 1_000 or place % 9 == 0)
    ]
    exactly = [(coverage_of_steps(one, cached_exact), one) for one in few]
    beyond = [(coverage_of_steps(one, default), one) for one in beyond_exact()]
    return {
        "clopper-pearson": summed(clopper_pearson_table),
        "newcombe": drawn(),
        "tango": summed(tango_table),
        "exact": lowest(exactly, margin(cached_exact), "summed"),
        "default": lowest([*exactly, *beyond], margin(default), "summed"),  # exact where few answers are discordant
    }


def differences() -> dict[str, dict[str, float]]:
    """Coverage of the bootstrap for drawn differences of several shapes; its own error is about half a point."""
    random, repeats = np.random.default_rng(0), 1_500
    shapes: dict[str, tuple[float, Callable[[int], Floats]]] = {
        "normal": (0.0, lambda n: random.normal(size=n)),
        "exponential": (1.0, lambda n: random.exponential(size=n)),
        "lognormal": (math.exp(0.5), lambda n: random.lognormal(size=n)),
        "half zero, half exponential": (0.5, lambda n: random.exponential(size=n) * (random.random(n) < 0.5)),
    }
    rows: dict[str, dict[str, float]] = {}
    for name, (mean, draw) in shapes.items():
        rows[name] = {}
        for samples in (80, 240):
            held = [bootstrap(draw(samples), CONFIDENCE, seed, resamples=499) >= mean for seed in range(repeats)]
            rows[name][str(samples)] = round(float(np.mean(held)), 3)
    return rows


STUDIES = 2_000
RESAMPLES_OF_A_STUDY = 199  # instead of 999: their own luck is in every study, and averages out over so many


@dataclass(frozen=True)
class World:
    """Where studies of a figure of a set are drawn from: Gaussian logits, and an artefact that blurs them.

    Attributes:
        metric: its name.
        priors: of the classes.
        apart: what the right logit has more, in standard deviations.
        blur: standard deviation of what the artefact adds.
    """

    metric: str
    priors: tuple[float, ...]
    apart: float
    blur: float

    def draw(self, samples: int, random: np.random.Generator) -> tuple[Floats, Floats, np.ndarray]:
        """Outputs of both, and labels."""
        labels = random.choice(len(self.priors), size=samples, p=self.priors)
        before = random.normal(size=(samples, len(self.priors)))
        before[np.arange(samples), labels] += self.apart
        after = before + self.blur * random.normal(size=before.shape)
        after[np.arange(samples), labels] -= 0.3 * self.blur
        return before, after, labels

    def truth(self) -> float:
        """The drop in two million samples."""
        metric, random, found = METRICS[self.metric], np.random.default_rng(99), []
        assert isinstance(metric, SetMetric)
        for _ in range(20):
            before, after, labels = self.draw(100_000, random)
            found.append(metric.sign * (metric.value(before, labels) - metric.value(after, labels))[0])
        return float(np.mean(found))


_UNEVEN, _RARE = (0.6, 0.3, 0.1), (0.85, 0.15)
WORLDS = (
    (World("f1", _UNEVEN, 2.0, 0.5), (150, 300, 600)),
    (World("f1", (0.1,) * 10, 2.0, 0.5), (100, 300)),
    (World("f1-binary", _RARE, 2.0, 0.5), (300, 500)),
    (World("auc", _RARE, 2.0, 0.5), (200, 400)),
    (World("auc", _RARE, 3.5, 1.0), (300,)),
    (World("auc", _UNEVEN, 2.0, 0.5), (150,)),
    (World("map", _UNEVEN, 2.0, 0.5), (150,)),
    (World("perplexity", _UNEVEN, 2.0, 0.5), (100, 300, 1_000)),
)


def figures() -> dict[str, dict[str, object]]:
    """Coverage of the bounds on figures of a set; studies that are refused make no claim and don't count."""
    rows: dict[str, dict[str, object]] = {}
    resampling.RESAMPLES = RESAMPLES_OF_A_STUDY
    for world, sizes in WORLDS:
        truth = world.truth()
        for samples in sizes:
            random, held, margins, refused = np.random.default_rng(samples), [], [], 0
            for _ in range(STUDIES):
                before, after, labels = world.draw(samples, random)
                try:
                    bound = bounded(METRICS[world.metric], (before, after), labels, CONFIDENCE)[2]
                except DataError:
                    refused += 1
                    continue
                held.append(bound.upper >= truth)
                margins.append(bound.upper - bound.drop)
            name = f"{world.metric}, {len(world.priors)} classes, {world.apart} apart, {samples} samples"
            rows[name] = {
                "coverage": round(float(np.mean(held)), 4),
                "drop": round(truth, 4),
                "median_margin": round(float(np.median(margins)), 4),
                "refused": refused,
            }
            print(f"{name}: {rows[name]}", flush=True)
    return rows


def shares() -> dict[str, float]:
    """How often relative limits let through what just breaks them, and how often every group's bound holds."""
    random, studies, allowed = np.random.default_rng(0), 20_000, 0.05
    rows: dict[str, float] = {}
    for samples, level in ((200, 0.6), (1_000, 0.9)):
        right = random.binomial(samples, level, studies)
        lost = random.binomial(right, allowed)
        through = [
            shares_bound(b, 0, samples, 1.0 - 0.9 * 0.05)[0] <= allowed * lower_share(r, samples, 1.0 - 0.1 * 0.05)
            for b, r in zip(lost.tolist(), right.tolist(), strict=True)
        ]
        rows[f"relative, {samples} samples, {level}"] = round(1.0 - float(np.mean(through)), 4)
    for groups, members in ((10, 100), (50, 40)):
        drawn = random.multinomial(members, (0.10, 0.02, 0.88), size=(STUDIES, groups)).reshape(-1, 3)
        uppers = [shares_bound(b, c, members, 1.0 - 0.05 / groups)[0] for b, c, _ in drawn.tolist()]
        held = (np.reshape(uppers, (STUDIES, groups)) >= 0.08).all(axis=1)
        rows[f"all of {groups} groups of {members}"] = round(float(held.mean()), 4)
    return rows


def main() -> None:
    """Measure, print and write."""
    began = time.perf_counter()
    result = {"confidence": CONFIDENCE, "answers": answers(), "bootstrap": differences(), "shares": shares()}
    result["figures"] = figures()
    for name, row in result["answers"].items():
        print(f"{name:16} lowest coverage {row['lowest_coverage']:.4f} at {row['at']}, margin {row['margin']:.3f}")
    for name, row in result["bootstrap"].items():
        print(f"bootstrap, {name}: {row}")
    RESULT.parent.mkdir(exist_ok=True)
    draft = RESULT.with_suffix(".draft")
    draft.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    os.replace(draft, RESULT)
    print(f"{RESULT.name} written after {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
