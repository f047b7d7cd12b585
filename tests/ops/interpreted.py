"""Run by test_triton.py with TRITON_INTERPRET=1: the Triton kernels against the PyTorch ones, on the CPU."""

import itertools
import sys

import torch
from tails import difference, example
from torch import nn

from excite.ops.tail import torch as plain
from excite.ops.tail import triton
from excite.ops.tail.api import fused_tail
from excite.ops.tail.kernels import Kernels

LIMITS = {torch.float32: 5e-6, torch.float64: 1e-13, torch.bfloat16: 1e-2, torch.float16: 2e-3}


def pieces(dtype: torch.dtype, last: bool, shape: tuple[int, ...]) -> float:
    """Return the largest difference of the four passes, with and without their options."""
    layout = torch.channels_last if last else torch.contiguous_format
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    z, r, grad = ((torch.randn(shape) + 1).to(dtype).contiguous(memory_format=layout) for _ in range(3))
    basis = torch.randn(1, *shape[1:]).to(wide).contiguous(memory_format=layout)[0]
    a, b, q, p, d = (torch.randn(shape[:2]).to(wide) for _ in range(5))
    mu = torch.randn(shape[1]).double()
    found = []
    for kernels in (plain, triton):
        mean, variance, projection = kernels.moments(z, True, True, basis)
        out = plain.affine(z, a, b, r, True)
        found.append([
            mean, variance, projection, kernels.moments(z, False, False)[0],
            kernels.affine(z, a, b, r, True), kernels.affine(z, a, b, None, False),
            *kernels.grad_sums(grad, out, z, mu), *kernels.grad_sums(grad.expand_as(z), None, z, mu),
            kernels.rectified(grad, out, z),
            kernels.grad_input(grad, z, a, q, p, mu, d, basis), kernels.grad_input(grad, z, a, None, None, None),
        ])  # fmt: skip
    return difference(*found)


def whole(method: str, last: bool) -> float:
    """Return the largest difference of a tail's output and gradients."""
    found = []
    for kernels in map(Kernels, (plain, triton)):
        module, z, r = example(method, torch.float64, (3, 16, 5, 3), last)
        leaf, short = z.clone().requires_grad_(), r.clone().requires_grad_()
        out, _ = fused_tail(leaf, module[0], module[1].squeeze, module[1].gate, short, nn.ReLU(), kernels)
        out.square().sum().backward()
        found.append([out.detach(), leaf.grad, short.grad, *(p.grad for p in module.parameters())])
    return difference(*found)


def main() -> int:
    """Print a line for each case; return 1 where a limit is exceeded."""
    torch.manual_seed(0)
    bad = 0
    for dtype, last, shape in itertools.product(LIMITS, (False, True), ((2, 5, 3, 7), (2, 130, 4, 4))):
        off = pieces(dtype, last, shape)
        bad += not off <= LIMITS[dtype]
        print("pieces", dtype, "NHWC" if last else "NCHW", shape, f"{off:.1e}")
    for method, last in itertools.product(("eca", "srm", "fca"), (False, True)):
        off = whole(method, last)
        bad += not off <= 1e-10
        print("whole", method, "NHWC" if last else "NCHW", f"{off:.1e}")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
