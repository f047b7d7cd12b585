"""From a tensor in the trace to the module where attention can be put."""

from typing import Literal, NamedTuple

from excite.inspect.trace import WEIGHTED
from excite.surgery.graph import CONTAINERS, Graph

STEPS = 4


class Place(NamedTuple):
    """A module, and the side of it on which the tensor is."""

    path: str
    side: Literal["after", "before"]
    node: int


def locate(graph: Graph, node: int) -> Place | None:
    """Return the place of a tensor, or None where no module can carry attention for it.

    Best is the innermost module that made the tensor, then one that hands it through (drop path, identity), then its
    only reader; where all fail, the same is asked of the tensor one element-wise operation earlier (layer scale).
    """
    for _ in range(STEPS):
        for find in (_maker, _conduit, _reader):
            path = find(graph, node)
            if path is not None:
                return Place(path, "after" if find is _maker else "before", node)
        made = graph.trace.nodes[node]
        maps = [i for i in made.inputs if graph.trace.nodes[i].shape == made.shape]
        if len(maps) != 1 or made.op in WEIGHTED or not graph.trace.is_map(maps[0]):
            return None
        node = maps[0]
    return None


def usable(graph: Graph, path: str) -> bool:
    """Tell whether a module may carry attention: it ran once, is no mere container, and is not inside attention."""
    module = graph.modules[path]
    inside = any(path.startswith(a + ".") for a in graph.attention)
    return bool(path) and graph.once(path) and not isinstance(module, CONTAINERS) and not inside


def _maker(graph: Graph, node: int) -> str | None:
    stack = graph.trace.nodes[node].stack
    for path in reversed(stack):
        if usable(graph, path) and graph.output(path) == node:
            return path
    return None


def _conduit(graph: Graph, node: int) -> str | None:
    for path, calls in graph.calls.items():
        if usable(graph, path) and calls[0].output == node and calls[0].inputs[:1] == (node,):
            return path
    return None


def _reader(graph: Graph, node: int) -> str | None:
    if len(graph.users[node]) != 1 or node in graph.trace.results:
        return None
    user = graph.trace.nodes[graph.users[node][0]]
    for path in reversed(user.stack):
        if usable(graph, path) and graph.calls[path][0].inputs[:1] == (node,):
            return path
    return None
