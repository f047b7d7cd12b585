"""One run of a comparison: the method's network on the backbone weights that all methods of a seed share."""

import contextlib
import shutil
from pathlib import Path
from typing import Any

import torch

from excite.backbones.names import BACKBONES
from excite.compare.plan import BASELINE, Plan, Run
from excite.models import NetworkSpec
from excite.train import TrainConfig, fit
from excite.train.network import spec_from


def shared_weights(plan: Plan, run: Run, num_classes: int) -> dict[str, torch.Tensor]:
    """Return the first weights of a run's network.

    The plain backbone is initialised with the seed; every tensor of it that the method's network has under the same key
    (or, where attention was attached, under the same host key) is taken over. What the method adds is drawn with the
    same seed.
    """
    torch.manual_seed(run.seed)
    config = plan.config(run.method, run.seed, run.folder)
    backbone = NetworkSpec(plan.backbone, num_classes, options=backbone_options(plan)).build()
    torch.manual_seed(run.seed)
    network = spec_from(config, num_classes).build()
    own, plain = network.state_dict(), backbone.state_dict()
    return {k: plain[k] if k in plain and plain[k].shape == v.shape else v for k, v in own.items()}


def backbone_options(plan: Plan) -> dict[str, Any]:
    """Return the options of the baseline: those of the plain network."""
    return dict(plan.options.get(BASELINE, {})) if plan.backbone in BACKBONES else {}


def execute(plan: Plan, folder: Path, run: Run) -> None:
    """Train one run to its end; a run that was killed goes on from its last checkpoint."""
    from excite.data import open_data

    if run.finished:
        return
    config = plan.config(run.method, run.seed, run.folder)
    classes = open_data(plan.data).num_classes
    if (run.folder / "config.yaml").is_file():
        config = TrainConfig(**{**config.to_dict(), "resume": str(run.folder)})
    elif run.folder.exists():
        shutil.rmtree(run.folder)  # killed before its first file was whole
    start = shared_weights(plan, run, classes)
    fit(config, start)
    # The samples are the same for every run, and event files are for single runs: neither is part of a comparison.
    for leftover in ("samples", "tensorboard"):
        with contextlib.suppress(OSError):
            shutil.rmtree(run.folder / leftover)
