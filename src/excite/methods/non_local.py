"""NL: the non-local block."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from excite.common.checks import Positive, check_map
from excite.methods.base import REDUCTION, Method
from excite.methods.widths import hidden_channels
from excite.ops.precision import widen, without_autocast
from excite.types import FeatureMap

_MAX_POOLS = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}


class NonLocal(nn.Module):
    """Every position looks at all others, `y = x + norm(W z)`, `[n c *space]` (Wang et al., eq. 1-6).

    mode: "embedded" `softmax(theta^T phi) g`, "gaussian" `softmax(x^T x) g`, "dot" `theta^T phi g / positions`.
    norm: a batch norm after W whose scale starts at 0 (else W starts at 0), so the block starts as the identity.
    subsample: theta looks at a map max-pooled by 2.
    """

    def __init__(self, channels: int, hidden: int, mode: str, norm: bool, subsample: bool, scale: bool) -> None:
        super().__init__()
        self.channels, self.mode, self.subsample = channels, mode, subsample
        width = channels if mode == "gaussian" else hidden
        self.scale = width**-0.5 if scale else 1.0
        self.theta = None if mode == "gaussian" else nn.Conv1d(channels, hidden, 1)
        self.phi = None if mode == "gaussian" else nn.Conv1d(channels, hidden, 1)
        self.g = nn.Conv1d(channels, hidden, 1)
        self.out = nn.Conv1d(hidden, channels, 1)
        self.norm = nn.BatchNorm1d(channels) if norm else None
        if self.norm is not None:
            nn.init.zeros_(self.norm.weight)
        else:
            nn.init.zeros_(self.out.weight)
            nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]  # built with a bias

    def _attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        # All [n d positions]. Products of large activations overflow half precision.
        q, k, v = widen(q), widen(k), widen(v)
        if self.mode == "dot":
            return torch.matmul(torch.matmul(v, k.transpose(1, 2)), q) * (self.scale / k.shape[2])
        q, k, v = (t.transpose(1, 2).unsqueeze(1) for t in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v, scale=self.scale).squeeze(1).transpose(1, 2)

    def forward(self, x: FeatureMap) -> FeatureMap:
        """Return the map with what it saw elsewhere."""
        check_map("nl", x, self.channels)
        flat = x.flatten(2)
        seen = _MAX_POOLS[x.dim() - 2](x, 2).flatten(2) if self.subsample else flat
        q = flat if self.theta is None else self.theta(flat)
        k = seen if self.phi is None else self.phi(seen)
        z = without_autocast(self._attend, q, k, self.g(seen)).to(x.dtype)
        y = self.out(z)
        return x + (y if self.norm is None else self.norm(y)).reshape(x.shape)


def nl(
    channels: int,
    *,
    reduction: Positive = 2,
    mode: Literal["embedded", "gaussian", "dot"] = "embedded",
    norm: bool = True,
    subsample: bool = False,
    scale: bool = False,
    divisor: Positive = 1,
    hidden: Positive | None = None,
) -> NonLocal:
    """Build the non-local block over `channels` channels.

    reduction, divisor, hidden: channels of the embeddings, c / reduction, as in `se`; mode: "embedded" (Gaussian),
    "gaussian" or "dot" (of third order in the map, so not for large maps in half precision); norm: a batch norm at the
    end; subsample: max-pool keys and values by 2; scale: products divided by the root of their
    length, as in transformers.
    """
    return NonLocal(channels, hidden_channels(channels, reduction, divisor, hidden), mode, norm, subsample, scale)


NL = Method(
    build=nl,
    equation="y = x + norm(W z),  z_p = sum_q softmax_q(theta(x_p) . phi(x_q)) g(x_q)",
    paper="Wang, Girshick, Gupta, He: Non-local Neural Networks, CVPR 2018, arXiv:1711.07971, eq. 1-6",
    place="after the last norm of a residual branch; the paper: one to ten after whole blocks of stages 2 and 3",
    identity_at_init=True,
    needs=(REDUCTION,),
    differs="the authors' code is a Caffe2 network, which was not run; the paper's equations",
)
