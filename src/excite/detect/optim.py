"""Optimizer and learning rate of a detection run."""

import math
from typing import Any

import torch
from torch import nn

from excite.detect.config import DetectConfig
from excite.engine.optim import split_parameters


def make_optimizer(model: nn.Module, config: DetectConfig) -> torch.optim.Optimizer:
    """Return the optimizer over the trainable parameters; those named by `no_decay` are free of weight decay."""
    decayed, free = split_parameters(model, config.no_decay)
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": free, "weight_decay": 0.0}]
    groups = [g for g in groups if g["params"]]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay)
    kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
    return kind(groups, lr=config.lr, betas=(config.momentum, 0.999), weight_decay=config.weight_decay)


def lr_factor(config: DetectConfig, step: int, steps_per_epoch: float) -> float:
    """Return the learning rate at an optimizer step as a fraction of `config.lr`.

    The warm-up rises linearly over `warmup_steps` (or the first third of a shorter run) from a thousandth.
    """
    total = max(steps_per_epoch * config.epochs, 1)
    warmup = min(config.warmup_steps, total / 3)
    warm = min(1.0, 0.001 + 0.999 * step / warmup) if warmup else 1.0
    if config.schedule == "constant":
        return warm
    if config.schedule == "cosine":
        done = min(max(step - warmup, 0) / max(total - warmup, 1), 1.0)
        return warm * (1 + math.cos(math.pi * done)) / 2
    epoch = math.floor(step / max(steps_per_epoch, 1) + 1e-9)
    return float(warm * config.gamma ** sum(epoch >= m for m in config.milestones))
