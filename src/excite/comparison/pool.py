"""Several runs at a time on this machine, each in a process of its own."""

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor, as_completed

from excite.comparison.budget import Pace, measure_pace, side_by_side
from excite.comparison.execute import Report, execute, outcome
from excite.comparison.plan import Plan, Run
from excite.comparison.store import Store
from excite.engine.process import end_with
from excite.errors import ExciteError


def train_in_processes(
    plan: Plan, waiting: list[Run], jobs: int, report: Report, store: Store | None = None
) -> list[tuple[Run, str]]:
    """Train runs `jobs` at a time; return those that failed with their reasons."""
    failures = []
    with _processes(jobs) as pool:
        futures = {pool.submit(execute, plan, run, store): run for run in waiting}
        for number, future in enumerate(as_completed(futures), 1):
            run = futures[future]
            try:
                future.result()
            except Exception as error:
                known = isinstance(error, ExciteError)
                failures.append((run, str(error) if known else f"{type(error).__name__}: {error}"))
                report(f"{number} of {len(waiting)}: {run.name} failed: {failures[-1][1]}")
            else:
                report(f"{number} of {len(waiting)}: {outcome(run)}")
    return failures


def measure_in_processes(plan: Plan, jobs: int) -> tuple[list[Pace], int]:
    """Return the paces of the variants, measured as many side by side as will train, and how many those are."""
    variants, at_once = side_by_side(plan, jobs)
    with _processes(jobs) as pool:  # with as many threads each as the runs will have
        paces = list(pool.map(measure_pace, [plan] * len(variants), variants))
    return paces[: len(plan.variants)], at_once


def _processes(jobs: int) -> ProcessPoolExecutor:
    """Return processes that share the processor of this machine."""
    threads = max(1, (os.cpu_count() or 1) // jobs)
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(jobs, mp_context=context, initializer=_limit, initargs=(threads, os.getpid()))


def _limit(threads: int, parent: int) -> None:
    """Share the processor (more threads than cores slow everyone down), and train on for nobody who has ended."""
    import torch

    end_with(parent)
    torch.set_num_threads(threads)
