"""The network of a run: built by name, given its card and its first weights."""

from typing import Any

import torch
from torch import nn

from excite.checkpoints.bundle import load_exactly
from excite.models import create_model
from excite.train.config import TrainConfig
from excite.train.datamodule import ImageData


def build_network(config: TrainConfig, data: ImageData, init_state: dict[str, torch.Tensor] | None = None) -> nn.Module:
    """Build `config.model` for the data's classes, with a card that says how to feed it.

    Raises UsageError for unknown names and options, ExciteError for weights that do not fit.
    """
    model = create_model(
        config.model,
        num_classes=data.bundle.num_classes,
        placement=config.placement,
        attach=config.attach,
        attach_sites=config.attach_sites,
        attach_options=config.attach_options,
        **config.options,
    )
    if config.attach is not None and not config.quiet:
        print(f"{model.excite_attach_report}\n")
    card: Any = model.excite_card
    card.class_names = list(data.bundle.class_names)
    card.preprocess = dict(data.preprocess)
    if init_state is not None:
        load_exactly(model, init_state, "the given weights")
    elif config.init:
        from excite.checkpoints import load_checkpoint

        report = load_checkpoint(model, config.init)
        if not config.quiet:
            print(report)
    return model
