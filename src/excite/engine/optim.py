"""Optimizer, weight-decay groups and the learning rate over the epochs."""

import math
from typing import Any

import torch
from torch import nn

from excite.inspect.attention import attention_parameters
from excite.train.config import TrainConfig

NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)


def lr_factor(config: TrainConfig, epoch: float) -> float:
    """Return the learning rate at a (fractional) epoch as a fraction of `config.lr`.

    cosine: (1 + cos(pi t)) / 2 with t from the end of the warm-up to the last epoch; step and exponential: gamma for
    every `step_epochs` completed; warm-up: linear in steps.
    """
    if epoch < config.warmup_epochs:
        return epoch / config.warmup_epochs
    if config.schedule == "constant":
        return 1.0
    if config.schedule == "cosine":
        length = max(config.epochs - config.warmup_epochs, 1e-9)
        return (1 + math.cos(math.pi * min((epoch - config.warmup_epochs) / length, 1.0))) / 2
    return float(config.gamma ** math.floor(epoch / config.step_epochs + 1e-9))


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Return the optimizer, with parameters named by `no_decay` in a group of their own without weight decay."""
    decayed, free = split_parameters(model, config.no_decay)
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": free, "weight_decay": 0.0}]
    groups = [g for g in groups if g["params"]]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, betas=(config.momentum, 0.999), weight_decay=config.weight_decay)
    return torch.optim.SGD(
        groups,
        lr=config.lr,
        momentum=config.momentum,
        nesterov=config.nesterov and config.momentum > 0,
        weight_decay=config.weight_decay,
    )


def split_parameters(model: nn.Module, no_decay: Any) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return (decayed, free of decay) learned parameters; `no_decay` holds any of norm, bias, attention."""
    attention = {id(p) for p in attention_parameters(model).values()} if "attention" in no_decay else set()
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    seen: set[int] = set()
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) in seen or not parameter.requires_grad:
                continue
            seen.add(id(parameter))
            spared = (
                ("norm" in no_decay and isinstance(module, NORMS))
                or ("bias" in no_decay and name.endswith("bias"))
                or id(parameter) in attention
            )
            (free if spared else decayed).append(parameter)
    return decayed, free
