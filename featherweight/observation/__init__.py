"""The calibration passes: Gram matrices, ranges, and the walk of dense and compressed side by side."""

from featherweight.observation.evidence import Evidence, LayerEvidence, observe
from featherweight.observation.ranges import observe_ranges
from featherweight.observation.walk import Passage, walk

__all__ = ["Evidence", "LayerEvidence", "Passage", "observe", "observe_ranges", "walk"]
