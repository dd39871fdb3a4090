"""Capture, folding, encodings and cost: a module, its ATen graph, and what ties the two together."""

from featherweight.network.capture import Layer, Network, capture
from featherweight.network.folding import fold_batch_norm

__all__ = ["Layer", "Network", "capture", "fold_batch_norm"]
