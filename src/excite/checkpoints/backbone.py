"""From weights to the backbone: family, depth, widths, stem, classes. Keys are ours (torchvision's)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from excite.backbones.mobilenetv2 import STAGES, MobileNetV2
from excite.backbones.regnet import SHAPES
from excite.backbones.resnet import DEPTHS
from excite.common.options import Option
from excite.errors import ExciteError

State = Mapping[str, torch.Tensor]
Blocks = list[list[dict[str, torch.Tensor]]]

SMALL_DEPTHS = (20, 32, 44, 56, 110)


@dataclass
class Backbone:
    """A backbone read off the weights: its name, options, and its blocks' attention, `blocks[stage][block]`.

    after: the attention modules between the stages, by stage.
    """

    name: str
    num_classes: int
    in_channels: int
    options: dict[str, Option]
    blocks: Blocks
    after: dict[int, dict[str, torch.Tensor]] = field(default_factory=dict)
    spatial: Blocks = field(default_factory=list)


def read_backbone(state: State) -> Backbone:
    """Return the backbone of a renamed state dict. Raises ExciteError where it is none of ours."""
    if "features.0.0.weight" in state:
        return _mobilenet(state)
    if "layer1.0.conv1.weight" in state:
        return _resnet(state)
    raise ExciteError("the weights are of no network family known here (ResNet or MobileNetV2)")


def below(state: State, prefix: str) -> dict[str, torch.Tensor]:
    """Return the entries under a prefix, which is taken off."""
    return {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}


def _head(state: State, key: str) -> int:
    weight = state.get(f"{key}.weight")
    if weight is None or weight.dim() != 2:
        raise ExciteError(
            f"the weights have no classifier ({key}.weight); put them into a network with load_checkpoint(model, ...)"
        )
    return weight.shape[0]


def _resnet(state: State) -> Backbone:
    depths = _depths(state)
    bottleneck = "layer1.0.conv3.weight" in state
    widths = [state[f"layer{s + 1}.0.conv1.weight"].shape[0] for s in range(len(depths))]
    regnet = _regnet_name(depths, widths, "layer1.0.inner.gate.reduce.weight" in state)
    if regnet:
        return _of_stages(state, regnet, state["conv1.weight"].shape[1], {}, depths, "conv2.")
    _refuse_grouped(state, bottleneck)
    options: dict[str, Option] = {}
    name = _resnet_name(depths, bottleneck, widths, options)
    in_channels, stem = _stem(state, options)
    if stem == "cifar" and len(depths) == 4:
        name += "_cifar"
    elif stem == "imagenet" and len(depths) == 3:
        options["stem"] = stem
    down = state.get("layer2.0.downsample.1.weight")
    if down is not None and down.dim() == 4:
        options["avg_down"] = True
    if len(depths) == 3 and "layer2.0.downsample.0.weight" in state:
        options["shortcut"] = "projection"
    return _of_stages(state, name, in_channels, options, depths, "conv2." if bottleneck else "conv1.")


def _of_stages(
    state: State, name: str, in_channels: int, options: dict[str, Option], depths: tuple[int, ...], where: str
) -> Backbone:
    """Collect the attention of every block; `where`: what a method may stand in for."""
    names = [[f"layer{s + 1}.{b}." for b in range(n)] for s, n in enumerate(depths)]
    return Backbone(
        name,
        _head(state, "fc"),
        in_channels,
        options,
        [[below(state, p + "attention.") for p in stage] for stage in names],
        {s: below(state, f"attention_after{s + 1}.") for s in range(len(depths) - 1)},
        [[below(state, p + where) for p in stage] for stage in names],
    )


def _regnet_name(depths: tuple[int, ...], widths: list[int], with_se: bool) -> str | None:
    for name, shape in SHAPES.items():
        if (shape.depths, list(shape.widths), shape.se_ratio > 0) == (depths, widths, with_se):
            return name
    return None


def _depths(state: State) -> tuple[int, ...]:
    blocks: dict[int, set[int]] = {}
    for key in state:
        if match := re.match(r"layer(\d{1,6})\.(\d{1,6})\.", key):
            blocks.setdefault(int(match[1]), set()).add(int(match[2]))
    if sorted(blocks) != list(range(1, len(blocks) + 1)):
        raise ExciteError(f"the weights have stages {sorted(blocks)}; expected layer1, layer2, ...")
    for stage, numbers in blocks.items():  # a lone layer1.999999 asks for no million blocks
        if max(numbers) >= len(numbers):
            raise ExciteError(
                f"the weights have {len(numbers)} blocks in layer{stage}, and one of number {max(numbers)}"
            )
    return tuple(len(blocks[s]) for s in sorted(blocks))


def _resnet_name(depths: tuple[int, ...], bottleneck: bool, widths: list[int], options: dict[str, Option]) -> str:
    if any(w != widths[0] << s for s, w in enumerate(widths)):
        raise ExciteError(f"the stages have {widths} planes; the ResNets built here double them from stage to stage")
    if len(depths) == 3 and not bottleneck and len(set(depths)) == 1:
        depth = 6 * depths[0] + 2
        if depth not in SMALL_DEPTHS:
            raise ExciteError(f"a CIFAR ResNet of depth {depth}; built here: {', '.join(map(str, SMALL_DEPTHS))}")
        if widths[0] != 16:
            options["width"] = widths[0]
        return f"resnet{depth}"
    if len(depths) != 4 or widths[0] != 64:
        raise ExciteError(f"a ResNet with stages of {depths} blocks and {widths} planes is none of those built here")
    fits = {n for n, (block, d) in DEPTHS.items() if d == depths and (block.expansion == 4) == bottleneck}
    if fits:
        return f"resnet{fits.pop()}"
    options["blocks_per_stage"] = depths
    return "resnet50" if bottleneck else "resnet18"


def _stem(state: State, options: dict[str, Option]) -> tuple[int, str]:
    deep = "conv1.0.weight" in state
    first = state.get("conv1.0.weight" if deep else "conv1.weight")
    if first is None or first.dim() != 4:
        raise ExciteError("the weights have no first convolution (conv1.weight)")
    if deep:
        options["stem"] = "deep"
        options["stem_widths"] = (first.shape[0], state["conv1.3.weight"].shape[0])
        return first.shape[1], "deep"
    size = first.shape[-1]
    if size not in (3, 7):
        raise ExciteError(f"the first convolution is {size}x{size}; the stems built here are 7x7, 3x3, or three 3x3")
    return first.shape[1], "imagenet" if size == 7 else "cifar"


def _refuse_grouped(state: State, bottleneck: bool) -> None:
    conv = state.get("layer1.0.conv2.weight")
    if bottleneck and conv is not None and conv.shape[1] != state["layer1.0.conv1.weight"].shape[0]:
        raise ExciteError(
            f"layer1.0.conv2 sees {conv.shape[1]} of its {state['layer1.0.conv1.weight'].shape[0]} input channels: a "
            'grouped (ResNeXt) network; build it with create_model("timm/...") and use load_checkpoint'
        )


def _mobilenet(state: State) -> Backbone:
    last = max(int(m[1]) for k in state if (m := re.match(r"features\.(\d+)\.", k)))
    if last != sum(n for _, _, n, _ in STAGES) + 1:
        raise ExciteError(f"a MobileNetV2 of {last + 1} layers is not built here")
    groups, index = [], 1
    for _, _, blocks, _ in STAGES:
        groups.append([below(state, f"features.{i}.attention.") for i in range(index, index + blocks)])
        index += blocks
    with torch.device("meta"):
        plain = _mobilenet_channels(MobileNetV2().state_dict())
    channels = _mobilenet_channels(state)
    options: dict[str, Option] = {} if channels == plain else {"channels": channels}
    in_channels = state["features.0.0.weight"].shape[1]
    return Backbone("mobilenet_v2", _head(state, "classifier.1"), in_channels, options, groups)


def _mobilenet_channels(state: State) -> tuple[int, ...]:
    """Return the channels of the first layer, the seven stages and the last layer."""
    widths, index = [state["features.0.0.weight"].shape[0]], 1
    for _, _, blocks, _ in STAGES:
        norms = [k for k in state if re.fullmatch(rf"features\.{index}\.conv\.\d+\.running_mean", k)]
        widths.append(state[norms[-1]].shape[0])
        index += blocks
    return (*widths, state[f"features.{index}.0.weight"].shape[0])
