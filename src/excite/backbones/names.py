"""The names of all networks: a table of text, nothing heavy is imported."""

import fnmatch
import re
from typing import NamedTuple

from excite.errors import ExciteError, UsageError, near
from excite.registry import METHODS


class Entry(NamedTuple):
    """A backbone: its module in `excite.backbones`, its function there, and what it is."""

    module: str
    function: str
    summary: str


def _resnets() -> dict[str, Entry]:
    table = {}
    for depth in (18, 34, 50, 101, 152):
        table[f"resnet{depth}"] = Entry("resnet", f"resnet{depth}", f"ResNet-{depth}, ImageNet stem")
        table[f"resnet{depth}_cifar"] = Entry("resnet", f"resnet{depth}_cifar", f"ResNet-{depth}, 3x3 stem for 32x32")
    for depth in (20, 32, 44, 56, 110):
        table[f"resnet{depth}"] = Entry("resnet_small", f"resnet{depth}", f"ResNet-{depth} of the CIFAR family")
    return table


BACKBONES: dict[str, Entry] = {
    **_resnets(),
    "mobilenet_v2": Entry("mobilenetv2", "mobilenet_v2", "MobileNetV2 (width_mult)"),
    "mobilenet_v2_cifar": Entry("mobilenetv2", "mobilenet_v2_cifar", "MobileNetV2, strides for 32x32"),
    "regnetx_200mf_cifar": Entry("regnet", "regnetx_200mf_cifar", "RegNetX-200MF for 32x32"),
    "regnetx_400mf_cifar": Entry("regnet", "regnetx_400mf_cifar", "RegNetX-400MF for 32x32"),
    "regnety_400mf_cifar": Entry("regnet", "regnety_400mf_cifar", "RegNetY-400MF (with its own SE) for 32x32"),
}

# Networks that papers name after themselves: a method on a backbone.
ALIASES: dict[str, str] = {
    f"{paper}{depth}{stem}": f"{method}_resnet{depth}{stem}"
    for paper, method in (("emanet", "ma"), ("epsanet", "psa"))
    for depth in (50, 101)
    for stem in ("", "_cifar")
}


def _as_papers_write(name: str) -> list[str]:
    """Return our name for one that has the backbone first (resnet50_cbam), or the method's network (ECA-Net50)."""
    plain = re.sub("[^a-z0-9]+", "_", name.lower()).strip("_")
    for backbone in sorted(BACKBONES, key=len, reverse=True):
        if plain.startswith(f"{backbone}_") and plain.removeprefix(f"{backbone}_") in METHODS:
            return [f"{plain.removeprefix(f'{backbone}_')}_{backbone}"]
    match = re.fullmatch(r"([a-z0-9]+?)_?net_?(\d+)(_cifar)?", plain)
    if match and match[1] in METHODS and f"resnet{match[2]}{match[3] or ''}" in BACKBONES:
        return [f"{match[1]}_resnet{match[2]}{match[3] or ''}"]
    return []


def split_name(name: str) -> tuple[str, str]:
    """Return (method, backbone) of a name such as "eca_resnet50"; a bare backbone has method "none".

    Raises UsageError with near names.
    """
    name = ALIASES.get(name, name)
    if name in BACKBONES:
        return "none", name
    for cut in sorted((i for i, letter in enumerate(name) if letter == "_"), reverse=True):
        method, backbone = name[:cut], name[cut + 1 :]
        if method in METHODS and backbone in BACKBONES:
            return method, backbone
    close = _as_papers_write(name) or near(name, all_names()) or near(name, BACKBONES)
    remedy = f"did you mean {' or '.join(repr(n) for n in close)}?" if close else "`excite list models` shows them"
    raise UsageError(f"unknown model {name!r}; names are <method>_<backbone> or <backbone>; {remedy}")


def check_registered(source: str, name: str, attached: str | None = None) -> None:
    """Raise ExciteError where a file's network has a method that is not in the registry: somebody's own.

    source: the file; name: the network's; attached: the method that was attached to it.
    """
    parts = [name.removesuffix(f"_{b}") for b in BACKBONES if name.endswith(f"_{b}")]
    known = not parts or name in ALIASES or any(part in METHODS for part in parts)
    unknown_ones = [] if known else [min(parts, key=len)]
    unknown_ones += [attached] if attached is not None and attached not in METHODS else []
    for method in unknown_ones:
        raise ExciteError(
            f"{source} holds a network with the method {method!r}, which is not known here; if it is a method of your "
            f"own, register it first: excite.register_method({method!r}, ...), or EXCITE_METHODS=FILE.py:NAME before a "
            "command"
        )


def all_names() -> list[str]:
    """Return every network's name: each backbone alone, then with each method, then the papers' own names."""
    methods = [m for m in METHODS if m != "none"]
    return [*BACKBONES, *(f"{m}_{b}" for m in methods for b in BACKBONES), *ALIASES]


def list_models(pattern: str = "*") -> list[str]:
    """Return the names of our networks that match a shell pattern."""
    return [name for name in all_names() if fnmatch.fnmatchcase(name, pattern)]
