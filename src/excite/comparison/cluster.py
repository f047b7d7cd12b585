"""Runs over a Ray cluster: one task per run, on a folder that all nodes share; a killed worker's run is tried again."""

from dataclasses import replace
from pathlib import Path
from typing import Any  # ray is an extra and only partly typed

from excite.common.extras import require
from excite.comparison.execute import Report, execute, outcome
from excite.comparison.plan import Plan, Run
from excite.errors import ExciteError

# Any: ray is an extra without types.

RETRIES = 3


def train_on_ray(plan: Plan, folder: Path, waiting: list[Run], address: str, report: Report) -> list[tuple[Run, str]]:
    """Train runs as Ray tasks; return those that failed with their reasons.

    address: of a running cluster ("auto", "HOST:PORT"), or "local" for one on this machine that ends with the call. A
    worker that dies loses nothing but the epoch it was in: the run is retried from its last checkpoint.
    Raises UsageError where Ray is not installed, ExciteError where the cluster cannot be reached.
    """
    require("ray")
    import ray

    started = not ray.is_initialized()
    if started:
        _connect(ray, address)
    try:
        return _run_all(ray, plan, folder.resolve(), waiting, report)
    finally:
        if started:
            ray.shutdown()


def _connect(ray: Any, address: str) -> None:
    try:
        ray.init(
            address=None if address == "local" else address,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ExciteError(f"--ray {address}: {error}; is the cluster running?") from error


def _run_all(ray: Any, plan: Plan, folder: Path, waiting: list[Run], report: Report) -> list[tuple[Run, str]]:
    gpus = 1 if ray.cluster_resources().get("GPU", 0) else 0
    task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=RETRIES)(_task)
    shared = [replace(run, folder=folder / run.folder.relative_to(run.folder.parents[1])) for run in waiting]
    pending = {task.remote(plan, folder, run): run for run in shared}
    failures: list[tuple[Run, str]] = []
    number = 0
    while pending:
        ready, _ = ray.wait(list(pending), num_returns=1)
        run = pending.pop(ready[0])
        number += 1
        try:
            ray.get(ready[0])
        except ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None) or error
            failures.append((run, str(cause).strip().splitlines()[-1]))
            report(f"{number} of {len(waiting)}: {run.name} failed: {failures[-1][1]}")
        else:
            report(f"{number} of {len(waiting)}: {outcome(run)}")
    return failures


def _task(plan: Plan, folder: Path, run: Run) -> None:
    import torch

    torch.set_num_threads(1)
    execute(plan, folder, run)
