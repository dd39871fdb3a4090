"""Where a value changes its type: put on an integer grid, or taken off one, between layers on different arithmetics.

A layer's own kernel is timed alone, and a network on one arithmetic converts at its ends alone. What a mixed network
takes on top – roundings, other layouts, additions that no kernel computes along – goes with the elements that change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from featherweight.contracts import Choice, Table, describe
from featherweight.network.channels import Coupling
from featherweight.planning.activations import Activations
from featherweight.planning.latency.kernels import Kernels
from featherweight.planning.latency.standin import groups_gone


@dataclass(frozen=True)
class Conversions:
    """What changing types takes in a choice's network; no option's own, so it is no part of the table.

    Attributes:
        activations: of the dense network.
        arithmetics: (layer, steps in words) → what it computes on.
        coupling: the network's coupled channels, where the table has keeps.
        ms_per_element: fitted to whole networks.
    """

    activations: Activations
    arithmetics: Mapping[tuple[str, str], str]
    coupling: Coupling | None = None
    ms_per_element: float = 0.0

    @classmethod
    def of(
        cls,
        table: Table,
        kernels: Mapping[str, Sequence[Kernels]],
        activations: Activations,
        coupling: Coupling | None = None,
    ) -> Conversions:
        """Those of a table whose options run on these kernels; they take no time yet."""
        arithmetics = {
            (name, describe(option.steps)): one[0].family.arithmetic
            for name, row in kernels.items()
            for option, one in zip(table.options[name], row, strict=True)
        }
        return cls(activations, arithmetics, coupling)

    def elements(self, choice: Choice) -> float:
        """Elements of one sample that are put on a grid or taken off one, each as often as it is done."""
        layers = choice.layers.items()
        integer = frozenset(name for name, option in layers if self.arithmetics[name, describe(option.steps)] == "int8")
        gone = groups_gone(choice.keeps, self.coupling) if self.coupling is not None else {}
        gridded, computes = self.activations.types(integer)
        made_integer = gridded & computes[self.activations.made]
        value, reader = np.array(self.activations.values.readers, dtype=np.int64).reshape(-1, 2).T
        read_real = np.zeros_like(gridded)
        read_real[value[~computes[reader]]] = True
        times = (gridded & ~made_integer).astype(float) + (gridded & read_real)
        return float(times @ self.activations.elements(gone))

    def milliseconds(self, choice: Choice) -> float:
        """Time for one sample, on top of the table's."""
        return self.ms_per_element * self.elements(choice)
