"""Counting conventions, as one table: layer -> count.

`x`, `y` are the elements of a layer's input and output. A rule of 0 means that the counter knows the layer and counts
nothing; no rule means that the counter does not see it (the thop generations then miss its parameters as well).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from excite.errors import unknown
from excite.inspect.trace import LayerCall, OpCall, Trace
from excite.methods.emanet import SoftNorm
from excite.squeezes import Mean, Pools

Rule = Callable[["Layer"], float]
Skip = Sequence[nn.Module]
CONVENTIONS: dict[str, str] = {
    "macs": "multiply-accumulates of convolutions and matrix products (torch's flop counter / 2)",
    "fvcore": "fvcore: macs, batch norm 2 per element (1 without affine), module pooling 1 per input element",
    "thop-1907": "thop 0.0.23: macs, batch norm 4, ReLU and every other layer by its last call only, linear 2*in-1",
    "thop-2005": "thop 0.0.31: macs with bias, batch norm 2, global pooling (positions + 1) per channel",
    "thop": "thop 0.1.1: macs without bias, batch norm 4 (2 without affine), softmax",
    "mmcv": "mmdetection 1.x: macs with bias, batch norm 2, ReLU outputs, pooling inputs, deconvolution at output size",
}
MODULE_CONVENTIONS = ("thop-1907", "thop-2005", "thop", "mmcv")


@dataclass(frozen=True)
class Layer:
    """The numbers that rules are written in. `k`: multiplications per output of a convolution or linear layer."""

    module: Any  # of many types; the rule of a type knows its attributes
    x: int
    y: int
    k: int
    x_shape: tuple[int, ...]
    y_shape: tuple[int, ...]

    @property
    def bias(self) -> int:
        """1 where the layer has a bias."""
        return int(getattr(self.module, "bias", None) is not None)

    @property
    def affine(self) -> int:
        """2 where a norm scales and shifts, else 1."""
        has = getattr(self.module, "affine", False) or getattr(self.module, "elementwise_affine", False)
        return 2 if has else 1

    @property
    def cin(self) -> float:
        """Input channels per group."""
        return self.module.in_channels / self.module.groups

    @property
    def window(self) -> int:
        """Input positions per output position of a pooling."""
        if len(self.x_shape) != len(self.y_shape):  # a squeeze: all positions become one
            return math.prod(self.x_shape[2:])
        return math.prod(a // b for a, b in zip(self.x_shape[2:], self.y_shape[2:], strict=True))

    @property
    def channels(self) -> int:
        """Samples times channels."""
        return math.prod(self.x_shape[:2])

    @property
    def kernel(self) -> int:
        """thop 0.0.23 multiplies the entries of `kernel_size`, and an int has one entry."""
        size: int | tuple[int, ...] = getattr(self.module, "kernel_size", 1)
        return math.prod(size) if isinstance(size, tuple) else size

    @property
    def softmax(self) -> float:
        """Exponentials, additions and divisions along the module's axis."""
        n = self.x_shape[getattr(self.module, "dim", None) or 1]
        return self.x / n * (3 * n - 1)


def zero(_: Layer) -> float:
    """The counter knows the layer and counts nothing."""
    return 0


def _upsample(nearest: int) -> Rule:
    factors = {"nearest": nearest, "linear": 5, "bilinear": 11, "bicubic": 259, "trilinear": 31}
    return lambda c: factors.get(getattr(c.module, "mode", "nearest"), 0) * c.y


# fmt: off  (and single letters: the table is to be read by columns)
FAMILIES: dict[str, tuple[type[nn.Module], ...]] = {
    "convolution": (nn.Conv1d, nn.Conv2d, nn.Conv3d),
    "deconvolution": (nn.ConvTranspose2d,),
    "deconvolution 1-D, 3-D": (nn.ConvTranspose1d, nn.ConvTranspose3d),
    "linear": (nn.Linear,),
    "batch norm": (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d),
    "synchronised batch norm": (nn.SyncBatchNorm,),
    "layer, instance norm": (nn.LayerNorm, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
    "group norm": (nn.GroupNorm,),
    "ReLU": (nn.ReLU, nn.ReLU6),
    "leaky ReLU": (nn.LeakyReLU,),
    "PReLU": (nn.PReLU,),
    "ELU": (nn.ELU,),
    "softmax": (nn.Softmax,),
    "global pooling": (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d, Mean),
    "CBAM's pools": (Pools,),
    "average pooling": (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
    "max pooling": (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d),
    "global max pooling": (nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d),
    "dropout": (nn.Dropout,),
    "upsampling": (nn.Upsample, nn.UpsamplingBilinear2d, nn.UpsamplingNearest2d),
    "zero padding, pixel shuffle": (nn.ZeroPad2d, nn.PixelShuffle),
}

# The table. `c.k` = in_channels / groups * kernel positions.
RULES: dict[str, dict[str, Rule]] = {
    "convolution": {
        "thop-1907": lambda c: c.y * (c.k + c.bias * c.cin),
        "thop-2005": lambda c: c.y * (c.k + c.bias),
        "thop": lambda c: c.y * c.k,
        "mmcv": lambda c: c.y * (c.k + c.bias),
    },
    "deconvolution": {
        "thop-1907": lambda c: c.y * (c.k + c.bias),
        "thop-2005": lambda c: c.y * (c.k + c.bias),
        "thop": lambda c: c.y * c.k,
        "mmcv": lambda c: c.y * (c.k + c.bias),
    },
    "deconvolution 1-D, 3-D": {
        "thop-2005": lambda c: c.y * (c.k + c.bias),
        "thop": lambda c: c.y * c.k,
    },
    "linear": {
        "thop-1907": lambda c: c.y * (2 * c.k - 1),
        "thop-2005": lambda c: c.y * c.k,
        "thop": lambda c: c.y * c.k,
        "mmcv": lambda c: c.y * c.k,
    },
    "batch norm": {
        "thop-1907": lambda c: 4 * c.x,
        "thop-2005": lambda c: 2 * c.x,
        "thop": lambda c: 2 * c.affine * c.x,
        "mmcv": lambda c: c.affine * c.x,
    },
    "synchronised batch norm": {"thop-2005": lambda c: 2 * c.x, "thop": lambda c: 2 * c.affine * c.x},
    "layer, instance norm": {"thop": lambda c: 2 * c.affine * c.x, "mmcv": lambda c: c.affine * c.x},
    "group norm": {"mmcv": lambda c: c.affine * c.x},
    "ReLU": {"thop-1907": lambda c: c.x, "thop-2005": zero, "thop": zero, "mmcv": lambda c: c.y},
    "leaky ReLU": {"thop-1907": lambda c: c.x, "thop-2005": lambda c: c.x, "thop": zero, "mmcv": lambda c: c.y},
    "PReLU": {"thop": lambda c: c.x, "mmcv": lambda c: c.y},
    "ELU": {"mmcv": lambda c: c.y},
    "softmax": {"thop": lambda c: c.softmax},
    "global pooling": {
        "thop-1907": lambda c: (c.window + 1) * c.y,
        "thop-2005": lambda c: (c.window + 1) * c.y,
        "thop": lambda c: c.y + c.x,
        "mmcv": lambda c: c.x,
    },
    "CBAM's pools": {  # the mean; the maximum counts nothing
        "thop-1907": lambda c: (c.window + 1) * c.channels,
        "thop-2005": lambda c: (c.window + 1) * c.channels,
        "thop": lambda c: (c.window + 1) * c.channels,
        "mmcv": lambda c: 2 * c.x,
    },
    "average pooling": {
        "thop-1907": lambda c: (c.kernel + 1) * c.y,
        "thop-2005": lambda c: c.y,
        "thop": lambda c: c.y,
        "mmcv": lambda c: c.x,
    },
    "max pooling": {"thop-2005": zero, "thop": zero, "mmcv": lambda c: c.x},
    "global max pooling": {"thop-2005": zero, "thop": zero, "mmcv": lambda c: c.x},
    "dropout": {"thop-2005": zero, "thop": zero},
    "upsampling": {"thop-2005": _upsample(0), "thop": _upsample(1), "mmcv": lambda c: c.y / c.y_shape[0]},
    "zero padding, pixel shuffle": {"thop-2005": zero, "thop": zero},
}

# fvcore looks at operations. The flag of a batch norm is `training`.
FVCORE: dict[str, Callable[[OpCall], int]] = {
    "native_batch_norm": lambda o: _elements(o) * (_affine(o, 5, 4) if o.flags[:1] == (True,) else _affine(o, 2, 1)),
    "cudnn_batch_norm": lambda o: _elements(o) * (_affine(o, 5, 4) if o.flags[:1] == (True,) else _affine(o, 2, 1)),
    "_native_batch_norm_legit": lambda o: _elements(o) * _affine(o, 5, 4),
    "_native_batch_norm_legit_no_training": lambda o: _elements(o) * _affine(o, 2, 1),
    "native_group_norm": lambda o: _elements(o) * _affine(o, 5, 4),
    "native_layer_norm": lambda o: _elements(o) * (5 if _has(o, 2) else 4),
    "adaptive_avg_pool2d": lambda o: _elements(o),  # noqa: PLW0108 (defined below)
    "upsample_nearest2d": lambda o: math.prod(o.y),
    "upsample_bilinear2d": lambda o: 4 * math.prod(o.y),
    "grid_sampler_2d": lambda o: 4 * math.prod(o.y),
}
# fmt: on

# A norm of its own in the reference, of a type that no counter knows; its pooling is a module and is counted.
HIDDEN_NORMS = (SoftNorm,)
_FAMILY_OF = {kind: family for family, kinds in FAMILIES.items() for kind in kinds}


def _elements(op: OpCall) -> int:
    return math.prod(op.shapes[0] or ())


def _has(op: OpCall, index: int) -> bool:
    return len(op.shapes) > index and op.shapes[index] is not None


def _affine(op: OpCall, with_: int, without: int) -> int:
    return with_ if _has(op, 1) else without


def check(names: Sequence[str]) -> tuple[str, ...]:
    """Return the conventions' names; raise UsageError for one that does not exist."""
    for name in names:
        if name not in CONVENTIONS:
            raise unknown("convention", name, CONVENTIONS)
    return tuple(dict.fromkeys(names))


def _layer(call: LayerCall) -> Layer:
    module: Any = call.module  # as in Layer
    if hasattr(module, "in_channels") and hasattr(module, "groups") and hasattr(module, "kernel_size"):
        k = module.in_channels // module.groups * math.prod(module.kernel_size)
    else:
        k = getattr(module, "in_features", 0)
    return Layer(module, math.prod(call.x), math.prod(call.y), k, call.x, call.y)


def rule_of(module: nn.Module, convention: str) -> Rule | None:
    """Return the rule that `convention` has for exactly this module's type, or None where it does not see it."""
    if next(module.children(), None) is not None:
        return None
    return RULES.get(_FAMILY_OF.get(type(module), ""), {}).get(convention)


def pooling_of_attention(model: nn.Module) -> Skip:
    """Return the global poolings inside attention: some references call them as functions, which thop does not see."""
    return tuple(m for m in model.modules() if isinstance(m, Mean | Pools))


def count(trace: Trace, convention: str, skip: Skip = ()) -> dict[str, int]:
    """Return what `convention` counts in each layer, by module path; `skip`: layers that it does not see.

    Raises UsageError for an unknown convention.
    """
    check([convention])
    skipped = {id(m) for m in skip}
    skipped |= {id(getattr(c.module, "norm", None)) for c in trace.layers if isinstance(c.module, HIDDEN_NORMS)}
    counts: dict[str, int] = {}
    if convention in MODULE_CONVENTIONS:
        for call in trace.layers:
            rule = rule_of(call.module, convention)
            if rule is None or id(call.module) in skipped:
                continue
            value = int(rule(_layer(call)))
            # thop 0.0.23 assigns where later ones add: of a module that runs three times only the last call counts.
            counts[call.path] = value if convention == "thop-1907" else counts.get(call.path, 0) + value
        return counts
    for op in trace.ops:
        extra = FVCORE[op.name](op) if convention == "fvcore" and op.name in FVCORE else 0
        if op.macs or extra:
            counts[op.path] = counts.get(op.path, 0) + op.macs + extra
    return counts


def seen_parameters(trace: Trace, convention: str) -> int:
    """Return the parameters that a thop generation finds: those of leaf modules of a type that it knows and that ran.

    thop 0.0.23 takes every leaf module, known or not; all miss what a module with children holds directly.
    """
    modules = {id(c.module): c.module for c in trace.layers}.values()
    leaves = [m for m in modules if next(m.children(), None) is None]
    if convention != "thop-1907":
        leaves = [m for m in leaves if rule_of(m, convention) is not None]
    return sum(p.numel() for p in {id(p): p for m in leaves for p in m.parameters(recurse=False)}.values())
