"""What attention is worth: pull the channel weights of stages towards one, or towards another image's, and look."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from excite.attention import ChannelAttention
from excite.errors import UsageError, unknown
from excite.explain.gates import Site, find_sites
from excite.inspect.attention import convolves
from excite.methods.emca import LocalGlobalEmca
from excite.types import Descriptor, FeatureMap, Weights

Amounts = Mapping[int, float]
"""How far each stage is pulled: 0 as it is, 1 the whole way."""


def pull(weights: torch.Tensor, amount: float, towards: Weights | None = None) -> torch.Tensor:
    """Return `w + amount (t - w)`, exact at both ends; t is 1 without `towards`, `[1 c]` or `[n c]`."""
    target = torch.ones_like(weights) if towards is None else towards.to(weights).expand_as(weights)
    return torch.lerp(weights, target, amount)


def can_be_pulled(site: Site) -> bool:
    """True unless the attention holds the convolution whose maps it weighs (psa, sk, split): it cannot be left out."""
    return not convolves(site.module)


@contextmanager
def pulled(model: nn.Module, amounts: Amounts, towards: Mapping[str, Weights] | None = None) -> Iterator[None]:
    """Pull the channel weights of some stages while inside; gradients flow, and all hooks are removed on leaving.

    amounts: from 0 (the stage computes what it did, bit for bit) to 1, by the stages that `find_sites` numbers.
    towards: None for weights of one, which is the network without attention in that stage; else the weights `[1 c]` of
    another image by site, as `recorded` returns them. Attention that weighs positions too, or adds, is pulled as a
    whole: its output towards the input times the target.
    Raises UsageError for unknown stages, amounts outside 0 to 1, sites without a target, and stages whose attention
    takes the place of a convolution.
    """
    sites = find_sites(model)
    stages = sorted({site.stage for site in sites})
    for stage, amount in amounts.items():
        if stage not in stages:
            raise unknown("stage with attention", str(stage), [str(known) for known in stages])
        if not 0 <= amount <= 1:
            raise UsageError(f"stage {stage} cannot be pulled by {amount}; expected 0 (as it is) to 1 (the whole way)")
    with ExitStack() as stack:
        for site in sites:
            amount = amounts.get(site.stage, 0)
            if not amount:  # no hook, so nothing changes, not even which kernels run
                continue
            if not can_be_pulled(site):
                raise UsageError(
                    f"{site.name} takes the place of a convolution, so stage {site.stage} cannot do without it"
                )
            if towards is not None and site.name not in towards:
                raise UsageError(
                    f"no channel weights for {site.name} to be pulled towards; leave stage {site.stage} out"
                )
            stack.enter_context(_change(site.module, amount, None if towards is None else towards[site.name]))
        yield


@contextmanager
def _change(attention: nn.Module, amount: float, target: Weights | None) -> Iterator[None]:
    """Change what an attention multiplies by: at its gate where the gate returns it, else at its output."""
    if isinstance(attention, LocalGlobalEmca):  # its gates are joined by a function that blocks call, not by a module
        with _joined(attention, amount, target):
            yield
        return

    def of_gate(gate: nn.Module, inputs: object, weights: Weights) -> Weights:
        return pull(weights, amount, target)

    def of_output(module: nn.Module, inputs: tuple[FeatureMap, ...], output: FeatureMap) -> FeatureMap:
        x = inputs[0]
        if not isinstance(output, torch.Tensor) or output.shape != x.shape:
            raise UsageError(f"{type(module).__name__} does not return a map like its input, so it cannot be pulled")
        full = x if target is None else x * target.to(x).reshape(*target.shape, *[1] * (x.dim() - 2))
        return torch.lerp(output, full, amount)

    hooked: Callable[..., torch.Tensor] = of_output
    if isinstance(attention, ChannelAttention):
        attention, hooked = attention.gate, of_gate
    handle = attention.register_forward_hook(hooked)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _joined(attention: LocalGlobalEmca, amount: float, target: Weights | None) -> Iterator[None]:
    weigh = attention._gated

    def changed(descriptor: Descriptor, *context: Descriptor) -> Weights:
        return pull(weigh(descriptor, *context), amount, target)

    attention.__dict__["_gated"] = changed  # hides the method of the class
    try:
        yield
    finally:
        del attention.__dict__["_gated"]
