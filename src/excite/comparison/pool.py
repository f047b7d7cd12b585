"""Several runs at a time on this machine, each in a process of its own."""

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor, as_completed

from excite.comparison.execute import Report, execute, outcome
from excite.comparison.plan import Plan, Run
from excite.comparison.store import Store
from excite.engine.process import end_with
from excite.errors import ExciteError


def train_in_processes(
    plan: Plan, waiting: list[Run], jobs: int, report: Report, store: Store | None = None
) -> list[tuple[Run, str]]:
    """Train runs `jobs` at a time; return those that failed with their reasons."""
    threads = max(1, (os.cpu_count() or 1) // jobs)
    failures = []
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_limit, initargs=(threads, os.getpid())) as pool:
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


def _limit(threads: int, parent: int) -> None:
    """Share the processor (more threads than cores slow everyone down), and train on for nobody who has ended."""
    import torch

    end_with(parent)
    torch.set_num_threads(threads)
