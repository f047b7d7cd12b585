"""Run a comparison to its end, or go on with one; every finished run is kept."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from excite.common.files import write_json, write_text
from excite.common.options import Option
from excite.comparison import cost
from excite.comparison.agreement import REMEDY, check_agreement, few
from excite.comparison.budget import PLANNED, Pace, check_minutes, measure_pace, planned
from excite.comparison.execute import Report, attempt, execute, outcome
from excite.comparison.page import page
from excite.comparison.plan import (
    FILE,
    METHODS_BY_DEFAULT,
    Plan,
    Run,
    another,
    changed,
    continued,
    load,
    make_plan,
    save,
)
from excite.comparison.plots import draw
from excite.comparison.results import Results, collect
from excite.comparison.standing import joined, mirrored
from excite.comparison.store import Store
from excite.comparison.table import to_csv, to_markdown
from excite.comparison.variants import Variant
from excite.data.bundle import DataBundle
from excite.engine.process import unchanged
from excite.errors import ExciteError, UsageError
from excite.train.config import TrainConfig


def compare(
    methods: str | Sequence[str | Variant] = METHODS_BY_DEFAULT,
    backbone: str | Sequence[str] = "resnet20",
    data: str = "digits",
    recipe: str = "auto",
    *,
    seeds: int = 3,
    epochs: int | None = None,
    until_clear: int | None = None,
    budget: float | None = None,
    options: Mapping[str, Mapping[str, Option]] | None = None,
    out: str | Path | None = None,
    jobs: int = 1,
    ray: str | None = None,
    store: str | None = None,
    report: Report = print,
    **train: Option,
) -> Results:
    """Train variants of attention on one or more backbones, everything else equal; return the results.

    methods: "none,eca,eca:kernel_size=5,se@first", or a list; the first is the baseline, on each backbone. options: of
    all variants of a method, as {"eca": {"gamma": 2}}; until_clear: add seeds, up to so many, until every verdict is
    clear; budget: minutes that epochs and images are planned for; out: folder, by default compare/BACKBONE-DATA, where
    finished runs are kept and an unfinished comparison goes on; train: options of every run that differ from the
    recipe, as lr=0.05. The others are those of `run_plan`.
    Raises UsageError for what cannot work, ExciteError after all other runs where some failed.
    """
    plan = make_plan(
        methods,
        backbone,
        data,
        recipe,
        seeds=seeds,
        epochs=epochs,
        until_clear=until_clear,
        train=train,
        options=options,
    )
    folder = Path(out) if out else plan.folder
    return run_plan(plan, folder, jobs=jobs, ray=ray, store=store, budget=budget, report=report)


@unchanged()
def run_plan(
    plan: Plan,
    folder: Path,
    *,
    jobs: int = 1,
    ray: str | None = None,
    store: str | None = None,
    budget: float | None = None,
    report: Report = print,
) -> Results:
    """Train what is missing, measure the costs, write the reports; return the results.

    jobs: runs at a time in processes of this machine; ray: address of a Ray cluster ("local" starts one here); store:
    an fsspec address where the comparison is kept, so that another machine can go on with it; budget: minutes that
    epochs and images are planned for, where nothing of the comparison is there yet.
    report: called with a line per event. A run that fails does not stop the others. A plan that is judged at several
    numbers of seeds ends at the first where every verdict is clear.
    Raises UsageError for a plan that cannot work; ExciteError, with the reports written, where some runs failed or the
    costs could not be measured.
    """
    plan.check()
    if jobs < 1:
        raise UsageError(f"--jobs {jobs}: at least one run at a time")
    if budget is not None:
        check_minutes(budget)
    kept = None if store is None else open_store(store, folder, alone=jobs == 1 and ray is None)
    with mirrored(kept) as there:
        old = folder if (folder / FILE).is_file() else there
        if budget is not None and old is not None:
            plan = _as_planned(plan, old, budget)
        if there is not None:
            plan = joined(plan, there, report)
            plan.check()
    bundle, size = _probe(plan, report)
    if budget is not None and old is None:
        plan = _within(plan, budget, bundle, jobs, ray, report)
    if (folder / FILE).is_file():
        check_agreement(continued(plan, folder), folder)
    plan = save(plan, folder)
    while True:
        results, uncounted = _run_seeds(plan, folder, bundle.num_classes, size, jobs, ray, kept, report)
        later = [seeds for seeds in plan.looks if seeds > plan.seeds]
        open_ = [row.name for row in results.rows if row.gain is not None and not row.gain.clear]
        if not later or not open_ or results.disagreements:
            break
        report(f"{plan.seeds} seeds: not clear yet: {', '.join(open_)}; going on to {later[0]} seeds")
        plan = save(replace(plan, seeds=later[0]), folder)
    if results.disagreements:  # since the command began: the photos, or a recipe's file
        raise ExciteError(f"{folder} holds runs that cannot stand in one table: {few(results.disagreements)}; {REMEDY}")
    if uncounted:
        raise ExciteError(uncounted)
    return results


def open_store(address: str, folder: Path, *, alone: bool) -> Store:
    """Open the place where a comparison is kept.

    alone: no other process trains. Raises UsageError for a place that other processes would not see, and for one that
    is the comparison's own folder, holds it or lies in it.
    """
    store = Store(address)
    for own in (folder.resolve(), (folder / "runs").resolve()):
        if store.local and (store.local.is_relative_to(own) or own.is_relative_to(store.local)):
            raise UsageError(f"--store {address} and the output folder {folder} lie in each other; keep them apart")
    if store.private and not alone:
        raise UsageError(f"--store {address} is seen by one process alone; with --jobs or --ray take file:// or s3://")
    return store


def _as_planned(plan: Plan, folder: Path, budget: float) -> Plan:
    """Return the plan with the epochs and images of the comparison that is there already.

    Only what a budget plans comes from there. Raises UsageError where something else was asked for.
    """
    old = load(folder)
    if old.budget != budget:
        there = "no budget" if old.budget is None else f"a budget of {old.budget:g} minutes"
        raise UsageError(f"{folder} holds a comparison with {there}, not {budget:g}; choose another --out")
    asked, here = old.asked, plan.changes
    if asked is None:  # as earlier versions kept it: what was asked for of those that a budget plans is not known
        asked, here = ({k: v for k, v in p.changes.items() if k not in PLANNED} for p in (old, plan))
    if plan.changes != old.changes and (differing := changed(asked, here)):
        raise another(folder, differing)
    return replace(plan, changes=old.changes, budget=budget, asked=old.asked)


def _within(plan: Plan, budget: float, bundle: DataBundle, jobs: int, ray: str | None, report: Report) -> Plan:
    """Return the plan with the epochs and images that fit, from a pace that is measured."""
    started = time.perf_counter()
    paces, at_once = _paces(plan, jobs, ray)
    spent = time.perf_counter() - started
    fits = planned(plan, budget, len(bundle.train), len(bundle.val), paces, at_once, report, spent=spent)
    return replace(fits, asked=plan.changes)


def _paces(plan: Plan, jobs: int, ray: str | None) -> tuple[list[Pace], int]:
    """Return the paces of the variants where they will train, and how many runs train at a time."""
    if ray is not None:
        from excite.comparison.cluster import measure_on_ray

        return measure_on_ray(plan, ray)
    if jobs > 1:
        from excite.comparison.pool import measure_in_processes

        return measure_in_processes(plan, jobs)
    return [measure_pace(plan, variant) for variant in plan.variants], 1


def _run_seeds(
    plan: Plan, folder: Path, classes: int, size: int, jobs: int, ray: str | None, store: Store | None, report: Report
) -> tuple[Results, str | None]:
    """Bring every seed of a plan to its end, and write the reports; return what they hold, and why without costs."""
    runs = plan.runs(folder)
    if store is not None:
        _share(plan, folder, store)
    cost.read(folder)  # a broken file is known before the runs, not after them
    waiting = [run for run in runs if not run.finished]
    if len(waiting) < len(runs):
        report(f"{len(runs) - len(waiting)} of {len(runs)} runs are there already")
    failures = _train(plan, waiting, jobs, ray, store, report)
    uncounted = attempt(cost.load_or_measure, plan, folder, classes, size)
    if uncounted:
        uncounted = f"costs were not measured ({uncounted}); the reports go without, the same command tries again"
        report(uncounted)
    results = collect(folder)
    written = write_reports(results, folder)
    unsent = None
    if store is not None:
        unsent = attempt(store.send, folder, "", written if uncounted else [cost.FILE, *written])
    if failures or unsent:
        raise ExciteError("; ".join(filter(None, (_listed(failures, len(runs)), unsent, uncounted))))
    return results, uncounted


def _listed(failures: Sequence[tuple[Run, str]], total: int) -> str:
    if not failures:
        return ""
    listed = "; ".join(f"{run.name}: {text}" for run, text in failures)
    return f"{len(failures)} of {total} runs failed ({listed}); the others are kept, start again"


def _share(plan: Plan, folder: Path, store: Store) -> None:
    """Let folder and store hold the same plan, ended runs and costs. Raises UsageError before anything is sent."""
    runs = [run.folder for run in plan.runs(folder)]
    store.fetch_ended(runs)
    check_agreement(plan, folder)
    if not (folder / cost.FILE).exists() and cost.FILE in store.files():
        store.fetch("", folder, [cost.FILE])
    store.send(folder, "", [FILE])
    store.send_ended(runs)


def write_reports(results: Results, folder: Path) -> list[str]:
    """Write results.json, results.csv, results.md, the pictures and report.html into `folder`; return their names."""
    pictures = draw(results, folder)
    texts = [
        write_json(folder / "results.json", results.to_dict()),
        write_text(folder / "results.csv", to_csv(results)),
        write_text(folder / "results.md", to_markdown(results)),
        write_text(folder / "report.html", page(results, pictures, folder)),
    ]
    return [path.name for path in (*pictures, *texts)]


def write_report(folder: Path) -> Results:
    """Write the reports of a comparison as far as it has come, without training anything."""
    load(folder)
    results = collect(folder)
    write_reports(results, folder)
    return results


def _probe(plan: Plan, report: Report) -> tuple[DataBundle, int]:
    """Return (data, image size) after building every network once: an impossible variant fails before training."""
    from excite.data import open_data
    from excite.train.datamodule import resolve_preprocess

    bundle = open_data(plan.data)
    config: TrainConfig = plan.config(plan.variants[0], 0, Path("unused"))
    twins: dict[str, str] = {}
    for name, network in cost.networks(plan, bundle.num_classes).items():
        # The same modules with the same sizes: what differs in words comes out the same here.
        form = f"{network}{[(key, tuple(value.shape)) for key, value in network.state_dict().items()]}"
        if form in twins:
            report(f"note: {twins[form]} and {name} are the same network on this backbone")
        twins.setdefault(form, name)
    return bundle, resolve_preprocess(bundle, config).size


def _train(
    plan: Plan, waiting: list[Run], jobs: int, ray: str | None, store: Store | None, report: Report
) -> list[tuple[Run, str]]:
    if ray is not None:
        from excite.comparison.cluster import train_on_ray

        return train_on_ray(plan, waiting, ray, report, store)
    if jobs > 1 and waiting:
        from excite.comparison.pool import train_in_processes

        return train_in_processes(plan, waiting, jobs, report, store)
    failures = []
    for number, run in enumerate(waiting, 1):
        report(f"run {number} of {len(waiting)}: {run.name}")
        if failure := attempt(execute, plan, run, store) or attempt(outcome, run):
            failures.append((run, failure))
        report(f"  failed: {failure}" if failure else f"  {outcome(run)}")
    return failures
