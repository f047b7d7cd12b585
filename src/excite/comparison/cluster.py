"""Runs over a Ray cluster: one task per run, on a folder that all nodes share, or with a store that all nodes reach.

A worker or a node that dies loses nothing but the epoch its run was in: the run is tried again from its last epoch.
"""

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any  # ray is an extra and only partly typed

from excite.common.extras import require
from excite.comparison.budget import Pace, measure_pace, side_by_side
from excite.comparison.execute import Report, attempt, execute
from excite.comparison.plan import Plan, Run
from excite.comparison.store import Store
from excite.comparison.tally import Tally
from excite.comparison.variants import Variant
from excite.errors import ExciteError

# Any: ray is an extra without types.

AHEAD = 2  # tasks per processor that Ray holds; the others wait here, so that they take no memory there


def train_on_ray(
    plan: Plan, waiting: list[Run], address: str, report: Report, store: Store | None = None
) -> list[tuple[Run, str]]:
    """Train runs as Ray tasks; return those that failed with their reasons.

    address: of a running cluster ("auto", "HOST:PORT"), or "local" for one on this machine that ends with the call.
    store: where runs are kept; without one all nodes share the folder.
    Raises UsageError where Ray is not installed, ExciteError where the cluster cannot be reached.
    """
    with _connected(address) as ray:
        return _run_all(ray, plan, waiting, report, store)


def measure_on_ray(plan: Plan, address: str) -> tuple[list[Pace], int]:
    """Return the paces of the variants as Ray tasks, side by side as the runs will be, and how many those are.

    Raises what `train_on_ray` raises.
    """
    with _connected(address) as ray:
        resources = ray.cluster_resources()
        slots = int(resources.get("GPU") or resources.get("CPU") or 1)
        variants, at_once = side_by_side(plan, slots)
        task = _remote(ray, _measure)
        paces: list[Pace] = ray.get([task.remote(plan, variant) for variant in variants])
    return paces[: len(plan.variants)], at_once


@contextlib.contextmanager
def _connected(address: str) -> Iterator[Any]:
    """Yield ray, connected; what was not connected before is not so afterwards."""
    require("ray")
    import ray

    started = not ray.is_initialized()
    if started:
        _connect(ray, address)
    try:
        yield ray
    finally:
        if started:
            ray.shutdown()


def _remote(ray: Any, function: Callable[..., object]) -> Any:
    """Return a function as tasks of one processor, and one GPU where there are any."""
    # Ray itself would try again a fixed number of times, and would not say so.
    return ray.remote(num_cpus=1, num_gpus=int(bool(ray.cluster_resources().get("GPU"))), max_retries=0)(function)


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


def _run_all(ray: Any, plan: Plan, waiting: list[Run], report: Report, store: Store | None) -> list[tuple[Run, str]]:
    task = _remote(ray, _task)
    ahead = AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
    queue = list(reversed(waiting))
    pending: dict[Any, Run] = {}
    tally = Tally(len(waiting), report)
    while queue or pending:
        while queue and len(pending) < ahead:
            run = queue.pop()
            pending[task.remote(plan, replace(run, folder=run.folder.resolve()), store)] = run
        ready, _ = ray.wait(list(pending), num_returns=1)
        run = pending.pop(ready[0])
        try:
            failure = ray.get(ready[0])
        except ray.exceptions.RayTaskError as error:
            failure = _last_line(error)
        except ray.exceptions.RayError as error:
            if tally.died(run, _last_line(error)):
                queue.append(run)
            continue
        if failure is None and store is not None:
            failure = attempt(store.fetch_ended, [run.folder])
        tally.end(run, failure)
    return tally.failures


def _last_line(error: Exception) -> str:
    """Return what an error of Ray says at its end; other machines' tracebacks stand before it."""
    return [type(error).__name__, *str(error).strip().splitlines()][-1]


def _measure(plan: Plan, variant: Variant) -> Pace:
    import torch

    torch.set_num_threads(1)
    return measure_pace(plan, variant)


def _task(plan: Plan, run: Run, store: Store | None) -> str | None:
    import torch

    torch.set_num_threads(1)
    if store is None:
        return attempt(execute, plan, run)
    with tempfile.TemporaryDirectory(prefix="excite-run-") as place:
        return attempt(execute, plan, replace(run, folder=Path(place) / run.folder.name), store)
