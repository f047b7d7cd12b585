"""Name -> method. A table of text: nothing heavy is imported before a method is asked for."""

import fnmatch
import importlib
import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from excite.common.checks import Positive, check, check_options, shown
from excite.errors import UsageError, near, unknown

if TYPE_CHECKING:
    from torch import nn

    from excite.methods.base import Method
    from excite.methods.identity import Init


class Entry(NamedTuple):
    """Where a method's card is (`module:attribute` in `excite.methods`), and what the method is, in a few words."""

    card: str
    summary: str


METHODS: dict[str, Entry] = {
    "none": Entry("none:NONE", "no attention, the baseline"),
    "se": Entry("senet:SE", "mean, bottleneck of two layers, sigmoid"),
    "se_var1": Entry("ecanet:SE_VAR1", "mean and sigmoid, no parameters"),
    "se_var2": Entry("ecanet:SE_VAR2", "mean, one weight per channel, sigmoid"),
    "se_var3": Entry("ecanet:SE_VAR3", "mean, full matrix, sigmoid"),
    "eca": Entry("ecanet:ECA", "mean, 1-D convolution across channels, sigmoid"),
    "se_gc": Entry("ecanet:SE_GC", "mean, block-diagonal matrix, sigmoid"),
    "eca_ns": Entry("ecanet:ECA_NS", "eca with a kernel of its own for every channel"),
    "ceca": Entry("ecanet:CECA", "eca with circular padding"),
    "srm": Entry("srm:SRM", "mean and deviation, two weights per channel, batch norm, sigmoid"),
    "gct": Entry("gct:GCT", "L2 norm, competition between channels, 1 + tanh"),
    "fca": Entry("fcanet:FCA", "one cosine coefficient per channel, bottleneck, sigmoid"),
    "ge": Entry("ge:GE", "gather over windows or the whole map, excite by a sigmoid"),
    "ese": Entry("vovnet:ESE", "mean, full matrix, hard sigmoid"),
    "gsop": Entry("gsop:GSOP", "covariance of channels or positions, row-wise convolution, sigmoid"),
    "cbam": Entry("cbam:CBAM", "mean and maximum: channel gate, then spatial gate"),
    "bam": Entry("bam:BAM", "channel and dilated spatial branch joined, between stages"),
    "sa": Entry("sanet:SA", "half of each group weighed by channel, half by position, shuffle"),
    "gc": Entry("gcnet:GC", "softmax-pooled context through a transform, added to every position"),
    "nl": Entry("non_local:NL", "every position attends to all others"),
    "a2": Entry("a2net:A2", "second-order gather, soft distribution to positions"),
    "psa": Entry("psa:PSA", "four convolutions of growing kernels, weighted by competing bottlenecks"),
    "ma": Entry("emanet:MA", "psa with a mixer in every branch and a softmax-scaled norm"),
    "emca_se": Entry("emca:EMCA_SE", "SE whose descriptor is fused with those of earlier blocks (networks)"),
    "emca_eca": Entry("emca:EMCA_ECA", "ECA whose descriptor is fused with those of earlier blocks (networks)"),
    "emca_srm": Entry("emca:EMCA_SRM", "SRM whose descriptor is fused with those of earlier blocks (networks)"),
}


def list_methods(pattern: str = "*") -> list[str]:
    """Return the names of all methods that match a shell pattern, in the table's order."""
    return [name for name in METHODS if fnmatch.fnmatchcase(name, pattern)]


def get_method(name: str) -> "Method":
    """Return a method's card. Raises UsageError (with near names) for an unknown name."""
    if name not in METHODS:
        raise unknown("method", name, METHODS)
    module, _, attribute = METHODS[name].card.partition(":")
    method: Method = getattr(importlib.import_module(f"excite.methods.{module}"), attribute)
    return method


def method_options(name: str) -> dict[str, inspect.Parameter]:
    """Return the options that a method's build function takes, by name."""
    parameters = inspect.signature(get_method(name).build).parameters
    return {k: p for k, p in parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY}


def create_attention(name: str, channels: int, *, init: "Init" = "paper", **options: Any) -> "nn.Module":
    """Build method `name` over `channels` channels.

    init: "paper" starts as the method does; "identity" returns its input until it has learned, so that a trained
    network computes at first what it computed before (one more number per module blends the attention in).
    Raises UsageError for an unknown method or option, fewer than one channel, and an option of a wrong type or out of
    its range, or without effect beside the others.
    """
    method = get_method(name)
    known = method_options(name)
    for option in options:
        if option not in known:
            close = near(option, known)
            remedy = f"did you mean {close[0]!r}?" if close else f"it has: {', '.join(known) or 'no options'}"
            raise UsageError(f"method {name!r} has no option {option!r}; {remedy}")
    check(name, "channels", channels, Positive)
    check(name, "init", init, Literal["paper", "identity"])
    check_options(name, method.build, options)
    _refuse_idle(name, method, {k: p.default for k, p in known.items()}, options)
    module = method.build(channels, **options)
    if init == "paper":
        return module
    from excite.methods.identity import start_as_identity

    return start_as_identity(name, method, module, changed=bool(options))


def _refuse_idle(name: str, method: "Method", defaults: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    values = {**defaults, **options}
    for need in method.needs:
        for option in need.options:
            if values[option] != defaults[option] and not need.holds(values):
                raise UsageError(
                    f"{name}: {option}={shown(values[option])} has no effect {need.otherwise}; leave it out"
                )
