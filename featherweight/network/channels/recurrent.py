"""Recurrent layers: hidden unit k owns row k of every gate, column k of the recurrent weight, and output k.

One module has one hidden size, so the k-th units of all its layers and directions go together. With gates ``G`` (4 for
LSTM, 3 for GRU, 1 for plain cells), hidden size ``H``, ``D`` directions and input size ``I``:
``W_ih`` (G H, I or D H), ``W_hh`` (G H, H), biases (G H); output (…, D H); states (layers · D, batch, H).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from featherweight.network.channels.trace import Call, Result, Rules, Trace
from featherweight.network.labels import Axis, Value


def _recurrent(trace: Trace, call: Call) -> Result:
    if not isinstance(call.arguments.get("params"), (list, tuple)) or "batch_sizes" in call.arguments:
        return _refuse(trace, call, "runs over packed sequences")
    value: Value = call["input"]
    parameters: Sequence[Value] = call["params"]
    step = 4 if call["has_biases"] else 2
    directions = 2 if call["bidirectional"] else 1
    cells = [parameters[start : start + step] for start in range(0, len(parameters), step)]
    if len(cells) != call["num_layers"] * directions or any(cell[1].ndim != 2 for cell in cells):
        return _refuse(trace, call, "projects its hidden state")
    hidden = trace.fresh(cells[0][1].sizes[1])
    for number, cell in enumerate(cells):
        source = value.axes[-1] if number < directions else Axis(hidden.labels, outer=directions)
        _cell(trace, call, cell, source, hidden)
    states = [call["hx"]] if isinstance(call["hx"], Value) else list(call["hx"])
    for state in states:
        trace.join(call, state.axes[-1], hidden)
    output = Axis(hidden.labels, outer=directions)
    trace.port(call, "params", "input", cells[0][0].axes[1])
    trace.port(call, "params", "output", output)
    return list(_results(call, value, states, output, hidden))


def _cell(trace: Trace, call: Call, cell: Sequence[Value], source: Axis | None, hidden: Axis) -> None:
    """Tie one cell's gates to the hidden units and its columns to what it reads."""
    trace.join(call, cell[0].axes[1], source)
    trace.join(call, cell[1].axes[1], hidden)
    gates = cell[0].sizes[0] // len(hidden.labels)
    for parameter in cell:
        trace.join(call, parameter.axes[0], Axis(hidden.labels, outer=gates))


def _results(call: Call, value: Value, states: Sequence[Value], output: Axis, hidden: Axis) -> Iterator[Value]:
    yield Value(call.sizes[0], (*value.axes[:-1], output))
    for sizes, state in zip(call.sizes[1:], states, strict=True):
        yield Value(sizes, (*state.axes[:-1], hidden)[-len(sizes) :])


def _single(trace: Trace, call: Call) -> Result:
    """One step of one cell."""
    cell = [call[name] for name in ("w_ih", "w_hh", "b_ih", "b_hh") if isinstance(call.arguments.get(name), Value)]
    hidden = trace.fresh(cell[1].sizes[1])
    states = [call["hx"]] if isinstance(call["hx"], Value) else list(call["hx"])
    _cell(trace, call, cell, call["input"].axes[-1], hidden)
    for state in states:
        trace.join(call, state.axes[-1], hidden)
    trace.port(call, "w_ih", "input", cell[0].axes[1])
    trace.port(call, "w_ih", "output", hidden)
    results: list[Value] = [Value(sizes, (*call["input"].axes[:-1], hidden)) for sizes in call.sizes]
    return results if len(results) > 1 else results[0]


def _refuse(trace: Trace, call: Call, why: str) -> Result:
    for argument in call.arguments.values():
        for item in argument if isinstance(argument, (list, tuple)) else [argument]:
            if isinstance(item, Value):
                trace.freeze_value(call, item, why)
    return [Value.plain(sizes) for sizes in call.sizes]


RULES: Rules = {
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), _recurrent),
    **dict.fromkeys(("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"), _single),
}
