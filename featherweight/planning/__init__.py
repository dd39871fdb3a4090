"""Planning: the table of options, the exact choice under a goal, and the reasoning of the correction loop."""

from featherweight.planning.allocate import allocate, cheapest, gentlest
from featherweight.planning.correction import Trial, next_budget, starting_budget
from featherweight.planning.table import build_table

__all__ = ["Trial", "allocate", "build_table", "cheapest", "gentlest", "next_budget", "starting_budget"]
