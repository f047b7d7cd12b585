"""load: anything trained, imported or detecting, ready to predict. The one place that knows networks and detectors."""

from pathlib import Path

from torch import nn

from excite.checkpoints.reading import read_checkpoint


def load(path: str | Path, model: str | None = None) -> nn.Module:
    """Return the network of a run directory, a checkpoint or a file of a published layout, in eval mode.

    path: of a run directory the best checkpoint is taken, else the last. model: build this network (of a detector: this
    backbone) instead of the one that the file names; needed where that is a Python file, which is not run otherwise.
    The network carries its NetworkSpec (a detector its DetectorCard) as `excite_card`: class names, preprocessing.
    Raises UsageError for a missing file; ExciteError for one that is damaged, needs code to be run, is of no known
    family, or does not fit its network.
    """
    checkpoint = read_checkpoint(path)
    if checkpoint.kind == "detector":
        from excite.detect.checkpoint import build as build_detector

        return build_detector(checkpoint, model)
    from excite.checkpoints.importing import network_of

    return network_of(checkpoint, model)[0]
