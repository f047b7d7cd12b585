"""Several runs at a time on this machine, each in a process of its own."""

import multiprocessing
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack

from excite.comparison.budget import Pace, measure_pace, side_by_side
from excite.comparison.execute import Report, attempt, execute
from excite.comparison.plan import Plan, Run
from excite.comparison.store import Store
from excite.comparison.tally import Tally
from excite.engine.process import end_with
from excite.errors import ExciteError


def train_in_processes(
    plan: Plan, waiting: list[Run], jobs: int, report: Report, store: Store | None = None
) -> list[tuple[Run, str]]:
    """Train runs `jobs` at a time; return those that failed with their reasons.

    A run whose process died (killed, out of memory) is tried again once the others have ended, alone: its neighbours
    may have taken the memory. Raises ExciteError where no process can be started.
    """
    _check_start(jobs)
    tally = Tally(len(waiting), report)
    rounds = deque([waiting])
    while rounds:
        for run, future in _side_by_side(plan, rounds.popleft(), jobs, store):
            try:
                failure = future.result()
            except BrokenProcessPool:
                if tally.died(run):
                    rounds.append([run])
            else:
                tally.end(run, failure)
    return tally.failures


def _side_by_side(
    plan: Plan, runs: list[Run], jobs: int, store: Store | None
) -> Iterator[tuple[Run, Future[str | None]]]:
    """Train runs; yield each as it ends. Every process has a pool of its own: a death ends that of one run alone."""
    queue, busy = deque(runs), dict[Future[str | None], tuple[Run, ProcessPoolExecutor]]()
    with ExitStack() as pools:
        free = [pools.enter_context(_processes(1, jobs)) for _ in range(min(jobs, len(runs)))]
        while queue or busy:
            while queue and free:
                run, pool = queue.popleft(), free.pop()
                try:
                    busy[pool.submit(attempt, execute, plan, run, store)] = run, pool
                except BrokenProcessPool:  # its process died after the last run, which is no fault of this one
                    queue.appendleft(run)
                    free.append(pools.enter_context(_processes(1, jobs)))
            for future in wait(busy, return_when=FIRST_COMPLETED).done:
                run, pool = busy.pop(future)
                died = isinstance(future.exception(), BrokenProcessPool)
                free.append(pools.enter_context(_processes(1, jobs)) if died else pool)
                yield run, future


def measure_in_processes(plan: Plan, jobs: int) -> tuple[list[Pace], int]:
    """Return the paces of the variants, measured as many side by side as will train, and how many those are.

    Raises ExciteError where a process died, or none can be started.
    """
    _check_start(jobs)
    variants, at_once = side_by_side(plan, jobs)
    with _processes(jobs, jobs) as pool:  # with as many threads each as the runs will have
        try:
            paces = list(pool.map(measure_pace, [plan] * len(variants), variants))
        except BrokenProcessPool:
            raise ExciteError(
                f"--budget: a process died while {at_once} at a time measured the pace; where the memory does not "
                f"suffice for so many, take fewer --jobs than {jobs}"
            ) from None
    return paces[: len(plan.variants)], at_once


def _check_start(jobs: int) -> None:
    """Raise ExciteError where this program's processes end at their start: every run would seem to die."""
    process = multiprocessing.get_context("spawn").Process(target=os.getpid)
    process.start()
    process.join()
    if process.exitcode:
        raise ExciteError(
            f'--jobs {jobs}: processes of this program do not start; call it below `if __name__ == "__main__":` of a '
            "file, or take --jobs 1"
        )


def _processes(count: int, jobs: int) -> ProcessPoolExecutor:
    """Return `count` of the `jobs` processes that share the processor of this machine."""
    threads = max(1, (os.cpu_count() or 1) // jobs)
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(count, mp_context=context, initializer=_limit, initargs=(threads, os.getpid()))


def _limit(threads: int, parent: int) -> None:
    """Share the processor (more threads than cores slow everyone down), and train on for nobody who has ended."""
    import torch

    end_with(parent)
    torch.set_num_threads(threads)
