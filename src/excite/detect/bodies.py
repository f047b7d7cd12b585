"""Bodies: classification networks, ours and foreign, as sources of stage maps for a detector."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from excite.backbones.mobilenetv2 import MobileNetV2
from excite.backbones.resnet import ResNet
from excite.common.extras import require
from excite.errors import UsageError
from excite.models import create_model
from excite.types import FeatureMap


class Body(nn.Module):
    """A headless network: images `[n c h w]` -> the maps after its stages, finest first.

    net: network with its classification head removed; channels: of each map; parts: the modules of the stem and of
    every stage, in this order (for freezing).
    """

    def __init__(self, net: nn.Module, channels: tuple[int, ...], parts: list[list[nn.Module]]) -> None:
        super().__init__()
        self.net = net
        self.channels = channels
        self.frozen_norms = False
        self.paused = False
        self._parts = [tuple(p) for p in parts]
        self._frozen: tuple[nn.Module, ...] = ()
        self.report: Any = None

    def forward(self, x: FeatureMap) -> list[FeatureMap]:
        """Return the stage maps, `[n c h w]` each."""
        with self.gradients():
            return self.maps(x)

    def maps(self, x: FeatureMap) -> list[FeatureMap]:
        """Return the stage maps."""
        return self.net.forward_features(x)  # type: ignore[operator]

    def gradients(self) -> torch.set_grad_enabled:
        """Return the context to run the network in: without gradients while paused."""
        return torch.set_grad_enabled(torch.is_grad_enabled() and not self.paused)

    def pause(self, paused: bool) -> None:
        """Hold the whole body as it is (eval mode, no gradients), or let it learn again."""
        self.paused = paused
        self.train(self.training or not paused)

    def freeze(self, stages: int = -1, norms: bool = False) -> None:
        """Freeze the stem and the first `stages` stages: parameters and norm statistics (-1: nothing, 0: the stem).

        norms: keep the running statistics of every batch norm of the body; its scale and shift stay trainable
        outside the frozen stages, as in mmdetection's `norm_eval`. Raises UsageError for stages that do not exist.
        """
        if stages >= 0 and not self._parts:
            raise UsageError("frozen_stages: the stages of this backbone cannot be told apart; use -1")
        if not -1 <= stages < max(len(self._parts), 1):
            raise UsageError(f"frozen_stages {stages}: this backbone has stages 0 (the stem) to {len(self._parts) - 1}")
        self._frozen = tuple(m for part in self._parts[: stages + 1] for m in part)
        self.frozen_norms = norms
        for module in self._frozen:
            module.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> "Body":
        """Switch the mode; what is frozen stays in eval mode."""
        super().train(mode and not self.paused)
        for module in self._frozen:
            module.eval()
        if self.frozen_norms:
            freeze_norms(self)
        return self


def freeze_norms(module: nn.Module) -> None:
    """Put every batch norm of `module` into eval mode: its running statistics are used and stay as they are."""
    for norm in module.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            norm.eval()


class PickedBody(Body):
    """A foreign network whose forward gives several maps, of which those at `picks` are kept."""

    def __init__(
        self, net: nn.Module, channels: tuple[int, ...], parts: list[list[nn.Module]], picks: tuple[int, ...]
    ) -> None:
        super().__init__(net, channels, parts)
        self.picks = picks

    def maps(self, x: FeatureMap) -> list[FeatureMap]:
        """Return the kept maps."""
        found = self.net(x)
        maps = list(found.values()) if isinstance(found, Mapping) else list(found)
        maps = [maps[i] for i in self.picks]
        for image, channels in zip(maps, self.channels, strict=True):
            if image.shape[1] != channels:
                raise UsageError(
                    f"the backbone gives maps of shape {tuple(image.shape)} where [n {channels} h w] was announced; "
                    "only networks with channels-first maps can carry a detector"
                )
        return maps


def create_body(
    name: str,
    *,
    in_channels: int = 3,
    checkpoint: str | Path | None = None,
    attach: str | None = None,
    attach_sites: Any = None,
    attach_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> Body:
    """Build a network by name as a body; `checkpoint`: a classification checkpoint to load, see `body.report`.

    Raises UsageError for names, options or networks that cannot give stage maps.
    """
    if attach is None and (attach_sites is not None or attach_options):
        raise UsageError("attach_sites and attach_options go with attach: name the method, e.g. attach='eca'")
    extra: dict[str, Any] = {}
    if attach is not None:
        extra = {"attach": attach, "attach_sites": attach_sites, "attach_options": attach_options}
    if name.startswith("timm/"):
        return _timm(name[5:], in_channels, checkpoint, extra, options)
    net = create_model(name, in_channels=in_channels, **extra, **options)
    report = load_backbone(net, checkpoint)
    body = _torchvision(name, net) if name.startswith("torchvision/") else _ours(name, net)
    body.report = report
    return body


def load_backbone(net: nn.Module, checkpoint: str | Path | None) -> Any:
    """Load a classification checkpoint into a whole network; return its transfer report, None without a checkpoint."""
    if checkpoint is None:
        return None
    from excite.checkpoints import load_checkpoint

    return load_checkpoint(net, checkpoint)


def _ours(name: str, net: nn.Module) -> Body:
    if not hasattr(net, "forward_features") or not hasattr(net, "feature_channels"):
        raise UsageError(
            f"backbone {name!r} has no forward_features and feature_channels; use a network of ours, timm/NAME, "
            "or add both to your own"
        )
    for head in ("fc", "classifier", "head", "linear"):
        if isinstance(getattr(net, head, None), nn.Module):
            setattr(net, head, nn.Identity())
    return Body(net, tuple(net.feature_channels), stage_parts(net))  # type: ignore[arg-type]


def stage_parts(net: nn.Module) -> list[list[nn.Module]]:
    """Return the modules of the stem and of each stage of a network of ours (an empty list for your own)."""
    if isinstance(net, MobileNetV2):
        features, parts, start = list(net.features), [[net.features[0]]], 1
        for tap in net.taps:
            after = (getattr(net, f"attention_after{i}", None) for i in range(start, tap + 1))
            parts.append([*features[start : tap + 1], *(m for m in after if m is not None)])
            start = tap + 1
        return parts
    if isinstance(net, ResNet) or (hasattr(net, "layer1") and hasattr(net, "bn1")):
        parts = [[net.conv1, net.bn1]]  # type: ignore[list-item]
        for i in range(1, len(net.feature_channels) + 1):  # type: ignore[arg-type]
            named = (getattr(net, f"{kind}{i}", None) for kind in ("layer", "attention_after"))
            parts.append([m for m in named if m is not None])
        return parts
    return []


def _torchvision(name: str, net: nn.Module) -> Body:
    from torchvision.models._utils import IntermediateLayerGetter

    stages = [f"layer{i}" for i in range(1, 5)]
    if not all(hasattr(net, s) for s in stages):
        raise UsageError(f"backbone {name!r}: of torchvision's networks only those with layer1..layer4; try timm/NAME")
    channels = tuple(_out_channels(getattr(net, s)) for s in stages)
    getter = IntermediateLayerGetter(net, {s: s for s in stages})
    parts = [[getter["conv1"], getter["bn1"]], *([getter[s]] for s in stages)]
    return PickedBody(getter, channels, parts, (0, 1, 2, 3))


def _out_channels(stage: nn.Module) -> int:
    """The channels of a stage of residual blocks: those of its last batch norm."""
    norms = [m for m in stage[-1].children() if isinstance(m, nn.BatchNorm2d)]  # type: ignore[index]
    return norms[-1].num_features


def _timm(
    name: str, in_channels: int, checkpoint: str | Path | None, extra: dict[str, Any], options: dict[str, Any]
) -> Body:
    require("timm")
    import timm

    full = create_model(f"timm/{name}", in_channels=in_channels, **options)
    report = load_backbone(full, checkpoint)
    loaded = {} if report is None else {"pretrained": True, "pretrained_cfg_overlay": {"state_dict": full.state_dict()}}
    try:
        net = timm.create_model(name, features_only=True, in_chans=in_channels, **loaded, **options)
    except (RuntimeError, AttributeError, TypeError) as error:
        raise UsageError(f"backbone timm/{name} gives no feature maps: {error}") from None
    if extra:
        from excite.surgery import attach as attach_to

        attach_to(net, extra["attach"], sites=extra["attach_sites"], **dict(extra["attach_options"] or {}))
    info = net.feature_info
    picks = tuple(i for i, r in enumerate(info.reduction()) if r >= 4)
    channels = tuple(info.channels()[i] for i in picks)
    body = PickedBody(net, channels, _timm_parts(net, picks), picks)
    body.report = report
    return body


def _timm_parts(net: nn.Module, picks: tuple[int, ...]) -> list[list[nn.Module]]:
    """Cut the modules of a timm feature network (they run in order) at those that give the kept maps."""
    dotted: list[str] = net.feature_info.module_name()  # type: ignore[operator, union-attr]
    units: dict[str, nn.Module] = {}
    for name, child in net.named_children():
        if any(d.startswith(f"{name}.") for d in dotted):  # a list of stages: each is a unit of its own
            units |= {f"{name}_{n}": m for n, m in child.named_children()}
        else:
            units[name] = child
    names = [n.replace(".", "_") for n in dotted]
    ends = [names[i] for i in picks]
    if not all(e in units for e in ends):
        return []
    before = {names[i] for i in range(picks[0])}
    parts: list[list[nn.Module]] = [[], []]
    for i, (name, unit) in enumerate(units.items()):
        parts[-1].append(unit)
        if len(parts) == 2 and (name in before or _is_stem(name, i)):
            parts[0] += parts[1]
            parts[1] = []
        elif name in ends and name != ends[-1]:
            parts.append([])
    return parts


def _is_stem(name: str, position: int) -> bool:
    return name.startswith(("stem", "conv", "bn", "act", "norm", "pool", "maxpool")) or position == 0


def count_trainable(model: nn.Module) -> int:
    """Return the number of parameters that a training step may change."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
