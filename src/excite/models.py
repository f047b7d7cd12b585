"""create_model: one function for every network's name, ours and foreign."""

import importlib
import importlib.util
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from excite.backbones.names import BACKBONES, split_name
from excite.backbones.placement import AttentionSpec
from excite.card import ModelCard
from excite.errors import ExciteError, UsageError, near, unknown
from excite.registry import get_method, method_options


def create_model(
    name: str,
    *,
    num_classes: int = 1000,
    in_channels: int = 3,
    placement: str = "all",
    attach: str | None = None,
    attach_sites: Any = None,
    attach_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> nn.Module:
    """Build a network by name: ours ("eca_resnet50"), "timm/NAME", "torchvision/NAME" or "path/to/file.py:factory".

    placement: "all", "first" or "last" blocks of each stage (our networks). attach: a method to attach after building,
    at `attach_sites` (None: its own place), with `attach_options`. options: the backbone's (stem, width_mult, ...) or
    the method's (reduction, kernel_size="3,5,5,7", ...). The network carries its card as `excite_card` and, where
    something was attached, the AttachReport as `excite_attach_report`.
    Raises UsageError for unknown names and options, with near names.
    """
    if num_classes < 1 or in_channels < 1:
        raise UsageError(f"num_classes and in_channels must be positive, got {num_classes} and {in_channels}")
    _check_attach(attach, attach_sites, attach_options)
    if name.startswith("timm/"):
        model = _timm(name[5:], num_classes, in_channels, options)
    elif name.startswith("torchvision/"):
        model = _torchvision(name[12:], num_classes, in_channels, options)
    elif ":" in name:
        model = _from_file(name, num_classes, in_channels, options)
    else:
        model = _ours(name, num_classes, in_channels, placement, options)
    attached = None
    if attach is not None:
        from excite.surgery import attach as attach_to

        attach_to(model, attach, sites=attach_sites, **dict(attach_options or {}))
        attached = {"method": attach, "sites": attach_sites, "options": dict(attach_options or {})}
    kept = dict(options) if placement == "all" else {**options, "placement": placement}
    model.excite_card = ModelCard(name, num_classes, in_channels, kept, attached)  # type: ignore[assignment]
    return model


def _check_attach(attach: str | None, sites: Any, options: Mapping[str, Any] | None) -> None:
    """Raise UsageError where sites or options go to no attached method, before anything is built."""
    if attach is None and (sites is not None or options):
        raise UsageError("attach_sites and attach_options say where and how to attach; name the method with attach")
    taken = {"model", "method", "sites"} & set(options or {})
    if taken:
        raise UsageError(f"attach_options cannot hold {min(taken)!r}: there are attach and attach_sites for that")


def _split_options(name: str, build: Callable[..., Any], method: str, options: Mapping[str, Any]) -> tuple[dict, dict]:
    """Sort options into the backbone's and the method's."""
    backbone: dict[str, Any] = {}
    attention: dict[str, Any] = {}
    of_backbone = backbone_options(build)
    of_method = set(method_options(method))
    for key, value in options.items():
        if key in of_method:
            attention[key] = value
        elif key in of_backbone:
            backbone[key] = value
        else:
            known = of_backbone | of_method
            close = near(key, known)
            remedy = f"did you mean {close[0]!r}?" if close else f"it has: {', '.join(sorted(known)) or 'none'}"
            raise UsageError(f"model {name!r} has no option {key!r}; {remedy}")
    return backbone, attention


def backbone_options(build: Callable[..., Any]) -> set[str]:
    """Return the options of a backbone function: its own and those of the class that it builds."""
    reserved = {"attention", "num_classes", "in_channels", "kwargs", "self", "depth", "block", "depths"}
    names = set(inspect.signature(build).parameters)
    made = inspect.signature(build).return_annotation
    while inspect.isclass(made) and made is not nn.Module:
        names |= set(inspect.signature(made.__init__).parameters)
        made = made.__mro__[1]
    return names - reserved


def _ours(name: str, num_classes: int, in_channels: int, placement: str, options: Mapping[str, Any]) -> nn.Module:
    method, backbone = split_name(name)
    entry = BACKBONES[backbone]
    if get_method(method).role == "network":
        from excite.backbones.emca import create_emca

        if placement != "all":
            raise UsageError(f"{name}: EMCA has its own places (form, stages, blocks); placement does not apply")
        return create_emca(method, backbone, num_classes=num_classes, in_channels=in_channels, **options)
    build = getattr(importlib.import_module(f"excite.backbones.{entry.module}"), entry.function)
    of_backbone, of_method = _split_options(name, build, method, options)
    spec = AttentionSpec(method, of_method, placement)
    return build(attention=spec, num_classes=num_classes, in_channels=in_channels, **of_backbone)


def _timm(name: str, num_classes: int, in_channels: int, options: Mapping[str, Any]) -> nn.Module:
    import timm

    if not timm.is_model(name):
        raise unknown("timm model", name, timm.list_models())
    try:
        return timm.create_model(name, pretrained=False, num_classes=num_classes, in_chans=in_channels, **options)
    except TypeError as error:
        raise UsageError(f"timm/{name} refused the options {dict(options)}: {error}") from error


def _torchvision(name: str, num_classes: int, in_channels: int, options: Mapping[str, Any]) -> nn.Module:
    import torchvision

    if name not in torchvision.models.list_models(module=torchvision.models):
        raise unknown("torchvision model", name, torchvision.models.list_models(module=torchvision.models))
    if in_channels != 3:
        raise UsageError(f"torchvision/{name} takes 3 channels, not {in_channels}; timm models take any number")
    try:
        return torchvision.models.get_model(name, weights=None, num_classes=num_classes, **options)
    except (TypeError, ValueError) as error:
        raise UsageError(f"torchvision/{name} refused the options {dict(options)}: {error}") from error


def _from_file(name: str, num_classes: int, in_channels: int, options: Mapping[str, Any]) -> nn.Module:
    path, _, factory = name.rpartition(":")
    file = Path(path)
    if not file.is_file():
        raise UsageError(f"model {name!r}: no file {path!r}; expected path/to/file.py:factory")
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise UsageError(f"model {name!r}: {path!r} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ExciteError(f"model {name!r}: {path} failed on import: {type(error).__name__}: {error}") from error
    if not hasattr(module, factory):
        names = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        raise unknown(f"factory in {path}:", factory, names)
    build = getattr(module, factory)
    parameters = inspect.signature(build).parameters
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    given = {"num_classes": num_classes, "in_channels": in_channels}
    model = build(**{k: v for k, v in given.items() if takes_any or k in parameters}, **options)
    if not isinstance(model, nn.Module):
        raise UsageError(f"model {name!r}: the factory returned {type(model).__name__}, not a torch.nn.Module")
    return model
