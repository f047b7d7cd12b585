"""FSDP2: of weights, gradients and optimizer each process keeps a part (Zhao et al., arXiv:2304.11277)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from excite.engine.module import RunModule
from excite.errors import UsageError

# Any: what a checkpoint holds.

WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


class Sharding(ModelParallelStrategy):
    """Lightning's strategy, with the checkpoints of all other runs: one file that the first process writes.

    In Lightning's own an optimizer's state is numbered by the network's order of parameters; here by the optimizer's,
    as torch does, so that a run may go on with or without sharding.
    """

    def __init__(self, processes: int) -> None:
        super().__init__(data_parallel_size=processes, tensor_parallel_size=1, save_distributed_checkpoint=False)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Return the whole state of an optimizer on the first process, nothing on others."""
        assert self.model is not None
        optimizer = getattr(optimizer, "_optimizer", optimizer)  # Lightning wraps it
        state = get_optimizer_state_dict(self.model, optimizer, options=WHOLE)
        if self.global_rank:
            return {}
        numbers = {name: number for number, name in enumerate(self._names(optimizer))}
        return _renamed(state, numbers)

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """Take over weights and optimizers; return the checkpoint for what else it holds."""
        assert self.model is not None
        checkpoint: dict[str, Any] = super(ModelParallelStrategy, self).load_checkpoint(checkpoint_path, weights_only)
        set_model_state_dict(self.model, checkpoint["state_dict"], options=WHOLE)
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            names = dict(enumerate(self._names(optimizer)))
            set_optimizer_state_dict(self.model, optimizer, _renamed(state, names), options=WHOLE)
        return checkpoint

    def _names(self, optimizer: Optimizer) -> list[str]:
        """Return the names of an optimizer's parameters, in its order."""
        assert self.model is not None
        names = {id(parameter): name for name, parameter in self.model.named_parameters()}
        return [names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]


def _renamed(state: dict[str, Any], names: dict[Any, Any]) -> dict[str, Any]:
    groups = [{**group, "params": [names[name] for name in group["params"]]} for group in state["param_groups"]]
    return {"state": {names[name]: value for name, value in state["state"].items()}, "param_groups": groups}


def check_shardable(network: nn.Module) -> None:
    """Raise UsageError where a network has a parameter that has no parts."""
    name = next((name for name, parameter in network.named_parameters() if parameter.dim() == 0), None)
    if name is not None:
        raise UsageError(f"--strategy fsdp cannot share {name}, which is a single number; take --strategy ddp")


def shard(module: RunModule, mesh: DeviceMesh) -> None:
    """Share a module's network among the processes of a mesh: its blocks one by one, then what is left."""
    network = module.network
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    factors = {names[key]: factor for key, factor in module.lr_factors.items()}
    for block in blocks(network):
        fully_shard(block, mesh=mesh)
    fully_shard(network, mesh=mesh)
    module.lr_factors = {id(p): factors[name] for name, p in network.named_parameters() if name in factors}


def blocks(network: nn.Module) -> Iterator[nn.Module]:
    """Yield the modules of which sequences and lists are made, the outermost: their weights are gathered at a time."""
    sequences = (nn.Sequential, nn.ModuleList)
    for child in network.children():
        if isinstance(network, sequences) and not isinstance(child, sequences) and any(True for _ in child.children()):
            yield child
        else:
            yield from blocks(child)


def share_buffers(network: nn.Module) -> None:
    """Take over the first process's buffers (the statistics of norms), as DistributedDataParallel does every step."""
    buffers = [buffer for buffer in network.buffers() if buffer.is_floating_point()]
    if not buffers:
        return
    flat = torch.cat([buffer.flatten() for buffer in buffers])
    torch.distributed.broadcast(flat, 0)
    with torch.no_grad():
        for buffer, values in zip(buffers, flat.split([buffer.numel() for buffer in buffers]), strict=True):
            buffer.copy_(values.view_as(buffer))


def whole(value: Tensor) -> Tensor:
    """Return a value of all processes' parts; any other as it is."""
    return value.full_tensor() if isinstance(value, DTensor) else value
