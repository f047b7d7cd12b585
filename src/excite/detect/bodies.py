"""Bodies: classification networks, ours and foreign, as sources of stage maps for a detector."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

import torch
from torch import nn

from excite.backbones.network import Network
from excite.common.options import Option
from excite.errors import UsageError
from excite.models import NetworkSpec
from excite.types import FeatureMap

if TYPE_CHECKING:
    from excite.checkpoints.report import TransferReport


class StageMaps(Protocol):
    """A network that gives stage maps: ours, or your own."""

    feature_channels: Sequence[int]

    def forward_features(self, x: FeatureMap) -> list[FeatureMap]:
        """Return the maps of `feature_channels`, `[n c h w]` each, finest first."""


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
        self.report: TransferReport | None = None

    def forward(self, x: FeatureMap) -> list[FeatureMap]:
        """Return the stage maps, `[n c h w]` each."""
        with self.gradients():
            return self.maps(x)

    def maps(self, x: FeatureMap) -> list[FeatureMap]:
        """Return the stage maps."""
        return cast(StageMaps, self.net).forward_features(x)

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
        output = self.net(x)
        levels = list(output.values()) if isinstance(output, Mapping) else list(output)
        maps = [levels[i] for i in self.picks]
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
    placement: str = "all",
    attach: str | None = None,
    attach_sites: str | Sequence[str] | None = None,
    attach_options: Mapping[str, Option] | None = None,
    **options: Option,
) -> Body:
    """Build a network by name as a body; `checkpoint`: a classification checkpoint to load, see `body.report`.

    Raises UsageError for names, options or networks that cannot give stage maps.
    """
    attached = dict(attach_options or {})
    spec = NetworkSpec(
        name,
        in_channels=in_channels,
        options=options,
        placement=placement,
        attach=attach,
        attach_sites=attach_sites,
        attach_options=attached,
    )
    if name.startswith("timm/"):
        return _timm(spec, checkpoint)
    net = spec.build()
    report = load_backbone(net, checkpoint)
    body = _torchvision(name, net) if name.startswith("torchvision/") else _ours(name, net)
    body.report = report
    return body


def load_backbone(net: nn.Module, checkpoint: str | Path | None) -> "TransferReport | None":
    """Load a classification checkpoint into a whole network; return its transfer report, None without a checkpoint."""
    if checkpoint is None:
        return None
    from excite.checkpoints import load_checkpoint

    return load_checkpoint(net, checkpoint)


def _ours(name: str, net: nn.Module) -> Body:
    channels = getattr(net, "feature_channels", None)
    if not hasattr(net, "forward_features") or channels is None:
        raise UsageError(
            f"backbone {name!r} has no forward_features and feature_channels; use a network of ours, timm/NAME, "
            "or add both to your own"
        )
    for head in ("fc", "classifier", "head", "linear"):
        if isinstance(getattr(net, head, None), nn.Module):
            setattr(net, head, nn.Identity())
    return Body(net, tuple(channels), stage_parts(net, len(channels)))


def stage_parts(net: nn.Module, stages: int) -> list[list[nn.Module]]:
    """Return the modules of the stem and of each stage; an empty list where they cannot be told apart.

    Networks of ours say it themselves; your own are cut where their modules are called conv1, bn1, layer1, layer2, ...
    """
    if isinstance(net, Network):
        return net.parts()
    children = dict(net.named_children())
    if not {"conv1", "bn1", "layer1"} <= children.keys():
        return []
    layers = (children.get(f"layer{stage}") for stage in range(1, stages + 1))
    return [[children["conv1"], children["bn1"]], *([] if layer is None else [layer] for layer in layers)]


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
    last = list(stage.children())[-1]
    return [m for m in last.children() if isinstance(m, nn.BatchNorm2d)][-1].num_features


def _timm(spec: NetworkSpec, checkpoint: str | Path | None) -> Body:
    spec.check()
    full = replace(spec, attach=None, attach_sites=None, attach_options={}).build()
    report = load_backbone(full, checkpoint)
    loaded = {} if report is None else {"pretrained": True, "pretrained_cfg_overlay": {"state_dict": full.state_dict()}}
    import timm

    try:
        net = timm.create_model(
            spec.name[5:], features_only=True, in_chans=spec.in_channels, **loaded, **dict(spec.options)
        )
    except (RuntimeError, AttributeError, TypeError) as error:
        raise UsageError(f"backbone {spec.name} gives no feature maps: {error}") from None
    spec.attach_to(net)
    info = net.feature_info
    picks = tuple(i for i, r in enumerate(info.reduction()) if r >= 4)
    channels = tuple(info.channels()[i] for i in picks)
    body = PickedBody(net, channels, _timm_parts(net, info.module_name(), picks), picks)
    body.report = report
    return body


def _timm_parts(net: nn.Module, dotted: Sequence[str], picks: tuple[int, ...]) -> list[list[nn.Module]]:
    """Cut the modules of a timm feature network (they run in order) at those that give the kept maps."""
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
