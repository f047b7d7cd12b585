"""What every contract test runs over: all methods of the registry, and the variants worth a case of their own.

A new method needs no line here: it is tested with 16 channels and its default options.
"""

from typing import Any, NamedTuple

import torch
from torch import nn

import excite
from excite.registry import METHODS, get_method, method_options


class Case(NamedTuple):
    """A method with options and channels that suit small maps."""

    method: str
    options: dict[str, Any]
    channels: int = 16

    @property
    def dims(self) -> tuple[int, ...]:
        return get_method(self.method).dims if "size" not in self.options else (2,)

    def build(self, dims: int = 2, seed: int = 0, **more: Any) -> nn.Module:
        """Build the module for maps with `dims` space axes."""
        torch.manual_seed(seed)
        options = {**self.options, **more}
        if "dims" in method_options(self.method):
            options["dims"] = dims
        return excite.create_attention(self.method, self.channels, **options)

    def map(self, dims: int = 2, n: int = 4, side: int = 9, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Return a random input."""
        if "size" in self.options:
            side = int(self.options["size"])
        return torch.randn(n, self.channels, *(side,) * dims, generator=torch.Generator().manual_seed(1)).to(dtype)


# Options that make a method fit 16 channels, and further variants (after a slash).
SPECIAL = {
    "sa": Case("sa", {"groups": 2}),
    "ma": Case("ma", {"mixer_size": 3}),
    "gsop": Case("gsop", {"reduced": 4}),
    "ema": Case("ema", {"groups": 4}),
    "sge": Case("sge", {"groups": 4}),
}
VARIANTS = {
    "se/bias": Case("se", {"bias": True, "divisor": 8}),
    "se/timm": Case("se", {"bias": True, "pool": "avg+max", "norm": True, "gate": "hard_sigmoid"}),
    "se/max": Case("se", {"pool": "max", "reduction": 4}),
    "eca/mlp": Case("eca", {"use_mlp": True}),
    "ese/max": Case("ese", {"pool": "max", "gate": "sigmoid"}),
    "se_gc/size": Case("se_gc", {"group_size": 4, "bias": True}),
    "gct/l1": Case("gct", {"norm": "l1"}),
    "gct/after_relu": Case("gct", {"norm": "l1", "after_relu": True}),
    "fca/fixed": Case("fca", {"size": 7, "frequencies": "low4"}),
    "fca/bot": Case("fca", {"frequencies": "bot8"}),
    "ge/average4": Case("ge", {"extent": 4}),
    "ge/theta2": Case("ge", {"variant": "theta", "extent": 2}),
    "ge/theta_plus4": Case("ge", {"variant": "theta+", "extent": 4, "reduction": 4}),
    "ge/theta_global": Case("ge", {"variant": "theta", "size": 7, "bias": True}),
    "ge/theta_plus_global": Case("ge", {"variant": "theta+", "size": 7}),
    "gsop/position": Case("gsop", {"mode": "position", "reduced": 4, "grid": 3}),
    "gsop/sum": Case("gsop", {"mode": "sum", "reduced": 4, "grid": 3}),
    "gsop/concat": Case("gsop", {"mode": "concat", "reduced": 4, "grid": 3}),
    "gsop/max": Case("gsop", {"mode": "max", "reduced": 4, "grid": 8, "stride": 2}),
    "cbam/positions": Case("cbam", {"channel": False, "gate": "hard_sigmoid"}),
    "cbam/channel": Case("cbam", {"spatial": False}),
    "cbam/timm": Case("cbam", {"mlp_bias": False, "max_first": False, "reduction": 4}),
    "cbam/light": Case("cbam", {"average_pools": True}),
    "cbam/plain": Case("cbam", {"spatial_norm": False, "kernel_size": 3, "pools": "avg,max,lp,lse"}),
    "bam/product": Case("bam", {"combine": "product", "depth": 1, "dilation": 1}),
    "gc/multiply": Case("gc", {"fusion": "multiply", "zero_init": False}),
    "gc/both": Case("gc", {"fusion": "both", "pool": "average"}),
    "nl/gaussian": Case("nl", {"mode": "gaussian", "norm": False, "scale": True}),
    "nl/dot": Case("nl", {"mode": "dot", "subsample": True}),
    "a2/residual": Case("a2", {"residual": True, "maps": 3}),
    "coord/timm": Case("coord", {"bias": False, "norm": False, "skip": True, "gate": "hard_sigmoid"}),
    "simple_coord/skip": Case("simple_coord", {"skip": True, "bias": False}),
    "strip/plain": Case("strip", {"conv": False, "gate": "hard_sigmoid"}),
    "ela/timm": Case("ela", {"shared": False, "groups": 1, "act": True, "skip": True}),
    "ela/batch": Case("ela", {"norm": "batch", "bias": True}),
    "scse/max": Case("scse", {"combine": "max"}),
    "triplet/rotated": Case("triplet", {"spatial": False, "kernel_size": 3}),
    "mca/space": Case("mca", {"channel": False, "kernel_size": 5}),
    "mlca/learned": Case("mlca", {"learned": True, "local_size": 2, "kernel_size": 3}),
    "scsa/softmax": Case("scsa", {"gate": "softmax", "window": 3, "heads": 2, "bias": True}),
    "scsa/global": Case("scsa", {"window": 0}),
    "cpca/small": Case("cpca", {"kernels": (3,), "first": 3}),
    "sk/timm": Case("sk", {"split": True, "groups": "1,1", "divisor": 8, "least": 8}),
    "sk/external": Case("sk", {"kernels": (1, 3, 5), "groups": (1, 2, 4), "bias": True, "norm": False}),
    "split/groups": Case("split", {"groups": 2, "radix": 4, "hidden": 8}),
    "split/alone": Case("split", {"radix": 1, "norm": False, "bias": True}),
}
PLAIN = {name: SPECIAL.get(name, Case(name, {})) for name in METHODS}
CASES = {**PLAIN, **VARIANTS}

# The output is of a higher order in the input than the first: beyond float16 for large maps, by definition.
BEYOND_HALF = {name for name, case in CASES.items() if case.method == "cpca" or case.options.get("mode") == "dot"}

# A learned gather over the whole map fixes the map's size; that is its mathematics.
FIXED_SIZE = {name for name, case in CASES.items() if case.method == "ge" and "size" in case.options}


def shake(module: nn.Module) -> nn.Module:
    """Move parameters and statistics away from special initial values (zeros hide paths)."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator).to(p))
        for name, b in module.named_buffers():
            if name.endswith("running_var"):
                b.copy_(0.5 + torch.rand(b.shape, generator=generator))
    return module
