"""From a name and options to a network of ours."""

import importlib
import inspect
from collections.abc import Callable, Mapping

from torch import nn

from excite.backbones.emca_plan import emca_options, emca_spec
from excite.backbones.names import BACKBONES, split_name
from excite.backbones.placement import AttentionSpec
from excite.common.options import check_names
from excite.registry import get_method, method_options

COMMON = {"attention", "num_classes", "in_channels"}


def build_network(
    name: str, num_classes: int, in_channels: int, placement: str, options: Mapping[str, object]
) -> nn.Module:
    """Build "eca_resnet50" and its like; options: the backbone's and the method's, in one mapping.

    Raises UsageError for unknown names and options, with near names.
    """
    method, backbone = split_name(name)
    entry = BACKBONES[backbone]
    build = getattr(importlib.import_module(f"excite.backbones.{entry.module}"), entry.function)
    emca = get_method(method).role == "network"
    of_method = emca_options(method) if emca else method_options(method).keys() | {"init"}
    known = of_method | backbone_options(build)
    check_names(f"model {name!r}", options, known)
    own = {key: value for key, value in options.items() if key in of_method}
    spec = emca_spec(method, own, placement) if emca else AttentionSpec(method, own, placement)
    rest = {key: value for key, value in options.items() if key not in of_method}
    network: nn.Module = build(attention=spec, num_classes=num_classes, in_channels=in_channels, **rest)
    return network


def backbone_options(build: Callable[..., nn.Module]) -> set[str]:
    """Return the options of a backbone, from its signature: those that no other backbone need have."""
    return set(inspect.signature(build).parameters) - COMMON
