"""Planning: the table of options, the exact choice under a goal, and the reasoning of the correction loop."""

from featherweight.planning.allocate import Peak, allocate, cheapest, gentlest, least
from featherweight.planning.correction import Trial, next_budget, starting_budget, tightened
from featherweight.planning.reach import check_reach
from featherweight.planning.table import build_table

__all__ = [
    "Peak",
    "Trial",
    "allocate",
    "build_table",
    "cheapest",
    "check_reach",
    "gentlest",
    "least",
    "next_budget",
    "starting_budget",
    "tightened",
]
