"""How much memory an ``.onnx`` file's activations take at their peak: read off the graph that the runtime runs.

The graph as the runtime rewrites it, with operators fused and on integers, has no shapes between operators; so every
value of it is made an output once, and one sample tells its shape and type. The largest sum of live values, not the
size of the runtime's arenas.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from featherweight.targets.onnxruntime import run

_SHARING = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity"})  # the same bytes, another shape


def peak_bytes(content: bytes) -> int:
    """The largest sum of bytes of live activations over all operators, for one sample."""
    model = run.optimized(content)
    constants = {one.name for one in model.graph.initializer}
    inputs = [one.name for one in model.graph.input if one.name not in constants]
    sizes = _sizes(model, content)
    place = {name: name for name in inputs}  # value → the value whose bytes it lies in
    first = dict.fromkeys(place, 0)
    last = dict.fromkeys(place, 0)
    for step, node in enumerate(model.graph.node):
        reads = [place[name] for name in node.input if name in place]
        if not reads and not any(name in sizes for name in node.output):
            continue
        last.update(dict.fromkeys(reads, step))
        for name in node.output:
            place[name] = reads[0] if node.op_type in _SHARING and reads else name
            first.setdefault(place[name], step)
            last[place[name]] = step
    end = len(model.graph.node)
    last.update({place[one.name]: end for one in model.graph.output if one.name in place})
    alive = [sum(sizes.get(name, 0) for name in first if first[name] <= step <= last[name]) for step in range(end)]
    return max(alive, default=0)


def _sizes(model: Any, content: bytes) -> dict[str, int]:
    """Name of a value → its bytes for one sample, measured: every value is handed out once."""
    import onnx  # noqa: PLC0415
    import onnxruntime  # noqa: PLC0415

    told = onnx.ModelProto.FromString(model.SerializeToString())
    known = {one.name for one in told.graph.output}
    names = [name for node in told.graph.node for name in node.output if name and name not in known]
    told.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    made = run.session(told.SerializeToString(), options)
    given = {one.name: _zeros(one.type.tensor_type) for one in told.graph.input}
    found = made.run(None, given)
    sizes = {one.name: value.nbytes for one, value in zip(made.get_outputs(), found, strict=True)}
    return sizes | {name: value.nbytes for name, value in given.items()}


def _zeros(kind: Any) -> np.ndarray:
    """One sample of an input's shape and type."""
    from onnx import helper  # noqa: PLC0415

    shape = [one.dim_value or 1 for one in kind.shape.dim]
    return np.zeros(shape, helper.tensor_dtype_to_np_dtype(kind.elem_type))
