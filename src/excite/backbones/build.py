"""From a name and options to a network of ours."""

import importlib
import inspect
import math
from collections.abc import Callable, Mapping, Set
from typing import Any

from torch import nn

from excite.backbones.dilation import dilate
from excite.backbones.emca_plan import emca_options, emca_spec
from excite.backbones.features import level_indices
from excite.backbones.names import BACKBONES, split_name
from excite.backbones.network import Network, StagedNetwork
from excite.backbones.placement import AttentionSpec
from excite.common.options import check_names
from excite.errors import UsageError
from excite.registry import get_method, method_options

# Any: timm's options and configuration: texts, numbers and tuples by name.

COMMON = {"attention", "num_classes", "in_channels"}
# What every network of ours can be told beside its own options, as timm's can; and what it is else.
HOST: dict[str, Any] = {
    "drop_rate": 0.0,
    "drop_path_rate": 0.0,
    "output_stride": None,
    "global_pool": "avg",
    "features_only": False,
    "out_indices": None,
}


def build_network(
    name: str, num_classes: int, in_channels: int, placement: str, options: Mapping[str, object]
) -> nn.Module:
    """Build "eca_resnet50" and its like; options: the backbone's, the method's and HOST's, in one mapping.

    num_classes: 0 for no classifier. Raises UsageError for unknown names and options, with near names.
    """
    if "in_chans" in options:
        raise UsageError(f"model {name!r}: the option in_chans is called in_channels here")
    method, backbone = split_name(name)
    build = _build_of(backbone)
    emca = get_method(method).role == "network"
    of_method = options_of_method(method)
    known = of_method | options_of_backbone(backbone)
    check_names(f"model {name!r}", options, known)
    own = {key: value for key, value in options.items() if key in of_method}
    spec = emca_spec(method, own, placement) if emca else AttentionSpec(method, own, placement)
    rest = {key: value for key, value in options.items() if key not in of_method and key not in HOST}
    network: Network = build(attention=spec, num_classes=num_classes or 1000, in_channels=in_channels, **rest)
    network.num_classes = num_classes
    adapt(network, num_classes, {**HOST, **{key: options[key] for key in HOST if key in options}})
    network.pretrained_cfg = described(network, name, in_channels)
    return network


def adapt(network: Network, num_classes: int, options: Mapping[str, Any]) -> None:
    """Change a network that was built as HOST's options say; its first weights stay as they are.

    Raises UsageError for values that cannot be.
    """
    for name in ("drop_rate", "drop_path_rate"):
        if isinstance(options[name], bool) or not isinstance(options[name], int | float) or not 0 <= options[name] < 1:
            raise UsageError(f"option {name}={options[name]!r}; expected a number from 0 to below 1")
    network.drop_rate = float(options["drop_rate"])
    blocks = network.blocks()
    for i, block in enumerate(blocks):  # more and more often, as in the paper
        block.drop_path = options["drop_path_rate"] * i / max(len(blocks) - 1, 1)
    if options["output_stride"] is not None:
        if network.spec.card.role == "conv":
            raise UsageError(
                f"option output_stride: method {network.spec.method!r} has the strided convolutions itself"
            )
        reduction = network.levels()[-1].reduction // math.prod(block.stride for block in blocks)
        dilate(blocks, reduction, options["output_stride"])
    if not num_classes or options["global_pool"] != "avg":
        network.reset_classifier(num_classes, options["global_pool"])
    if options["features_only"] is not True:
        if options["features_only"] is not False:
            raise UsageError(f"option features_only={options['features_only']!r}; expected true or false")
        if options["out_indices"] is not None:
            raise UsageError("option out_indices belongs to features_only=True")
        return
    network.keep_levels(level_indices(options["out_indices"], len(network.levels())))


def described(network: Network, name: str, in_channels: int) -> dict[str, Any]:  # as timm has it
    """Return how the family's recipes prepare images, in timm's words; there are no weights to download."""
    small = network.levels()[0].reduction == 1
    side = 32 if small else 224
    first = "conv1" if isinstance(network, StagedNetwork) else "features.0.0"
    cifar = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2023, 0.1994, 0.2010), "crop_pct": 1.0}
    imagenet = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "crop_pct": 0.875}
    return {
        "architecture": name,
        "url": "",
        "num_classes": network.num_classes,
        "input_size": (in_channels, side, side),
        "pool_size": (side // network.levels()[-1].reduction,) * 2,
        "interpolation": "bilinear",
        "first_conv": first,
        "classifier": network.classifier_name,
        **(cifar if small else imagenet),
    }


def options_of_method(method: str) -> Set[str]:
    """Return the options of a network that are its method's; all others are the backbone's or HOST's."""
    emca = get_method(method).role == "network"
    return emca_options(method) if emca else method_options(method).keys() | {"init"}


def options_of_backbone(backbone: str) -> Set[str]:
    """Return the options of a network that are its backbone's, from its signature, and HOST's."""
    return inspect.signature(_build_of(backbone)).parameters.keys() - COMMON | HOST.keys()


def _build_of(backbone: str) -> Callable[..., Network]:
    entry = BACKBONES[backbone]
    build: Callable[..., Network] = getattr(importlib.import_module(f"excite.backbones.{entry.module}"), entry.function)
    return build
