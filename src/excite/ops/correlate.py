"""A short correlation along the channels, the arithmetic of ECA's gate, without a convolution's overhead.

torch hands a Conv1d with one channel to kernels made for many: the gradient of a batch of 64 descriptors of 512
channels takes them milliseconds, an eighth of which is enough. Laid out with zeros between the rows, the descriptors
are one long vector, and the correlation, its gradient and the kernel's are k scaled additions or dot products of
shifted pieces of it.
"""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from excite.ops.tail.plan import is_hooked, is_transformed, native

# Any: torch calls autograd functions with a context that has no type.


def correlate(s: torch.Tensor, conv: nn.Conv1d) -> torch.Tensor:
    """Return `conv(s)` for a Conv1d over channels, `[n c] -> [n c]`: one kernel, odd, zeros beyond the ends.

    conv itself is called where it is watched, changed or traced, or where it is the faster of the two.
    """
    if pays(s, conv.weight) and plain(conv):
        if not torch.is_grad_enabled() and (kernels := native()) is not None:
            return kernels.correlate(s, conv.weight)
        return Correlate.apply(s, conv.weight)
    correlated: torch.Tensor = conv(s.unsqueeze(1)).squeeze(1)
    return correlated


def plain(conv: nn.Module) -> bool:
    """Tell whether `conv` is just a Conv1d with one kernel, no bias and its output as long as its input."""
    if type(conv) is not nn.Conv1d or is_hooked(conv):
        return False
    (k,) = conv.kernel_size
    simple = conv.in_channels == conv.out_channels == conv.stride[0] == conv.dilation[0] == 1 and conv.bias is None
    return simple and conv.padding == ((k - 1) // 2,) and conv.padding_mode == "zeros" and k % 2 == 1


def pays(s: torch.Tensor, kernel: torch.Tensor) -> bool:
    """Tell whether the sums were measured to pay: a batch on a CPU, in full precision, nobody counting or tracing."""
    return (
        not is_transformed()  # first: a compiler does not look further
        and s.device.type == "cpu"
        and (s.shape[0] > 1 or native() is not None)  # a single row torch does faster (benchmarks/gate.py)
        and s.dtype == kernel.dtype
        and s.dtype in (torch.float32, torch.float64)
        and type(s) is torch.Tensor
        and not torch.is_autocast_enabled("cpu")
    )


class Correlate(torch.autograd.Function):
    """s `[n c]`, kernel `[1 1 k]` -> `sum_i kernel[i] s[:, c + i - (k-1)/2]`, zero beyond the ends."""

    @staticmethod
    def forward(ctx: Any, s: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
        """Return the correlation."""
        ctx.save_for_backward(s, kernel)
        kernels = native()
        return _sums(s, kernel.view(-1)) if kernels is None else kernels.correlate(s, kernel.view(-1))

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Return the gradients of descriptor and kernel."""
        s, kernel = ctx.saved_tensors
        half = kernel.numel() // 2
        if torch.is_grad_enabled():
            # Differentiable, for create_graph=True.
            output = F.conv1d(s.unsqueeze(1), kernel, padding=half).squeeze(1)
            wanted = [x for x, need in zip((s, kernel), ctx.needs_input_grad, strict=True) if need]
            grads = iter(torch.autograd.grad(output, wanted, grad, create_graph=True))
            for_s, for_kernel = (next(grads) if need else None for need in ctx.needs_input_grad)
            return for_s, for_kernel
        kernels = native()
        correlated = _sums if kernels is None else kernels.correlate
        for_s = correlated(grad, kernel.view(-1).flip(0)) if ctx.needs_input_grad[0] else None
        if not ctx.needs_input_grad[1]:
            return for_s, None
        if kernels is not None:
            return for_s, kernels.correlate_kernel(s, grad, kernel.numel()).view(kernel.shape)
        rows, flat = F.pad(s, (half, half)).view(-1), F.pad(grad, (0, 2 * half)).view(-1)
        size = len(rows)
        products = [torch.dot(flat[: size - i], rows[i:]) for i in range(kernel.numel())]
        return for_s, torch.stack(products).view(kernel.shape)


def _sums(s: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    # With `half` zeros at both ends of every row, shifting the whole vector shifts every row.
    half, channels = len(kernel) // 2, s.shape[1]
    rows = F.pad(s, (half, half))
    flat, taps = rows.view(-1), kernel.tolist()
    made = flat * taps[0]
    for i, tap in enumerate(taps[1:], 1):
        made[: len(flat) - i].add_(flat[i:], alpha=tap)
    return made.view(rows.shape)[:, :channels]
