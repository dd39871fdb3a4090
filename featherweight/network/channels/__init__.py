"""Coupled channels: abstract interpretation of the ATen graph with a label on every index of every axis."""

from featherweight.network.channels.analysis import analyse
from featherweight.network.channels.units import ChannelUnit, Coupling, Cut, LayerChannels, Removals, Slice

__all__ = ["ChannelUnit", "Coupling", "Cut", "LayerChannels", "Removals", "Slice", "analyse"]
