"""Optimizer, weight-decay groups and the learning rate over the steps of a run."""

import math
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from excite.engine.config import RunConfig
from excite.engine.optimizers import build_optimizer
from excite.inspect.attention import attention_parameters

# Any: parameter groups, as torch takes them.

NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)
START = 0.001  # of the peak learning rate, where the warm-up is given in steps


def lr_factor(config: RunConfig, step: float, steps_per_epoch: float) -> float:
    """Return the learning rate at an optimizer step as a fraction of `config.lr`.

    Warm-up: linear, from 0 over `warmup_epochs`, or from a thousandth over `warmup_steps` (at most a third of the run).
    cosine: (1 + cos(pi t)) / 2 with t from the end of the warm-up to the end of the run; step: gamma for each of the
    milestones passed, without milestones for every `step_epochs` completed; exponential: the latter.
    """
    epoch = step / max(steps_per_epoch, 1)
    if config.warmup_steps is None or config.warmup_epochs:
        now, total, warmup, start = epoch, float(config.epochs), config.warmup_epochs, 0.0
    else:
        total = max(steps_per_epoch * config.epochs, 1)
        now, warmup, start = step, min(config.warmup_steps, total / 3), START
    if now < warmup:
        return start + (1 - start) * now / warmup
    if config.schedule == "constant":
        return 1.0
    if config.schedule == "cosine":
        return (1 + math.cos(math.pi * min((now - warmup) / max(total - warmup, 1e-9), 1.0))) / 2
    if config.schedule == "step" and config.milestones:
        drops = sum(math.floor(epoch + 1e-9) >= m for m in config.milestones)
    else:
        drops = math.floor(epoch / config.step_epochs + 1e-9)
    return float(config.gamma**drops)


def make_optimizer(
    model: nn.Module, config: RunConfig, factors: Mapping[int, float] = MappingProxyType({})
) -> torch.optim.Optimizer:
    """Return the optimizer of the learned parameters; those named by `no_decay` form groups without weight decay.

    factors: of the learning rate, by id of the parameter, where it is not 1. The first groups have the highest rate.
    """
    decayed, free = split_parameters(model, config.no_decay)
    groups: list[dict[str, Any]] = []
    for factor in sorted({factors.get(id(p), 1.0) for p in (*decayed, *free)}, reverse=True):
        rate = {} if factor == 1 else {"lr": config.peak_lr * factor}
        for parameters, decay in ((decayed, {}), (free, {"weight_decay": 0.0})):
            own = [p for p in parameters if factors.get(id(p), 1.0) == factor]
            groups += [{"params": own, **decay, **rate}] if own else []
    return build_optimizer(
        config.optimizer, groups, config.peak_lr, config.momentum, config.nesterov, config.weight_decay
    )


def split_parameters(model: nn.Module, no_decay: Collection[str]) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
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
