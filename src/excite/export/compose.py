"""Two linear steps on a pooled map, one after the other, become one 1x1 convolution."""

import torch
from torch import fx

from excite.export.nodes import ATEN, argument, constant, tensor

RESHAPES = (ATEN.squeeze.dim, ATEN.squeeze.dims, ATEN.unsqueeze.default, ATEN.transpose.int)


def compose_pooled_steps(graph: fx.GraphModule) -> int:
    """Compose, in place, every 1x1 convolution of a pooled map with the linear step that alone follows it."""
    changed = 0
    for step in list(graph.graph.nodes):
        first = _pooled_convolution(graph, step)
        if first is None:
            continue
        if step.target is ATEN.conv1d.default:
            changed += _absorb_band(graph, first, step)
        elif step.target is ATEN.conv2d.default:
            changed += _absorb_product(graph, first, step)
    return changed


def _pooled_convolution(graph: fx.GraphModule, step: fx.Node) -> fx.Node | None:
    """Return the convolution of a pooled map that `step` reads through reshapes alone, if nobody else reads it."""
    if step.op != "call_function" or step.target not in (ATEN.conv1d.default, ATEN.conv2d.default):
        return None
    node: object = step.args[0]
    while isinstance(node, fx.Node) and node.target in RESHAPES and len(node.users) == 1:
        node = node.args[0]
    if not isinstance(node, fx.Node) or node.target is not ATEN.conv2d.default or len(node.users) != 1:
        return None
    pooled = node.args[0]
    weight = tensor(graph, node.args[1])
    is_pooled = isinstance(pooled, fx.Node) and pooled.target is ATEN.mean.dim and argument(pooled, 2, False) is True
    return node if is_pooled and weight is not None and weight.shape[2:] == (1, 1) and node is not step else None


def _read(graph: fx.GraphModule, conv: fx.Node) -> tuple[torch.Tensor, torch.Tensor]:
    """Return matrix and bias of a 1x1 convolution, float64."""
    weight, bias = tensor(graph, conv.args[1]), tensor(graph, argument(conv, 2, None))
    assert weight is not None
    matrix = weight.flatten(1).double()
    return matrix, matrix.new_zeros(len(matrix)) if bias is None else bias.double()


def _replace(graph: fx.GraphModule, first: fx.Node, matrix: torch.Tensor, bias: torch.Tensor) -> fx.Node:
    """Put the composed convolution of the same pooled map before `first`."""
    weight = tensor(graph, first.args[1])
    assert weight is not None
    with graph.graph.inserting_before(first):
        w = constant(graph, "composed_weight", matrix[:, :, None, None].to(weight.dtype))
        b = constant(graph, "composed_bias", bias.to(weight.dtype))
        return graph.graph.call_function(ATEN.conv2d.default, (first.args[0], w, b))


def _absorb_band(graph: fx.GraphModule, first: fx.Node, step: fx.Node) -> int:
    """ECA: a convolution across channels with zero padding is a banded matrix."""
    kernel = tensor(graph, step.args[1])
    stride, padding = argument(step, 3, [1]), argument(step, 4, [0])
    follower = next(iter(step.users)) if len(step.users) == 1 else None
    plain = kernel is not None and kernel.shape[:2] == (1, 1) and argument(step, 2, None) is None
    if kernel is None or not plain or list(stride) != [1] or list(padding) != [(kernel.shape[-1] - 1) // 2]:
        return 0
    if follower is None or follower.target is not ATEN.squeeze.dim or follower.args[1] != 1:
        return 0
    matrix, bias = _read(graph, first)
    band = torch.zeros(len(matrix), len(matrix), dtype=torch.float64)
    for offset, value in enumerate(kernel.flatten().tolist(), start=-padding[0]):
        band += torch.diag(torch.full((len(matrix) - abs(offset),), value, dtype=torch.float64), offset)
    composed = _replace(graph, first, band @ matrix, band @ bias)
    with graph.graph.inserting_before(step):
        flat = graph.graph.call_function(ATEN.squeeze.dims, (composed, [2, 3]))
    follower.replace_all_uses_with(flat)
    graph.graph.erase_node(follower)
    return 1


def _absorb_product(graph: fx.GraphModule, first: fx.Node, step: fx.Node) -> int:
    """SE: the reduction is a 1x1 convolution of the same pooled map."""
    weight = tensor(graph, step.args[1])
    if weight is None or weight.shape[2:] != (1, 1) or argument(step, 6, 1) != 1:
        return 0
    matrix, bias = _read(graph, first)
    second, second_bias = _read(graph, step)
    composed = _replace(graph, first, second @ matrix, second @ bias + second_bias)
    step.replace_all_uses_with(composed)
    graph.graph.erase_node(step)
    return 1
