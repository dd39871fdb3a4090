"""The advisor: what would help a network on a target and what would not, before anything is spent, and why."""

from featherweight.advice.advisor import Advised, advise
from featherweight.advice.survey import Advice

__all__ = ["Advice", "Advised", "advise"]
