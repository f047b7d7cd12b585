"""Where a network weighs its channels, and a recorder of the weights that hooks the gates."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from excite.types import Weights

# The child that returns the weights: ours and timm's, then torchvision's.
GATE_NAMES = ("gate", "scale_activation")
STAGE = re.compile(r"(?:^|\.)(?:layer|attention_after|stages?[._]|blocks\.)(\d+)(?:\.|$)")


@dataclass(frozen=True)
class Site:
    """One attention module of a network.

    name: its path in the model; stage: from 1; block: its number in the stage, from 1; module: the attention itself.
    """

    name: str
    stage: int
    block: int
    module: nn.Module

    @property
    def gates(self) -> list[nn.Module]:
        """The modules whose outputs make the weights."""
        found = [getattr(self.module, name) for name in GATE_NAMES if _child(self.module, name)]
        return found + [self.module.across] if _child(self.module, "across") else found


def _child(module: nn.Module, name: str) -> bool:
    return isinstance(module._modules.get(name), nn.Module)


def find_sites(model: nn.Module) -> list[Site]:
    """Return the attention modules of `model` that have a gate, in the order of its modules.

    Works on ours, on attached ones, and on timm's and torchvision's own squeeze-and-excitation.
    """
    named = [(n, m) for n, m in model.named_modules() if any(_child(m, g) for g in GATE_NAMES)]
    numbers = [STAGE.search(name) for name, _ in named]
    if all(numbers):
        stages = [int(found.group(1)) for found in numbers if found]
        first = min(stages, default=1)
        stages = [s - first + 1 if first == 0 else s for s in stages]
    else:
        stages = _stages_by_channels([_parameters_shape(m) for _, m in named])
    sites, count = [], dict.fromkeys(stages, 0)
    for (name, module), stage in zip(named, stages, strict=True):
        count[stage] += 1
        match = re.search(r"(?:layer|stages?[._]|blocks\.)\d+\.(?:blocks\.)?(\d+)", name)
        block = int(match.group(1)) + 1 if match else count[stage]
        sites.append(Site(name, stage, block, module))
    return sites


def _parameters_shape(module: nn.Module) -> Any:
    """What stands for the channels before any image was seen: the attribute, else the first parameter's shape."""
    channels = getattr(module, "channels", None)
    return channels if channels is not None else next((tuple(p.shape) for p in module.parameters()), None)


def _stages_by_channels(shapes: list[Any]) -> list[int]:
    """Number runs of equal shape from 1: a network without stages in its names (MobileNet)."""
    stages: list[int] = []
    for i, shape in enumerate(shapes):
        stages.append(1 if i == 0 else stages[-1] + (shape != shapes[i - 1]))
    return stages


class GateRecorder:
    """Context manager that records the weights `[n c]` of every attention in each forward pass.

    `weights` maps a site's name to the weights of the last pass. The hooks are removed on leaving, also by an
    exception. Sites that weigh positions rather than channels end up in `skipped`.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.sites = find_sites(model)
        self.weights: dict[str, Weights] = {}
        self.skipped: set[str] = set()
        self._calls: dict[nn.Module, list[torch.Tensor]] = {}
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> "GateRecorder":
        for site in self.sites:
            for gate in site.gates:
                self._calls.setdefault(gate, [])
                self._handles.append(gate.register_forward_hook(self._keep))
        self._handles.append(self.model.register_forward_pre_hook(self._start))
        self._handles.append(self.model.register_forward_hook(self._finish))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._calls.clear()

    def _start(self, model: nn.Module, inputs: Any) -> None:
        for calls in self._calls.values():
            calls.clear()

    def _keep(self, gate: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        # A copy: an in-place activation may come next.
        self._calls[gate].append(output.detach().float().clone())

    def _finish(self, model: nn.Module, inputs: Any, output: Any) -> None:
        self.weights = {}
        for site in self.sites:
            calls = [self._calls[gate] for gate in site.gates]
            if not all(calls):
                continue  # the network did not use it
            found = _combine(site.module, calls)
            if found is None:
                self.skipped.add(site.name)
            else:
                self.weights[site.name] = found


def _combine(module: nn.Module, calls: list[list[torch.Tensor]]) -> Weights | None:
    """The weights `[n c]` from the outputs of a module's gates, or None where they are not one per channel."""
    flat = [[_per_channel(t) for t in outputs] for outputs in calls]
    if any(t is None for outputs in flat for t in outputs):
        return None
    gates: list[list[torch.Tensor]] = flat  # type: ignore[assignment]
    if _child(module, "branches"):  # EPSANet, EMANet: the branches compete by a softmax and are joined last one first
        shares = torch.softmax(torch.stack(gates[0], dim=1), dim=1)
        return shares.flip(1).flatten(1)
    if hasattr(module, "join"):  # EMCA as released: local and global weights are joined
        join = module.join.detach().float()  # type: ignore[operator]
        return 1 + torch.sigmoid(join[0] * gates[0][-1] + join[1] * gates[1][-1])
    last = gates[0][-1]
    return 1 + last if _child(module, "squeeze") and hasattr(module, "across") else last


def _per_channel(output: torch.Tensor) -> Weights | None:
    """`[n c]` of `[n c]`, `[n c 1 ...]` or `[n 1 c]`, else None."""
    if output.dim() == 2:
        return output
    if output.dim() > 2 and all(size == 1 for size in output.shape[2:]):
        return output.flatten(1)
    if output.dim() == 3 and output.shape[1] == 1:
        return output[:, 0]
    return None


def recorded(model: nn.Module, run: Callable[[], Any]) -> dict[str, Weights]:
    """Run `run()` (one forward pass of `model`) and return the weights by site."""
    with GateRecorder(model) as recorder:
        run()
    return recorder.weights
