"""Name -> method. A table of text: nothing heavy is imported before a method is asked for."""

import fnmatch
import importlib
import inspect
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from excite.common.checks import Positive, check, check_options, shown
from excite.errors import UsageError, near, unknown

if TYPE_CHECKING:
    from torch import nn

    from excite.methods.base import Method
    from excite.methods.identity import Init

# Any: a method's options are of every kind; `check_options` holds them against its annotations.


class Entry(NamedTuple):
    """Where a method's card is (`module:attribute` in `excite.methods`), and what the method is, in a few words.

    title: its long name, lower case with underscores, for those who look for that.
    """

    card: str
    summary: str
    title: str = ""


METHODS: dict[str, Entry] = {
    "none": Entry("none:NONE", "no attention, the baseline"),
    "se": Entry("senet:SE", "mean, bottleneck of two layers, sigmoid", "squeeze_excitation"),
    "se_var1": Entry("ecanet:SE_VAR1", "mean and sigmoid, no parameters"),
    "se_var2": Entry("ecanet:SE_VAR2", "mean, one weight per channel, sigmoid"),
    "se_var3": Entry("ecanet:SE_VAR3", "mean, full matrix, sigmoid"),
    "eca": Entry("ecanet:ECA", "mean, 1-D convolution across channels, sigmoid", "efficient_channel_attention"),
    "se_gc": Entry("ecanet:SE_GC", "mean, block-diagonal matrix, sigmoid"),
    "eca_ns": Entry("ecanet:ECA_NS", "eca with a kernel of its own for every channel"),
    "ceca": Entry("ecanet:CECA", "eca with circular padding"),
    "srm": Entry("srm:SRM", "mean and deviation, two weights per channel, batch norm, sigmoid", "style_recalibration"),
    "gct": Entry("gct:GCT", "L2 norm, competition between channels, 1 + tanh", "gated_channel_transformation"),
    "fca": Entry(
        "fcanet:FCA", "one cosine coefficient per channel, bottleneck, sigmoid", "frequency_channel_attention"
    ),
    "ge": Entry("ge:GE", "gather over windows or the whole map, excite by a sigmoid", "gather_excite"),
    "ese": Entry("vovnet:ESE", "mean, full matrix, hard sigmoid", "effective_squeeze_excitation"),
    "gsop": Entry(
        "gsop:GSOP", "covariance of channels or positions, row-wise convolution, sigmoid", "second_order_pooling"
    ),
    "cbam": Entry("cbam:CBAM", "mean and maximum: channel gate, then spatial gate", "convolutional_block_attention"),
    "bam": Entry("bam:BAM", "channel and dilated spatial branch joined, between stages", "bottleneck_attention"),
    "sa": Entry("sanet:SA", "half of each group weighed by channel, half by position, shuffle", "shuffle_attention"),
    "gc": Entry("gcnet:GC", "softmax-pooled context through a transform, added to every position", "global_context"),
    "nl": Entry("non_local:NL", "every position attends to all others", "non_local"),
    "a2": Entry("a2net:A2", "second-order gather, soft distribution to positions", "double_attention"),
    "psa": Entry(
        "psa:PSA",
        "four convolutions of growing kernels, weighted by competing bottlenecks",
        "pyramid_squeeze_attention",
    ),
    "ma": Entry("emanet:MA", "psa with a mixer in every branch and a softmax-scaled norm", "multi_scale_attention"),
    "coord": Entry(
        "coord:COORD", "means along rows and columns, joint bottleneck, a sigmoid for each axis", "coordinate_attention"
    ),
    "simple_coord": Entry("coord:SIMPLE_COORD", "coord without norm, one sigmoid of the sum of both axes"),
    "strip": Entry("coord:STRIP", "means along rows and columns, depth-wise convolutions, one sigmoid of the sum"),
    "ela": Entry(
        "ela:ELA",
        "means along rows and columns, depth-wise convolutions and group norm, sigmoids",
        "efficient_local_attention",
    ),
    "simam": Entry("simam:SIMAM", "a weight for every neuron by its distance to the mean, no parameters"),
    "cse": Entry("scse:CSE", "mean, bottleneck with biases, sigmoid"),
    "sse": Entry("scse:SSE", "a 1x1 convolution to one map, sigmoid: positions alone"),
    "scse": Entry("scse:SCSE", "cse and sse side by side, added", "concurrent_spatial_channel"),
    "triplet": Entry("triplet:TRIPLET", "three spatial gates, each across another axis, averaged"),
    "mca": Entry(
        "mca:MCA", "a gate of mean and deviation along every axis, averaged", "multidimensional_collaborative_attention"
    ),
    "sge": Entry("sge:SGE", "positions by their likeness to the mean of their group", "spatial_group_enhance"),
    "ema": Entry(
        "ema:EMA",
        "two branches, axis means and a 3x3 convolution, that weigh each other's positions",
        "efficient_multi_scale_attention",
    ),
    "mlca": Entry(
        "mlca:MLCA", "eca of the whole map and of every cell of a grid, mixed", "mixed_local_channel_attention"
    ),
    "scsa": Entry(
        "scsa:SCSA",
        "strips by convolutions of four sizes, then self-attention between channels",
        "spatial_channel_synergistic_attention",
    ),
    "nam": Entry("nam:NAM", "batch norm, its scales as weights, sigmoid", "normalization_attention"),
    "cpca": Entry(
        "cpca:CPCA",
        "channel gate, then a map from depth-wise strip convolutions, multiplied",
        "channel_prior_attention",
    ),
    "lct": Entry(
        "lct:LCT", "mean, norm within groups of channels, scale and shift, sigmoid", "linear_context_transform"
    ),
    "grn": Entry("grn:GRN", "L2 norm over its mean over channels, scale and shift", "global_response_norm"),
    "sk": Entry("sknet:SK", "convolutions of several sizes that compete channel by channel", "selective_kernel"),
    "split": Entry("resnest:SPLIT", "parts of one wide convolution that compete channel by channel", "split_attention"),
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
        raise _unknown(name)
    module, _, attribute = METHODS[name].card.partition(":")
    method: Method = getattr(importlib.import_module(f"excite.methods.{module}"), attribute)
    return method


# What some call a method beside its name and its title.
_CALLED = {"ca": "coord", "coordatt": "coord", "skconv": "sk", "channel_attention": "se", "spatial_attention": "sse"}
# What people add to a method's name.
_SUFFIX = re.compile("_?(net|attention|attn|att|module|layer|block)$")


def _unknown(name: str) -> UsageError:
    """Return the error for an unknown method, with names alike: in writing, in beginning, or by their long name."""
    plain = re.sub("[^a-z0-9]+", "_", name.lower()).strip("_")
    names = (
        {entry.title: key for key, entry in METHODS.items() if entry.title} | _CALLED | {key: key for key in METHODS}
    )
    bare = _SUFFIX.sub("", plain)
    paper = [key for key, entry in METHODS.items() if entry.card.partition(":")[0] == plain]  # the paper's own network
    exact = [names[form] for form in (plain, bare) if form in names and (not paper or names[form] in paper)] or paper
    longer = [key for key in METHODS if plain and key.startswith(f"{plain}_")]
    close = list(dict.fromkeys(exact or longer or [names[alike] for alike in near(plain, names)]))
    if not close:
        return unknown("method", name, METHODS)
    return UsageError(f"unknown method {name!r}; did you mean {' or '.join(map(repr, close[:3]))}?")


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
