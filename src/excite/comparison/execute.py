"""One run of a comparison: the variant's network on the backbone weights that all variants of a seed share."""

import contextlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace

import torch

from excite.common.options import Option
from excite.comparison.plan import Plan, Run
from excite.comparison.store import Sending, Store
from excite.comparison.variants import of_backbone
from excite.engine.process import unchanged
from excite.errors import ExciteError
from excite.models import NetworkSpec
from excite.train import fit
from excite.train.network import spec_from

Report = Callable[[str], None]  # takes a line about what happened


def shared_weights(plan: Plan, run: Run, num_classes: int) -> dict[str, torch.Tensor]:
    """Return the first weights of a run's network.

    The plain backbone is initialised with the seed; every tensor of it that the variant's network has under the same
    key (or, where attention was attached, under the same host key) is taken over. What the variant adds is drawn with
    the same seed.
    """
    spec = spec_from(plan.config(run.variant, run.seed, run.folder), num_classes)
    options = backbone_options(plan, run)
    with unchanged():
        torch.manual_seed(run.seed)
        backbone = NetworkSpec(run.variant.backbone, num_classes, spec.in_channels, options=options).build()
        torch.manual_seed(run.seed)
        network = spec.build()
    own, plain = network.state_dict(), backbone.state_dict()
    return {k: plain[k] if k in plain and plain[k].shape == v.shape else v for k, v in own.items()}


def backbone_options(plan: Plan, run: Run) -> dict[str, Option]:
    """Return the options of the plain network that a run's network is built upon."""
    options = plan.config(run.variant, run.seed, run.folder).options
    within = not run.variant.foreign and not run.variant.attached
    return of_backbone(run.variant.method, run.variant.backbone, options) if within else options


def execute(plan: Plan, run: Run, store: Store | None = None) -> None:
    """Train one run to its end; a run that was killed goes on from its last checkpoint.

    store: where runs are kept: what has come further counts, and the run is kept there after every epoch.
    """
    from excite.data import open_data

    if store is not None and not run.finished:
        store.fetch_run(run.folder)
    if run.finished:
        return
    config = plan.config(run.variant, run.seed, run.folder)
    classes = open_data(plan.data).num_classes
    if (run.folder / "config.yaml").is_file():
        config = replace(config, resume=str(run.folder))
    elif run.folder.exists():
        shutil.rmtree(run.folder)  # killed before its first file was whole
    start = shared_weights(plan, run, classes)
    fit(config, start, callbacks=[] if store is None else [Sending(lambda: store.send_run(run.folder))])
    # The samples are the same for every run, and event files are for single runs: neither is part of a comparison.
    for leftover in ("samples", "tensorboard"):
        with contextlib.suppress(OSError):
            shutil.rmtree(run.folder / leftover)
    if store is not None:
        store.send_run(run.folder)


def attempt(call: Callable[..., object], *arguments: object) -> str | None:
    """Call; return why it failed, None where it did not. Whatever a run raises, wherever it trains, fails it alone."""
    try:
        call(*arguments)
    except ExciteError as error:
        return str(error)
    except Exception as error:  # a driver's, a library's, or one of somebody's own method
        first = next(iter(str(error).strip().splitlines()), "")
        return f"{type(error).__name__}: {first}" if first else type(error).__name__
    return None


def outcome(run: Run) -> str:
    """Return a finished run's result in a few words. Raises ExciteError where it has left none."""
    if not run.finished:
        raise ExciteError(f"{run.folder} holds no result of it; machines that train share the folder or a --store")
    summary = json.loads((run.folder / "summary.json").read_text(encoding="utf-8"))
    return f"{run.name}: top-1 {100 * summary['last_top1']:.2f} % in {summary['seconds']:.0f} s"
