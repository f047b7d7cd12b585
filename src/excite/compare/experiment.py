"""Run a comparison to its end, or go on with one; every finished run is kept."""

from collections.abc import Callable
from pathlib import Path

from excite.compare import cost
from excite.compare.execute import execute
from excite.compare.plan import Plan, Run, load, save
from excite.compare.results import Results, collect
from excite.compare.write import write_reports
from excite.errors import ExciteError, UsageError
from excite.train.config import TrainConfig

Tell = Callable[[str], None]


def compare(plan: Plan, folder: Path, *, jobs: int = 1, ray: str | None = None, tell: Tell = print) -> Results:
    """Train what is missing, measure the costs, write the reports; return the results.

    jobs: runs at a time in processes of this machine; ray: address of a Ray cluster ("local" starts one here).
    tell: called with a line per event. A run that fails does not stop the others.
    Raises UsageError for a plan that cannot work, ExciteError after all other runs where some failed.
    """
    plan.check()
    if jobs < 1:
        raise UsageError(f"--jobs {jobs}: at least one run at a time")
    classes, size = _probe(plan)
    save(plan, folder)
    waiting = [run for run in plan.runs(folder) if not run.finished]
    done = len(plan.runs(folder)) - len(waiting)
    if done:
        tell(f"{done} of {len(plan.runs(folder))} runs are there already")
    failures = _train(plan, folder, waiting, jobs, ray, tell)
    cost.load_or_measure(plan, folder, classes, size)
    results = collect(folder)
    write_reports(results, folder)
    if failures:
        listed = "; ".join(f"{run.name}: {text}" for run, text in failures)
        raise ExciteError(
            f"{len(failures)} of {results.total} runs failed ({listed}); the others are kept, start again"
        )
    return results


def report(folder: Path) -> Results:
    """Write the reports of a comparison as far as it has come, without training anything."""
    load(folder)
    results = collect(folder)
    write_reports(results, folder)
    return results


def _probe(plan: Plan) -> tuple[int, int]:
    """Return (classes, image size) after building every network once: an impossible method fails before training."""
    from excite.data import open_data

    bundle = open_data(plan.data)
    config: TrainConfig = plan.config(plan.methods[0], 0, Path("unused"))
    cost.networks(plan, bundle.num_classes)
    return bundle.num_classes, config.size or bundle.default_preprocess["size"]


def _train(
    plan: Plan, folder: Path, waiting: list[Run], jobs: int, ray: str | None, tell: Tell
) -> list[tuple[Run, str]]:
    if ray is not None:
        from excite.compare.cluster import train_on_ray

        return train_on_ray(plan, folder, waiting, ray, tell)
    if jobs > 1 and len(waiting) > 1:
        from excite.compare.pool import train_in_processes

        return train_in_processes(plan, folder, waiting, jobs, tell)
    failures = []
    for number, run in enumerate(waiting, 1):
        tell(f"run {number} of {len(waiting)}: {run.name}")
        try:
            execute(plan, folder, run)
        except ExciteError as error:
            failures.append((run, str(error)))
            tell(f"  failed: {error}")
        else:
            tell(f"  {outcome(run)}")
    return failures


def outcome(run: Run) -> str:
    """Return a finished run's result in a few words."""
    import json

    summary = json.loads((run.folder / "summary.json").read_text(encoding="utf-8"))
    return f"{run.name}: top-1 {100 * summary['last_top1']:.2f} % in {summary['seconds']:.0f} s"
