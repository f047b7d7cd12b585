"""Run a comparison to its end, or go on with one; every finished run is kept."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from excite.common.files import write_json, write_text
from excite.common.options import Option
from excite.comparison import cost
from excite.comparison.execute import Report, execute, outcome
from excite.comparison.page import page
from excite.comparison.plan import METHODS_BY_DEFAULT, Plan, Run, load, make_plan, save
from excite.comparison.plots import draw
from excite.comparison.results import Results, collect
from excite.comparison.table import to_csv, to_markdown
from excite.engine.process import unchanged
from excite.errors import ExciteError, UsageError
from excite.train.config import TrainConfig


def compare(
    methods: str | Sequence[str] = METHODS_BY_DEFAULT,
    backbone: str = "resnet20",
    data: str = "digits",
    recipe: str = "auto",
    *,
    seeds: int = 3,
    epochs: int | None = None,
    options: Mapping[str, Mapping[str, Option]] | None = None,
    out: str | Path | None = None,
    jobs: int = 1,
    ray: str | None = None,
    report: Report = print,
    **train: Option,
) -> Results:
    """Train several methods on one backbone with the same recipe, data order and seeds; return the results.

    methods: names, the first is the baseline; options: per method, as {"eca": {"kernel_size": 3}}; out: folder, by
    default compare/BACKBONE-DATA, where finished runs are kept and an unfinished comparison goes on; train: options of
    every run that differ from the recipe, as lr=0.05. The others are those of `run_plan`.
    Raises UsageError for what cannot work, ExciteError after all other runs where some failed.
    """
    names = [m.strip() for m in methods.split(",")] if isinstance(methods, str) else methods
    plan = make_plan(names, backbone, data, recipe, seeds=seeds, epochs=epochs, train=train, options=options)
    return run_plan(plan, Path(out) if out else plan.folder, jobs=jobs, ray=ray, report=report)


@unchanged()
def run_plan(plan: Plan, folder: Path, *, jobs: int = 1, ray: str | None = None, report: Report = print) -> Results:
    """Train what is missing, measure the costs, write the reports; return the results.

    jobs: runs at a time in processes of this machine; ray: address of a Ray cluster ("local" starts one here).
    report: called with a line per event. A run that fails does not stop the others.
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
        report(f"{done} of {len(plan.runs(folder))} runs are there already")
    failures = _train(plan, folder, waiting, jobs, ray, report)
    cost.load_or_measure(plan, folder, classes, size)
    results = collect(folder)
    write_reports(results, folder)
    if failures:
        listed = "; ".join(f"{run.name}: {text}" for run, text in failures)
        raise ExciteError(
            f"{len(failures)} of {results.total} runs failed ({listed}); the others are kept, start again"
        )
    return results


def write_reports(results: Results, folder: Path) -> None:
    """Write results.json, results.csv, results.md, the pictures and report.html into `folder`."""
    pictures = draw(results, folder)
    write_json(folder / "results.json", results.to_dict())
    write_text(folder / "results.csv", to_csv(results))
    write_text(folder / "results.md", to_markdown(results))
    write_text(folder / "report.html", page(results, pictures))


def write_report(folder: Path) -> Results:
    """Write the reports of a comparison as far as it has come, without training anything."""
    load(folder)
    results = collect(folder)
    write_reports(results, folder)
    return results


def _probe(plan: Plan) -> tuple[int, int]:
    """Return (classes, image size) after building every network once: an impossible method fails before training."""
    from excite.data import open_data
    from excite.train.datamodule import resolve_preprocess

    bundle = open_data(plan.data)
    config: TrainConfig = plan.config(plan.methods[0], 0, Path("unused"))
    cost.networks(plan, bundle.num_classes)
    return bundle.num_classes, resolve_preprocess(bundle, config).size


def _train(
    plan: Plan, folder: Path, waiting: list[Run], jobs: int, ray: str | None, report: Report
) -> list[tuple[Run, str]]:
    if ray is not None:
        from excite.comparison.cluster import train_on_ray

        return train_on_ray(plan, folder, waiting, ray, report)
    if jobs > 1 and len(waiting) > 1:
        from excite.comparison.pool import train_in_processes

        return train_in_processes(plan, folder, waiting, jobs, report)
    failures = []
    for number, run in enumerate(waiting, 1):
        report(f"run {number} of {len(waiting)}: {run.name}")
        try:
            execute(plan, folder, run)
        except ExciteError as error:
            failures.append((run, str(error)))
            report(f"  failed: {error}")
        else:
            report(f"  {outcome(run)}")
    return failures
