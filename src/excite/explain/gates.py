"""Where a network weighs its channels: its attention modules numbered by stage and block, and a recorder over them."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from excite.inspect.attention import WeightRecorder, attention_paths
from excite.types import Weights

STAGE = re.compile(r"(?:^|\.)(?:layer|attention_after|stages?[._]|blocks\.)(\d+)(?:\.|$)")
BLOCK = re.compile(r"(?:layer|stages?[._]|blocks\.)\d+\.(?:blocks\.)?(\d+)")


@dataclass(frozen=True)
class Site:
    """One attention module of a network.

    name: its path in the model; stage: from 1; block: its number in the stage, from 1; module: the attention itself.
    """

    name: str
    stage: int
    block: int
    module: nn.Module


def find_sites(model: nn.Module) -> list[Site]:
    """Return the attention modules of `model`, as `inspect.attention` knows them, in the order of its modules."""
    named = [(path, model.get_submodule(path)) for path in attention_paths(model)]
    matches = [STAGE.search(name) for name, _ in named]
    if all(matches):
        stages = [int(match.group(1)) for match in matches if match]
        first = min(stages, default=1)
        stages = [s - first + 1 if first == 0 else s for s in stages]
    else:
        stages = _stages_by_channels([_size(module) for _, module in named])
    sites, count = [], dict.fromkeys(stages, 0)
    for (name, module), stage in zip(named, stages, strict=True):
        count[stage] += 1
        match = BLOCK.search(name)
        block = int(match.group(1)) + 1 if match else count[stage]
        sites.append(Site(name, stage, block, module))
    return sites


def stage_name(name: str, stage: int) -> str:
    """Return what the path of a site calls its stage, as layer3 of layer3.0.attention; `stage 3` where it does not."""
    match = STAGE.search(name)
    return name[: match.end()].rstrip(".") if match else f"stage {stage}"


def _size(module: nn.Module) -> object:
    """What stands for the channels before any image was seen: the attribute, else the first parameter's shape."""
    channels = getattr(module, "channels", None)
    return channels if channels is not None else next((tuple(p.shape) for p in module.parameters()), None)


def _stages_by_channels(sizes: list[object]) -> list[int]:
    """Number runs of equal size from 1: a network without stages in its names (MobileNet)."""
    stages: list[int] = []
    for i, size in enumerate(sizes):
        stages.append(1 if i == 0 else stages[-1] + (size != sizes[i - 1]))
    return stages


class GateRecorder(WeightRecorder):
    """A `WeightRecorder` that knows stage and block of every attention: `sites`, by the names of `weights`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.sites = find_sites(model)


def recorded(model: nn.Module, run: Callable[[], object]) -> dict[str, Weights]:
    """Run `run()` (one forward pass of `model`) and return the weights by site."""
    with GateRecorder(model) as recorder:
        run()
    return recorder.weights
