"""Grad-CAM: which positions speak for a class."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from excite.common.extras import require
from excite.errors import ExciteError, UsageError, unknown

if TYPE_CHECKING:
    from captum.attr import LayerGradCam


@dataclass
class CamResult:
    """Class `index`, its `probability`, and `heat` `[h w]` in [0, 1] at the size of the image."""

    index: int
    probability: float
    heat: torch.Tensor


@dataclass(frozen=True)
class Target:
    """The layer Grad-CAM looks at; at_input: its input is meant, not its output."""

    name: str
    module: nn.Module
    at_input: bool


IN_PLACE = "inplace"


@contextmanager
def out_of_place(model: nn.Module) -> Iterator[None]:
    """Make in-place activations copy while inside, so that a layer's output can be looked at after it was used."""
    changed = [m for m in model.modules() if getattr(m, IN_PLACE, False) is True]
    for module in changed:
        setattr(module, IN_PLACE, False)  # assigned so, as torch declares attributes as modules
    try:
        yield
    finally:
        for module in changed:
            setattr(module, IN_PLACE, True)


def find_target(model: nn.Module, x: torch.Tensor, layer: str | None = None) -> Target:
    """Return the layer named `layer`, or the last map `[n c h w]` with more than one position, found by running `x`.

    Raises UsageError for an unknown name, ExciteError where the network has no such map.
    """
    modules = dict(model.named_modules())
    if layer is not None:
        if layer not in modules or layer == "":
            raise unknown("layer", layer, [n for n in modules if n])
        return Target(layer, modules[layer], at_input=False)
    events: list[tuple[nn.Module, bool]] = []

    def watch(module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        if _is_map(output):
            events.append((module, False))
        elif inputs and _is_map(inputs[0]) and inputs[0] is not x and not list(module.children()):
            events.append((module, True))  # the pool at the end: what it pools is the last map

    handles = [m.register_forward_hook(watch) for m in modules.values()]
    try:
        with torch.no_grad():
            model(x)
    finally:
        for handle in handles:
            handle.remove()
    ran = [module for module, _ in events]
    names = {module: name for name, module in modules.items()}
    for module, at_input in reversed(events):
        if ran.count(module) == 1 and names[module]:
            return Target(names[module], module, at_input)
    raise ExciteError(
        f"{type(model).__name__} has no map with more than one position on images of {tuple(x.shape[2:])} pixels, so "
        "Grad-CAM has nothing to show; give larger images, or name a layer with --layer"
    )


def _is_map(value: object) -> bool:
    return isinstance(value, torch.Tensor) and value.dim() == 4 and value.shape[2] * value.shape[3] > 1


def grad_cam(
    model: nn.Module, image: torch.Tensor, classes: int | Sequence[int] = 3, layer: str | None = None
) -> list[CamResult]:
    """Return Grad-CAM (Selvaraju et al., ICCV 2017, eq. 1 and 2) of `image` `[c h w]`, most probable class first.

    classes: how many top classes, or their indices; layer: its name (default: the last map with positions). A heat map
    is scaled to its own maximum; it is zero where no position speaks for the class. The model is left as it was found.
    Raises UsageError for unknown layers, classes, and layers whose output is not a map.
    """
    require("captum")
    from captum.attr import LayerGradCam

    x = image[None].detach().clone().requires_grad_(True)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            logits = model(x)
        wanted = _choose(logits, classes)
        probabilities = logits[0].softmax(0)
        target = find_target(model, x, layer)
        with out_of_place(model), torch.enable_grad():
            method = LayerGradCam(model, target.module)
            heats = [_heat(method, target, x, index) for index in wanted]
    finally:
        model.train(was_training)
    return [CamResult(i, float(probabilities[i]), h) for i, h in zip(wanted, heats, strict=True)]


def _choose(logits: torch.Tensor, classes: int | Sequence[int]) -> list[int]:
    count = logits.shape[1]
    if isinstance(classes, int):
        if classes < 1:
            raise UsageError(f"the number of classes to show must be at least 1, got {classes}")
        top: list[int] = logits[0].topk(min(classes, count)).indices.tolist()
        return top
    for index in classes:
        if not 0 <= index < count:
            raise UsageError(f"class {index} does not exist; the network has {count} classes, numbered from 0")
    return list(classes)


def _heat(method: "LayerGradCam", target: Target, x: torch.Tensor, index: int) -> torch.Tensor:
    try:
        heat = method.attribute(x, target=index, attribute_to_layer_input=target.at_input, relu_attributions=True)
    except (RuntimeError, AssertionError, IndexError) as error:
        raise UsageError(f"Grad-CAM cannot use layer {target.name!r}: {str(error).splitlines()[0]}") from error
    if not isinstance(heat, torch.Tensor) or heat.dim() != 4:
        raise UsageError(f"Grad-CAM needs a layer whose output is a map [n c h w]; {target.name!r} is none")
    heat = F.interpolate(heat.detach().float(), x.shape[2:], mode="bilinear", align_corners=False)[0, 0]
    top = heat.max()
    return (heat / top if top > 0 else heat).cpu()
