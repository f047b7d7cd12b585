"""Helpers of the tests of the tail: attentions with lively parameters, a block's end run both ways."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from excite import ops
from excite.registry import create_attention

METHODS = ("none", "se", "eca", "ese", "srm", "gct", "fca")


def attention(method: str, channels: int) -> nn.Module | None:
    """Build a method whose gate is not constant: parameters that start at zero are drawn at random."""
    if method == "none":
        return None
    options = {"frequencies": "top4", "reduction": 4} if method == "fca" else {}
    made = create_attention(method, channels, **options)
    for p in made.parameters():
        nn.init.normal_(p, std=0.5)
    return made


def run(mode: str, module: nn.ModuleList, z: torch.Tensor, shortcut: torch.Tensor | None, act: Any) -> list[Any]:
    """Return output, gradients of both maps and all parameters, and the buffers after one pass."""
    module = copy.deepcopy(module)
    z = z.clone().requires_grad_()
    r = None if shortcut is None else shortcut.clone().requires_grad_()
    norm, *rest = module
    with ops.use(mode):
        if mode == "fused":
            assert ops.why_not(z * 1, norm, rest[0] if rest else None, r) is None
        out = ops.residual_tail(z * 1, norm, rest[0] if rest else None, None if r is None else r * 1, act)
    torch.manual_seed(7)
    out.backward(torch.randn(out.shape).to(out))
    grads = [p.grad for p in module.parameters()]
    return [out.detach(), z.grad, None if r is None else r.grad, *grads, *(b.clone() for b in module.buffers())]


def difference(one: list[Any], two: list[Any]) -> float:
    """Return the largest difference, relative to the largest value of each tensor (at least 1e-3)."""
    worst = 0.0
    for a, b in zip(one, two, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            assert a.dtype == b.dtype
            assert a.shape == b.shape
            scale = max(float(a.double().abs().max()), 1e-3)
            worst = max(worst, float((a.double() - b.double()).abs().max()) / scale)
    return worst


def example(
    method: str, dtype: torch.dtype, shape: tuple[int, ...] = (4, 16, 9, 7), last: bool = False
) -> tuple[nn.ModuleList, torch.Tensor, torch.Tensor]:
    """Return norm (and attention), a map with a mean, and a shortcut."""
    torch.manual_seed(0)
    norms: dict[int, Callable[[int], nn.Module]] = {3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
    norm: Any = norms[len(shape)](shape[1])
    nn.init.uniform_(norm.weight, -1, 1)
    nn.init.normal_(norm.bias)
    nn.init.uniform_(norm.running_var, 0.5, 2)
    nn.init.normal_(norm.running_mean)
    made = attention(method, shape[1])
    module = nn.ModuleList([norm] if made is None else [norm, made]).to(dtype)
    z, r = (torch.randn(shape) * 2 + 1).to(dtype), torch.randn(shape).to(dtype)
    if last:
        layout = torch.channels_last if len(shape) == 4 else torch.channels_last_3d
        z, r = z.contiguous(memory_format=layout), r.contiguous(memory_format=layout)
    return module, z, r
