"""Name -> method. A table of text: nothing heavy is imported before a method is asked for.

Methods of a user's own join the table by `register_method`: in Python, as FILE.py:NAME where a command takes a method,
or by EXCITE_METHODS=FILE.py:NAME,... for every command and for the processes that it starts.
"""

import fnmatch
import importlib
import inspect
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from excite.common.checks import Positive, annotations, check, check_options, shown
from excite.common.pyfile import is_python, load_module, member
from excite.errors import ExciteError, UsageError, near, unknown

if TYPE_CHECKING:
    from torch import nn

    from excite.methods.base import Method, Need, Role
    from excite.methods.identity import Init

# Any: a method's options are of every kind; `check_options` holds them against its annotations.


class Entry(NamedTuple):
    """Where a method's card is (`module:attribute` in `excite.methods`), and what the method is, in a few words.

    Of a user's own method it is the card itself. title: its long name, lower case with underscores, for those who look
    for that.
    """

    card: "str | Method"
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
    card = METHODS[name].card
    if not isinstance(card, str):
        return card
    module, _, attribute = card.partition(":")
    method: Method = getattr(importlib.import_module(f"excite.methods.{module}"), attribute)
    return method


def is_own(name: str) -> bool:
    """Return whether a method is a user's own, that is, registered."""
    return name in METHODS and not isinstance(METHODS[name].card, str)


OWN = "excite_method"  # the attribute by which a module of a user's own method is known as attention
VARIABLE = "EXCITE_METHODS"


def register_method(
    name: str,
    build: "Callable[..., nn.Module]",
    *,
    paper: str = "",
    equation: str = "",
    summary: str = "",
    dims: Sequence[int] = (2,),
    role: "Role" = "residual",
    needs: "Sequence[Need]" = (),
) -> None:
    """Make a method of your own one like all others: in network names, attach, compare, profile, checkpoints, commands.

    name: lower case, as in "NAME_resnet20". build: a class or function `build(channels, **options) -> nn.Module` from
    `[n c *space]` to the same shape; its options have defaults, and their annotations are checked. paper, equation,
    summary: for people (paper as "Family names: Title, VENUE YEAR, arXiv:ID"; summary: by default the first line of the
    docstring). dims: the numbers of space axes that it takes. role: its place: "residual" (the end of a residual
    branch), "between-stages", or "conv" (instead of a 3x3 convolution; then build takes out_channels and stride).
    needs: options that have no effect beside others.
    It is tried on a small map at once. Registering the same class or function again (a cell that runs twice) replaces
    it. Raises UsageError for a name that is taken or none, for a signature that does not fit, and where the trial
    fails, or returns something else than a map of the right shape.
    """
    from excite.methods.base import Method

    if not re.fullmatch("[a-z][a-z0-9]*(_[a-z0-9]+)*", name):
        raise UsageError(f"method name {name!r}: expected lower-case letters, digits and underscores, as in 'my_gate'")
    _refuse_taken(name, build)
    check(name, "role", role, Literal["residual", "between-stages", "conv"])
    check(name, "dims", list(dims), Sequence[Literal[1, 2, 3]])
    _check_signature(name, build, role)
    method = Method(build, equation, paper, dims=tuple(dims), role=role, needs=tuple(needs))
    _try(name, method)
    about = str(build.__doc__ or "").strip() if hasattr(build, "__qualname__") else ""
    METHODS[name] = Entry(method, summary or about.partition("\n")[0].rstrip(".") or "a method of your own")


def _refuse_taken(name: str, build: "Callable[..., nn.Module]") -> None:
    if not is_own(name):
        if name in METHODS:
            raise UsageError(f"method name {name!r} is taken: {METHODS[name].summary}; choose another")
        return
    there = get_method(name).build
    if _origin(there) != _origin(build):
        raise UsageError(f"method name {name!r} is taken: {'.'.join(_origin(there))}; choose another")


def _origin(build: object) -> tuple[str, str]:
    """Return the module and the name of a class or function; a notebook's cell that runs again gives the same."""
    kind = build if hasattr(build, "__qualname__") else type(build)
    return str(kind.__module__), str(kind.__qualname__)


def _check_signature(name: str, build: "Callable[..., nn.Module]", role: str) -> None:
    """Raise UsageError unless a function takes the channels first and can do without the rest."""
    what = f"method {name!r}: its class or function"
    try:
        parameters = list(inspect.signature(build).parameters.values())
        annotations(build)
    except (TypeError, ValueError, NameError) as error:
        raise UsageError(f"{what} cannot be read: {error}") from None
    if not parameters or parameters[0].kind not in (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    ):
        raise UsageError(f"{what} takes no channels; expected build(channels, **options)")
    wanted = {"out_channels", "stride"} if role == "conv" else set()
    options = {p.name: p for p in parameters[1:] if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    if wanted - options.keys():
        raise UsageError(f"{what} takes no {min(wanted - options.keys())}, which role='conv' gives it")
    for option, parameter in options.items():
        if parameter.default is parameter.empty and option not in wanted:
            raise UsageError(f"{what} needs {option}; give this option a default, as networks give the channels alone")


def _try(name: str, method: "Method") -> None:
    """Raise UsageError unless a method builds a module that returns maps of the right shape."""
    import torch
    from torch import nn

    channels, side = 64, 8
    given = {"out_channels": channels, "stride": 1} if method.role == "conv" else {}
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        try:
            module = method.build(channels, **given)
        except Exception as error:
            raise UsageError(f"method {name!r} cannot be built over {channels} channels: {_words(error)}") from error
        if not isinstance(module, nn.Module):
            raise UsageError(f"method {name!r} builds {type(module).__name__}, not a torch.nn.Module")
        for dims in method.dims:
            x = torch.randn(2, channels, *(side,) * dims)
            try:
                y = module.eval()(x)
            except Exception as error:
                remedy = f"; dims={method.dims} says that it takes such maps" if method.dims != (2,) else ""
                raise UsageError(f"method {name!r} fails on a map {list(x.shape)}: {_words(error)}{remedy}") from error
            got = list(y.shape) if isinstance(y, torch.Tensor) else type(y).__name__
            if got != list(x.shape):
                raise UsageError(f"method {name!r} makes {got} of a map {list(x.shape)}; it must return that shape")


def _words(error: Exception) -> str:
    """Return an error of somebody's code in one line."""
    text = " ".join(str(error).split())
    return text if isinstance(error, ExciteError) else f"{type(error).__name__}: {text}"


def resolve_method(name: str) -> str:
    """Return a method's name in the table; FILE.py:NAME is run and registered first, for this process and its children.

    NAME: a class or function `build(channels, **options)`, which gets its own name in lower case (MyGate: "my_gate"),
    or a method that the file registers itself. Only what a user typed may come here, never what a file says.
    Raises UsageError where file or name are missing or the method does not fit, ExciteError where the file fails.
    """
    if not is_python(name):
        return name
    path, _, member_name = name.rpartition(":")
    before = dict(METHODS)
    module = load_module("method", name, path)
    _list([*_listed(), _whole(name)])
    registered = {key: entry for key, entry in METHODS.items() if entry is not before.get(key)}
    if member_name in registered:
        return member_name
    build = member("method", name, module)
    own = next((key for key in registered if get_method(key).build is build), None)
    if own is None:
        own = re.sub("(?<=[a-z0-9])(?=[A-Z])", "_", member_name).lower().strip("_")
        register_method(own, build)
    return own


def _listed() -> list[str]:
    return [part.strip() for part in os.environ.get(VARIABLE, "").split(",") if part.strip()]


def _list(names: Sequence[str]) -> None:
    os.environ[VARIABLE] = ",".join(dict.fromkeys(names))


def _whole(name: str) -> str:
    """Return FILE.py or FILE.py:NAME with the whole path: processes that are started from here may be elsewhere."""
    path, colon, member_name = name.rpartition(":") if is_python(name) else (name, "", "")
    return f"{Path(path).expanduser().resolve()}{colon}{member_name}"


def load_listed() -> None:
    """Run the files that EXCITE_METHODS lists, and register the methods that it names. Raises as `resolve_method`."""
    names = _listed()
    if names:
        _list([_whole(name) for name in names])
    for name in names:
        if is_python(name):
            resolve_method(name)
        else:
            load_module("method", f"{VARIABLE}={name}", name)


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
    paper = [key for key, entry in METHODS.items() if str(entry.card).partition(":")[0] == plain]  # the paper's network
    exact = [names[form] for form in (plain, bare) if form in names and (not paper or names[form] in paper)] or paper
    longer = [key for key in METHODS if plain and key.startswith(f"{plain}_")]
    close = list(dict.fromkeys(exact or longer or [names[alike] for alike in near(plain, names)]))
    if not close:
        return unknown("method", name, METHODS)
    return UsageError(f"unknown method {name!r}; did you mean {' or '.join(map(repr, close[:3]))}?")


def method_options(name: str) -> dict[str, inspect.Parameter]:
    """Return the options that a method's build function takes, by name: all that it takes behind the channels."""
    parameters = list(inspect.signature(get_method(name).build).parameters.items())[1:]
    named = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return {k: p for k, p in parameters if p.kind in named}


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
    if is_own(name):
        setattr(module, OWN, name)
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


load_listed()
