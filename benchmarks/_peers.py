"""What the allocation must never lose to: every family by itself, and taking the best swap at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from featherweight.contracts import Keep, Option, Quantity, Steps, Table


def families(table: Table) -> list[str]:
    """Names of all methods on the table."""
    rows = (*table.options.values(), *table.keeps.values())
    return sorted({step.method for row in rows for one in row for step in one.steps})


def alone(table: Table, family: str) -> Table:
    """The table with options of one family only; whatever can be kept as it is may be."""

    def pure(steps: Steps) -> bool:
        return all(step.method == family for step in steps)

    options = {name: tuple(one for one in row if pure(one.steps)) for name, row in table.options.items()}
    keeps = {name: tuple(one for one in row if pure(one.steps)) for name, row in table.keeps.items()}
    return replace(table, options=options, keeps=keeps)


@dataclass
class _State:
    """A whole plan: an option for every layer, a keep for every unit."""

    table: Table
    quantity: Quantity
    layers: dict[str, Option]
    keeps: dict[str, Keep]

    def cost(self, name: str, option: Option, keeps: dict[str, Keep]) -> float:
        """Of a layer's option at the widths that some keeps leave."""
        lost = [(keep.rows.get(name, 0), keep.columns.get(name, 0)) for keep in keeps.values()]
        rows, columns = sum(one[0] for one in lost), sum(one[1] for one in lost)
        if option.form is None or not (rows or columns):
            return option.cost.of(self.quantity)
        width = self.table.widths[name]
        return option.form.at(width[0] - rows, width[1] - columns).of(self.quantity)

    def total(self) -> float:
        """Of the plan, what is fixed left out."""
        saved = sum(keep.saved.of(self.quantity) for keep in self.keeps.values())
        return sum(self.cost(name, one, self.keeps) for name, one in self.layers.items()) - saved

    def spent(self) -> float:
        """Divergence of the plan."""
        return sum(one.divergence for one in (*self.layers.values(), *self.keeps.values()))

    def swaps(self, room: float) -> Iterator[tuple[float, Option | Keep]]:
        """What saves something and fits, by what it saves for its divergence."""
        for name, row in self.table.options.items():
            now = self.layers[name]
            before = self.cost(name, now, self.keeps)
            for one in row:
                more = one.divergence - now.divergence
                if more <= room and (less := before - self.cost(name, one, self.keeps)) > 1e-9:
                    yield less / max(more, 1e-12), one
        for name, row in self.table.keeps.items():
            now = self.keeps[name]
            for one in row:
                more = one.divergence - now.divergence
                if one is not now and more <= room and (less := self._saving(name, one)) > 1e-9:
                    yield less / max(more, 1e-12), one

    def _saving(self, unit: str, keep: Keep) -> float:
        now = self.keeps[unit]
        after = {**self.keeps, unit: keep}
        touched = {name for one in (now, keep) for name in (*one.rows, *one.columns)}
        less = sum(
            self.cost(n, self.layers[n], self.keeps) - self.cost(n, self.layers[n], after) for n in sorted(touched)
        )
        return less + keep.saved.of(self.quantity) - now.saved.of(self.quantity)


def greedy(table: Table, quantity: Quantity, budget: float) -> float:
    """What is left of a quantity, fixed cost left out, when the best swap that fits is taken until there is none."""
    state = _State(
        table,
        quantity,
        {name: row[0] for name, row in table.options.items()},
        {name: row[0] for name, row in table.keeps.items()},
    )
    while found := max(state.swaps(budget - state.spent()), key=lambda one: one[0], default=None):
        if isinstance(found[1], Keep):
            state.keeps[found[1].unit] = found[1]
        else:
            state.layers[found[1].unit] = found[1]
    return state.total()
