"""The tail with a gate whose arithmetic is known, as one node of autograd: nothing is asked of the gate's modules.

In parts (`autograd`) the norm, the gate's every operation and the second pass are nodes of their own, and on small maps
these cost more than what they compute. Here the gate's gradients are written out too. ECA's gate is part of the C call.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from excite.ops.correlate import plain
from excite.ops.precision import wide_type, widen, without_autocast
from excite.ops.tail.moments import Numbers, Settings
from excite.ops.tail.plan import Form, form_of, is_globally_hooked, is_hooked, native
from excite.types import FeatureMap, Weights

# Any: the form says which parts a gate has, the checker sees modules; torch calls autograd functions with a context
# that has no type.

Tensors = tuple[torch.Tensor | None, ...]
TAKES: dict[Form, Form] = {"correlation": "mean", "bottleneck": "mean", "style": "mean and deviation"}


class Gate:
    """What a gate computes of the mean and the variance `[n c]` of the normalised map, and its gradients.

    parameters: its tensors, in the order in which `differentiate` returns their gradients.
    """

    def __init__(self, *parameters: torch.Tensor | None) -> None:
        self.parameters = parameters

    def weigh(self, mean: torch.Tensor, variance: Numbers) -> tuple[Weights, Tensors]:
        """Return the weights `[n c]` and what `differentiate` needs besides; without gradients."""
        raise NotImplementedError

    def differentiate(
        self, grad: torch.Tensor, mean: torch.Tensor, parameters: Tensors, kept: Tensors
    ) -> tuple[torch.Tensor, Numbers, Tensors]:
        """Return the gradients of mean, variance and parameters; grad: that of the weights before their sigmoid."""
        raise NotImplementedError

    def formula(self, mean: torch.Tensor, variance: torch.Tensor, parameters: Tensors, kept: Tensors) -> Weights:
        """Return the weights in differentiable operations."""
        raise NotImplementedError


class Correlation(Gate):
    """`sigmoid(conv(mean))` along the channels (ECA)."""

    def formula(self, mean: torch.Tensor, variance: torch.Tensor, parameters: Tensors, kept: Tensors) -> Weights:
        """Return the weights in differentiable operations."""
        (kernel,) = parameters
        assert kernel is not None
        return torch.sigmoid(F.conv1d(mean.unsqueeze(1), kernel, padding=kernel.numel() // 2).squeeze(1))


class Narrow(Gate):
    """`sigmoid(W2 relu(W1 mean + b1) + b2)` (SE)."""

    def weigh(self, mean: torch.Tensor, variance: Numbers) -> tuple[Weights, Tensors]:
        """Return the weights and the hidden numbers."""
        w1, b1, w2, b2 = self.parameters
        hidden = F.linear(mean, w1, b1).relu_()  # type: ignore[arg-type]  # only biases may be None
        return F.linear(hidden, w2, b2).sigmoid_(), (hidden,)  # type: ignore[arg-type]  # only biases may be None

    def differentiate(
        self, grad: torch.Tensor, mean: torch.Tensor, parameters: Tensors, kept: Tensors
    ) -> tuple[torch.Tensor, Numbers, Tensors]:
        """Return the gradients of mean and parameters."""
        w1, b1, w2, b2 = parameters
        (hidden,) = kept
        assert w1 is not None
        assert w2 is not None
        assert hidden is not None
        at_hidden = (grad @ w2).masked_fill_(hidden <= 0, 0)
        for_b1, for_b2 = None if b1 is None else at_hidden.sum(0), None if b2 is None else grad.sum(0)
        return at_hidden @ w1, None, (at_hidden.t() @ mean, for_b1, grad.t() @ hidden, for_b2)

    def formula(self, mean: torch.Tensor, variance: torch.Tensor, parameters: Tensors, kept: Tensors) -> Weights:
        """Return the weights in differentiable operations."""
        w1, b1, w2, b2 = parameters
        hidden = torch.relu(F.linear(mean, w1, b1))  # type: ignore[arg-type]  # only biases may be None
        return torch.sigmoid(F.linear(hidden, w2, b2))  # type: ignore[arg-type]  # only biases may be None


class Style(Gate):
    """`sigmoid(bn(a mean + b deviation))`, a and b per channel, bn over the batch (SRM).

    norm: the batch norm; eps, factor: `deviation = sqrt(factor variance + eps)`.
    """

    def __init__(self, cfc: torch.Tensor, norm: Any, eps: float, factor: float) -> None:
        super().__init__(cfc, norm.weight, norm.bias)
        self.norm, self.eps, self.factor, self.training = norm, eps, factor, norm.training

    def weigh(self, mean: torch.Tensor, variance: Numbers) -> tuple[Weights, Tensors]:
        """Return the weights; the deviations, the style and the statistics that normalised it."""
        assert variance is not None
        norm, cfc, momentum = self.norm, self.parameters[0], self.norm.momentum
        assert cfc is not None
        if self.training:
            norm.num_batches_tracked.add_(1)
        deviation = (variance * self.factor).add_(self.eps).sqrt_()
        style = torch.addcmul(mean * cfc[:, 0], deviation, cfc[:, 1])
        logits, centre, inverse = torch.native_batch_norm(
            style, norm.weight, norm.bias, norm.running_mean, norm.running_var, self.training, momentum, norm.eps
        )
        if not self.training:  # copies: the buffers may move on before the backward pass comes here
            centre, inverse = norm.running_mean.clone(), norm.running_var.clone()
        return logits.sigmoid_(), (deviation, style, centre, inverse)

    def differentiate(
        self, grad: torch.Tensor, mean: torch.Tensor, parameters: Tensors, kept: Tensors
    ) -> tuple[torch.Tensor, Numbers, Tensors]:
        """Return the gradients of mean, variance and parameters."""
        cfc, gamma, _ = parameters
        deviation, style, centre, inverse = kept
        assert cfc is not None
        running, batch = ((None, None), (centre, inverse)) if self.training else ((centre, inverse), (None, None))
        at_style, for_gamma, for_beta = torch.ops.aten.native_batch_norm_backward(
            grad, style, gamma, *running, *batch, self.training, self.norm.eps, [True, True, True]
        )
        for_cfc = torch.stack(((at_style * mean).sum(0), (at_style * deviation).sum(0)), 1)
        by_variance = (at_style * cfc[:, 1]).mul_(self.factor / 2).div_(deviation)
        return at_style * cfc[:, 0], by_variance, (for_cfc, for_gamma, for_beta)

    def formula(self, mean: torch.Tensor, variance: torch.Tensor, parameters: Tensors, kept: Tensors) -> Weights:
        """Return the weights in differentiable operations."""
        cfc, gamma, beta = parameters
        assert cfc is not None
        style = mean * cfc[:, 0] + (variance * self.factor + self.eps).sqrt() * cfc[:, 1]
        centre, variance_of = (None, None) if self.training else kept[2:]
        logits = F.batch_norm(style, centre, variance_of, gamma, beta, self.training, 0.0, self.norm.eps)
        return torch.sigmoid(logits)


def gate_of(squeeze: nn.Module, gate: Any, z: FeatureMap) -> Gate | None:
    """Return what squeeze and gate compute, or None where that is not known, or somebody watches a part of it."""
    form = form_of(gate)
    if form is None or form_of(squeeze) != TAKES[form] or is_globally_hooked():
        return None
    wide = wide_type(z)
    found: Gate | None = None
    if form == "correlation":
        if plain(gate.conv):
            found = Correlation(gate.conv.weight)
    elif form == "bottleneck":
        parts = gate._modules
        reduce, expand, act = parts["reduce"], parts["expand"], parts["act"]
        fits = type(expand) is nn.Linear and expand.out_features == z.shape[1]
        plain_parts = fits and type(reduce) is nn.Linear and type(act) is nn.ReLU and parts.get("norm") is None
        if plain_parts and gate.activation == "sigmoid" and not any(map(is_hooked, (reduce, expand, act))):
            found = Narrow(reduce.weight, reduce.bias, expand.weight, expand.bias)
    else:
        norm: Any = gate.bn
        if type(norm) is not nn.BatchNorm1d:
            return None
        tracked = norm.affine and norm.track_running_stats and norm.momentum is not None
        enough = z.shape[0] > 1 or not norm.training
        enough = enough and gate.cfc.shape == (z.shape[1], 2)
        if tracked and enough and not is_hooked(norm):
            count = z.numel() // (z.shape[0] * z.shape[1])
            found = Style(gate.cfc, norm, squeeze.eps, count / max(count - 1, 1))  # type: ignore[arg-type]  # a module's attributes have no types
    if found is None or not all(x is None or _readable(x, wide) for x in found.parameters):
        return None
    return found


def _readable(x: torch.Tensor, dtype: torch.dtype) -> bool:
    return x.dtype is dtype and x.device.type == "cpu" and x.is_contiguous()


class Job(NamedTuple):
    """What a tail is asked for, besides tensors."""

    gate: Gate
    settings: Settings
    ceiling: float | None


class Kept(NamedTuple):
    """What the backward pass needs; out: where there is a rectifier; moments, norm: as the first C call left them.

    weights: None with a correlation, whose weights are among the moments.
    """

    z: FeatureMap
    out: FeatureMap | None
    gamma: Numbers
    beta: Numbers
    moments: torch.Tensor
    norm: torch.Tensor
    weights: Numbers


class GatedTail(torch.autograd.Function):
    """z, shortcut, gamma, beta, the gate's parameters -> relu(gate(y) y + shortcut), y the normalised z."""

    @staticmethod
    def forward(
        ctx: Any,
        job: Job,
        z: FeatureMap,
        shortcut: FeatureMap | None,
        gamma: Numbers,
        beta: Numbers,
        *parameters: torch.Tensor | None,
    ) -> FeatureMap:
        """Return the output."""
        out, kept, more = run(job, z, shortcut, gamma, beta)
        ctx.job, ctx.count = job, len(parameters)
        ctx.save_for_backward(*kept, *parameters, *more)
        return out

    @staticmethod
    def backward(ctx: Any, grad: FeatureMap) -> tuple[torch.Tensor | None, ...]:
        """Return the gradients of z, shortcut, gamma, beta and the gate's parameters."""
        job, tensors, end = ctx.job, ctx.saved_tensors, len(Kept._fields)
        kept, parameters, more = Kept(*tensors[:end]), tensors[end : end + ctx.count], tensors[end + ctx.count :]
        compute = _slow_backward if torch.is_grad_enabled() else _backward
        grads = without_autocast(compute, grad, job, kept, parameters, more)
        return None, *(x if need else None for x, need in zip(grads, ctx.needs_input_grad[1:], strict=True))


def run(
    job: Job, z: FeatureMap, shortcut: FeatureMap | None, gamma: Numbers, beta: Numbers
) -> tuple[FeatureMap, Kept, Tensors]:
    """Return the output and what the backward pass needs of tail and gate."""
    kernels, (gate, settings, ceiling) = native(), job
    assert kernels is not None
    if isinstance(gate, Correlation):
        kernel = gate.parameters[0]
        assert kernel is not None
        out, moments, norm = kernels.tail(z, kernel, gamma, beta, shortcut, settings, ceiling)
        return out, Kept(z, None if ceiling is None else out, gamma, beta, moments, norm, None), ()
    moments, norm = kernels.described(z, gamma, beta, settings)
    # A descriptor of means alone has the type of the map.
    first = moments[1] if settings.second else moments[1].to(z.dtype).to(moments.dtype)
    weights, more = gate.weigh(first, moments[3] if settings.second else None)
    out = kernels.attended(z, norm, weights, shortcut, ceiling)
    return out, Kept(z, None if ceiling is None else out, gamma, beta, moments, norm, weights), (first, *more)


def _backward(grad: FeatureMap, job: Job, kept: Kept, parameters: Tensors, more: Tensors) -> Tensors:
    kernels, (gate, settings, ceiling) = native(), job
    assert kernels is not None
    z, out, gamma, beta, moments, norm, weights = kept
    doubles = any(x is not None and x.dtype is torch.float64 for x in (gamma, beta))
    if isinstance(gate, Correlation):
        kernel = parameters[0]
        assert kernel is not None
        g, dz, for_kernel, for_gamma, for_beta = kernels.grad_tail(
            grad, out, z, kernel, moments, norm, settings, ceiling, doubles
        )
        return dz, g, for_gamma, for_beta, for_kernel.view(kernel.shape)
    assert weights is not None
    assert more[0] is not None
    g, work, by_norm = kernels.grad_attended(grad, out, z, norm, weights, ceiling)
    at_gate = torch.ops.aten.sigmoid_backward(work[3], weights)
    by_mean, by_variance, for_gate = gate.differentiate(at_gate, more[0], parameters, more[1:])
    if not settings.second:
        by_mean = by_mean.to(z.dtype)
    by = by_mean, by_variance
    dz, for_gamma, for_beta = kernels.grad_described(g, z, work, by_norm, moments, norm, by, settings, doubles)
    return dz, g, for_gamma, for_beta, *for_gate


def _slow_backward(grad: FeatureMap, job: Job, kept: Kept, parameters: Tensors, more: Tensors) -> Tensors:
    # Differentiable, for create_graph=True: everything is taken again from z, in plain operations.
    gate, settings, ceiling = job
    z, g = kept.z, grad
    if kept.out is not None and ceiling is not None:
        g = grad * ((kept.out > 0) if ceiling == math.inf else (kept.out > 0) & (kept.out < ceiling))
    space = tuple(range(2, z.dim()))
    flat = (-1, *(1,) * len(space))
    with torch.enable_grad():
        # Names of their own: a tensor that is used twice has two gradients here.
        given = [None if x is None else x.view_as(x) for x in (z, kept.gamma, kept.beta, *parameters)]
        own, gamma, beta = given[:3]
        assert own is not None
        wide = widen(own)
        if settings.batch:
            centre = wide.mean((0, *space), keepdim=True)
            inverse = ((wide - centre).square().mean((0, *space), keepdim=True) + settings.eps).rsqrt()
        else:
            # Those of the forward pass: the buffers may have moved on.
            centre, inverse = (x.to(wide.dtype).reshape(flat) for x in kept.norm[:2])
        y = (wide - centre) * inverse
        y = y if gamma is None else y * gamma.to(wide.dtype).reshape(flat)
        y = y if beta is None else y + beta.to(wide.dtype).reshape(flat)
        mean = y.mean(space)
        variance = y.var(space, correction=0)
        first = mean if settings.second else mean.to(z.dtype).to(mean.dtype)
        weights = gate.formula(first, variance, tuple(given[3:]), more[1:])
        out = y * weights.reshape(*weights.shape, *flat[1:])
    inputs = [x for x in given if x is not None and x.requires_grad]
    found = torch.autograd.grad(out, inputs, widen(g), create_graph=True, allow_unused=True) if inputs else ()
    gradients = iter(found)
    dz, *others = (next(gradients) if x is not None and x.requires_grad else None for x in given)
    return dz, g, *others
