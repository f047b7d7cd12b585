"""A network in eval mode as a graph of aten operations, and what is rewritten in it before it is exported.

1. Batch norms are folded into the convolutions before them.
2. The squeeze moves before a last 1x1 convolution: `mean(conv(h)) = conv(mean(h))`, where `h` has fewer channels. The
   pooled map keeps its space axes, so what follows stays a 1x1 convolution; engines run it faster than a product of
   one-row matrices.
3. The gate's matrix products become 1x1 convolutions, for the same reason.
4. Where two linear steps follow one another on the pooled map (the moved convolution, then ECA's convolution across
   channels or SE's reduction) their product is computed once, here: one small convolution is left.

All are exact up to rounding. None depends on whose network it is.
"""

from dataclasses import dataclass

import torch
from torch import fx, nn

from excite.errors import ExciteError
from excite.export.compose import compose_pooled_steps
from excite.export.nodes import ATEN, argument, constant, tensor


@dataclass(frozen=True)
class Rewrites:
    """How many places each rewrite changed."""

    norms_folded: int
    squeezes_moved: int
    products_as_convolutions: int
    steps_composed: int


def capture(model: nn.Module, example: torch.Tensor, dynamic: bool) -> fx.GraphModule:
    """Return `model` as a graph; dynamic: any batch size, else the example's.

    Raises ExciteError where the network cannot be captured whole.
    """
    shapes = ({0: torch.export.Dim("batch", min=1, max=65536)},) if dynamic else None
    if dynamic and example.shape[0] == 1:
        example = torch.cat([example, example])  # a batch of 1 would be taken for a constant
    try:
        program = torch.export.export(model, (example,), dynamic_shapes=shapes)
    except Exception as error:
        raise ExciteError(f"torch.export could not capture the network: {type(error).__name__}: {error}") from error
    graph = program.module()
    assert isinstance(graph, fx.GraphModule)
    return graph


def rewrite(graph: fx.GraphModule, *, move_squeezes: bool = True) -> Rewrites:
    """Apply the rewrites in place; move_squeezes=False leaves it at folding."""
    _drop_assertions(graph)
    folded = _fold_norms(graph)
    moved = _move_squeezes(graph) if move_squeezes else 0
    products = _products_to_convolutions(graph) if move_squeezes else 0
    composed = compose_pooled_steps(graph) if move_squeezes else 0
    graph.graph.eliminate_dead_code()
    _drop_unused(graph)
    graph.graph.lint()
    graph.recompile()
    return Rewrites(folded, moved, products, composed)


def _drop_assertions(graph: fx.GraphModule) -> None:
    """Drop what a captured graph only asserts, and casts to the dtype that a value has already."""
    for node in list(graph.graph.nodes):
        if node.target is ATEN._assert_tensor_metadata.default:
            graph.graph.erase_node(node)
        elif node.target is ATEN.to.dtype and _dtype(node) is not None and _dtype(node) is _dtype(node.args[0]):
            node.replace_all_uses_with(node.args[0])
            graph.graph.erase_node(node)


def _dtype(node: object) -> torch.dtype | None:
    return getattr(node.meta.get("val"), "dtype", None) if isinstance(node, fx.Node) else None


def _drop_unused(graph: fx.GraphModule) -> None:
    """Delete parameters and buffers that no node reads any more, so that they are not written."""
    used = {str(node.target) for node in graph.graph.nodes if node.op == "get_attr"}
    names = [name for name, _ in [*graph.named_parameters(), *graph.named_buffers()]]
    for name in names:
        if name not in used:
            owner, _, leaf = name.rpartition(".")
            delattr(graph.get_submodule(owner), leaf)


def _is_convolution(node: object) -> bool:
    return isinstance(node, fx.Node) and node.target in (ATEN.conv1d.default, ATEN.conv2d.default, ATEN.conv3d.default)


def _fold_norms(graph: fx.GraphModule) -> int:
    folded = 0
    for norm in list(graph.graph.nodes):
        if norm.target is not ATEN.batch_norm.default or norm.args[5]:
            continue
        conv = norm.args[0]
        if not _is_convolution(conv) or len(conv.users) != 1:
            continue
        weight, bias = tensor(graph, conv.args[1]), tensor(graph, argument(conv, 2, None))
        if weight is None or (bias is None and argument(conv, 2, None) is not None):
            continue
        new_weight, new_bias = _folded(graph, norm, weight, bias)
        with graph.graph.inserting_before(conv):
            w = constant(graph, "folded_weight", new_weight)
            b = constant(graph, "folded_bias", new_bias)
        conv.args = (conv.args[0], w, b, *conv.args[3:])
        norm.replace_all_uses_with(conv)
        graph.graph.erase_node(norm)
        folded += 1
    return folded


def _folded(
    graph: fx.GraphModule, norm: fx.Node, weight: torch.Tensor, bias: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the convolution's weight and bias with the norm inside, computed in float64."""
    gamma, beta, mean, variance = (tensor(graph, a) for a in norm.args[1:5])
    assert mean is not None
    assert variance is not None
    scale = (variance.double() + argument(norm, 7, 1e-5)).rsqrt()
    if gamma is not None:
        scale = scale * gamma.double()
    shift = -mean.double() * scale
    if bias is not None:
        shift = shift + bias.double() * scale
    if beta is not None:
        shift = shift + beta.double()
    by_channel = scale.reshape(-1, *[1] * (weight.dim() - 1))
    return (weight.double() * by_channel).to(weight.dtype), shift.to(weight.dtype)


def _is_pointwise(graph: fx.GraphModule, conv: object) -> bool:
    """Tell whether a node is a 1x1 convolution that looks at every position once."""
    if not isinstance(conv, fx.Node) or conv.target is not ATEN.conv2d.default:
        return False
    weight = tensor(graph, conv.args[1])
    stride, padding, groups = (argument(conv, i, d) for i, d in ((3, [1, 1]), (4, [0, 0]), (6, 1)))
    plain = set(stride) == {1} and set(padding) == {0} and groups == 1
    return weight is not None and tuple(weight.shape[2:]) == (1, 1) and plain


def _is_mean_over_space(node: fx.Node) -> bool:
    return node.target is ATEN.mean.dim and sorted(d % 4 for d in argument(node, 1, [])) == [2, 3]


def _move_squeezes(graph: fx.GraphModule) -> int:
    moved = 0
    for mean in list(graph.graph.nodes):
        # Where only the mean reads the map, the network's own head pools: nothing is saved twice there.
        if not _is_mean_over_space(mean) or not _is_pointwise(graph, mean.args[0]) or len(mean.args[0].users) < 2:
            continue
        conv = mean.args[0]
        # A projection (MobileNetV2) reads more channels than it writes: the mean is cheaper behind it.
        weight = tensor(graph, conv.args[1])
        if weight is None or weight.shape[1] >= weight.shape[0]:
            continue
        with graph.graph.inserting_before(mean):
            pooled = graph.graph.call_function(ATEN.mean.dim, (conv.args[0], [2, 3], True))
            pooled = graph.graph.call_function(ATEN.conv2d.default, (pooled, *conv.args[1:3]))
            if not argument(mean, 2, False):
                pooled = graph.graph.call_function(ATEN.squeeze.dims, (pooled, [2, 3]))
        mean.replace_all_uses_with(pooled)
        graph.graph.erase_node(mean)
        moved += 1
    return moved


def _pooled_source(node: object) -> fx.Node | None:
    """Follow `[n c]` values back to the pooled map: through squeezes, unsqueezes, flattens and activations."""
    passes = {ATEN.squeeze.dim, ATEN.squeeze.dims, ATEN.unsqueeze.default, ATEN.relu.default, ATEN.relu_.default}
    while isinstance(node, fx.Node):
        if _is_mean_over_space(node) or node.target in (ATEN.conv2d.default, ATEN.linear.default):
            return node
        if node.target not in passes:
            return None
        node = node.args[0]
    return None


def _products_to_convolutions(graph: fx.GraphModule) -> int:
    """Turn the gates' `linear` on `[n c]` into 1x1 convolutions; the classifier's stays what it is."""
    changed = 0
    last = {n for out in graph.graph.nodes if out.op == "output" for n in out.all_input_nodes}
    for product in list(graph.graph.nodes):
        if product.target is not ATEN.linear.default or product in last or _pooled_source(product.args[0]) is None:
            continue
        weight, bias = tensor(graph, product.args[1]), argument(product, 2, None)
        # CBAM's shared product takes two descriptors at once, `[2 n c]`: that is no pooled map.
        if weight is None or getattr(product.meta.get("val"), "ndim", 2) != 2:
            continue
        with graph.graph.inserting_before(product):
            kernel = constant(graph, "gate_weight", weight[:, :, None, None].clone())
            x = graph.graph.call_function(ATEN.unsqueeze.default, (product.args[0], -1))
            x = graph.graph.call_function(ATEN.unsqueeze.default, (x, -1))
            x = graph.graph.call_function(ATEN.conv2d.default, (x, kernel, bias))
            x = graph.graph.call_function(ATEN.squeeze.dims, (x, [2, 3]))
        product.replace_all_uses_with(x)
        graph.graph.erase_node(product)
        changed += 1
    return changed
