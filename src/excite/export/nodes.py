"""Small steps on graphs of aten operations: read a constant, add one, read an argument."""

from typing import Any

import torch
from torch import fx

ATEN = torch.ops.aten


def tensor(graph: fx.GraphModule, node: object) -> torch.Tensor | None:
    """Return the constant behind a `get_attr` node, None for anything else."""
    if not isinstance(node, fx.Node) or node.op != "get_attr":
        return None
    owner, _, leaf = str(node.target).rpartition(".")
    value: torch.Tensor = getattr(graph.get_submodule(owner), leaf)
    return value.detach()


def constant(graph: fx.GraphModule, name: str, value: torch.Tensor) -> fx.Node:
    """Add a buffer and return a node that reads it (at the insertion point)."""
    unique = name
    count = 0
    while hasattr(graph, unique):
        count += 1
        unique = f"{name}_{count}"
    graph.register_buffer(unique, value)
    return graph.graph.get_attr(unique)


def argument(node: fx.Node, index: int, default: object) -> Any:  # whatever an operation takes: its caller knows
    """Return a positional argument, or the default where the node leaves it out."""
    return node.args[index] if len(node.args) > index else default
