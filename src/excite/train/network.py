"""The network of a run: built by name or given, with its card and its first weights."""

from dataclasses import replace

import torch
from torch import nn

from excite.card import CARD, carry
from excite.checkpoints.bundle import load_exactly
from excite.checkpoints.resume import Start, go_on
from excite.common.tables import printable
from excite.errors import UsageError
from excite.models import NetworkSpec, build_pretrained, describe
from excite.train.config import TrainConfig
from excite.train.datamodule import ImageData


def spec_from(config: TrainConfig, num_classes: int) -> NetworkSpec:
    """Return the spec of a run's network."""
    return NetworkSpec(
        config.model,
        num_classes,
        config.channels,
        options=config.options,
        placement=config.placement,
        attach=config.attach,
        attach_sites=config.attach_sites,
        attach_options=config.attach_options,
    )


def build_network(config: TrainConfig, data: ImageData, init_state: dict[str, torch.Tensor] | None = None) -> nn.Module:
    """Build the network of `config` for the data's classes, with a card that says how to feed it.

    Raises UsageError for unknown names and options, ExciteError for weights that do not fit.
    """
    spec = spec_from(config, data.bundle.num_classes)
    spec = replace(spec, class_names=list(data.bundle.class_names), preprocess=data.preprocess.to_dict())
    # A resumed run's weights are those of its checkpoint.
    model = build_pretrained(spec, config.pretrained and config.resume is None)
    if config.attach is not None and not config.quiet:
        print(f"{model.excite_attach_report}\n")
    if init_state is not None:
        load_exactly(model, init_state, "the given weights")
    elif config.init:
        from excite.checkpoints import load_checkpoint

        report = load_checkpoint(model, config.init)
        if not config.quiet:
            print(report)
    if ":" in config.model:  # somebody's own code, which may build what it likes
        _check_outputs(model, spec, data)
    return model


def start_of(model: nn.Module, config: TrainConfig) -> Start | None:
    """Load what `config.start` holds into a new run's network; returns where it goes on. Raises UsageError."""
    if config.start is None or config.resume is not None:  # a resumed run goes on from its own checkpoint
        return None
    start = go_on(model, config.start, config.optimizer, config.epochs)
    if not config.quiet:
        print("\n".join([f"going on from {config.start}:", *(f"  {printable(note)}" for note in start.notes)]))
    return start


def _check_outputs(model: nn.Module, spec: NetworkSpec, data: ImageData) -> None:
    """Raise UsageError unless a network gives one number per class of the data."""
    size, classes = data.preprocess.size, data.bundle.num_classes
    was_training = model.training
    device = next(model.parameters(), torch.empty(0)).device
    with torch.no_grad():
        outputs = model.eval()(torch.zeros(1, spec.in_channels, size, size, device=device))
    model.train(was_training)
    shape = list(outputs.shape) if isinstance(outputs, torch.Tensor) else type(outputs).__name__
    if shape != [1, classes]:
        own = ":" in spec.name
        remedy = "its factory must give its last layer num_classes outputs" if own else "build it with as many outputs"
        raise UsageError(
            f"the network {spec.name} gives {shape} for an image, not [1, {classes}] for the {classes} classes of "
            f"{data.bundle.spec}; {remedy}"
        )


def adopt_network(model: nn.Module, config: TrainConfig, data: ImageData) -> nn.Module:
    """Give a network that was built elsewhere the card of this run, keeping what the one it has says of its making.

    Raises UsageError where its card says that it has other classes than the data.
    """
    bundle = data.bundle
    if not isinstance(getattr(model, CARD, None), NetworkSpec):
        carry(model, spec_from(config, bundle.num_classes))
    spec = describe(model, preprocess=data.preprocess.to_dict())
    if spec.num_classes != bundle.num_classes:
        raise UsageError(
            f"the network {spec.name} has {spec.num_classes} classes, {bundle.spec} has {bundle.num_classes}; "
            f"build it with num_classes={bundle.num_classes}"
        )
    _check_outputs(model, spec, data)
    describe(model, class_names=list(bundle.class_names))
    return model
