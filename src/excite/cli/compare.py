"""`excite compare`: the fair experiment."""

import json as json_
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from excite.errors import UsageError

if TYPE_CHECKING:
    from excite.comparison import Results
    from excite.comparison.execute import Report
    from excite.comparison.variants import Variant

# What a comparison's folder may hold for people; of gains and costs that are not known there is no picture.
FILES = ("report.html", "results.csv", "results.json", "results.md", "gains.png", "costs.png", "curves.png")

# Any: options of methods and recipes, which those check.


def compare(
    plan: str | None = None,
    *,
    methods: str | None = None,
    backbone: str | None = None,
    data: str | None = None,
    recipe: str | None = None,
    seeds: int | None = None,
    epochs: int | None = None,
    until_clear: int | None = None,
    budget: float | None = None,
    train: dict[str, Any] = {},  # noqa: B006  (read, never written)
    options: dict[str, Any] = {},  # noqa: B006
    out: Path | None = None,
    jobs: int = 1,
    ray: str | None = None,
    store: str | None = None,
    report: Path | None = None,
    json: bool = False,
) -> None:
    """Train variants of attention with the same recipe, data order and seeds; one table, one page.

    A variant is METHOD, METHOD:NAME=VALUE;NAME=VALUE, METHOD@first or @last, or METHOD@sites=[PLACES].
    Finished runs are kept: the same command goes on where a killed comparison stopped, and variants or seeds can be
    added to one. Without arguments: none, SE, ECA and EMCA-ECA on ResNet-20 and handwritten digits, three seeds.

    Args:
        plan: a comparison that comes with excite (ablation-kernel, ...), a YAML file, or the plan.json of a comparison;
            options override it.
        methods: variants, separated by commas; the first is the baseline, and FILE.py:NAME a method of your own
            (default: none,se,eca,emca_eca).
        backbone: one of ours, timm/NAME, torchvision/NAME or path/to/file.py:factory (methods are attached to those);
            several, separated by commas, take the same variants (default: resnet20).
        data: data spec, as for excite train (default: digits).
        recipe: a training recipe, as for excite train (default: auto).
        seeds: runs per variant (default: 3).
        epochs: epochs of every run, instead of the recipe's (digits, which are for trying things out, take 10).
        until_clear: add seeds, up to so many, until every verdict is clear; the verdicts are corrected for it.
        budget: minutes that epochs, and where needed training images, are planned for, from a measured pace.
        train: other options of every run, as --train.lr 0.05 --train.limit_train 10000.
        options: options of a method in all its variants, as --options.se.reduction 8.
        out: the folder to write to; by default compare/BACKBONE-DATA, or compare/PLAN; of a plan.json its own.
        jobs: runs at a time, each in a process of its own.
        ray: address of a Ray cluster that trains the runs (auto, HOST:PORT, or local).
        store: an address (s3://BUCKET/PATH, file:///PATH) that keeps the comparison; another machine goes on with it.
        report: only write the reports of the comparison in this folder, finished or not.
        json: print JSON.

    Examples:
        excite compare --methods "none,eca:kernel_size=3,eca:kernel_size=7,se@last" --seeds 5
        excite compare ablation-kernel --budget 60
        excite compare --backbone timm/resnet18 --methods none,eca --data imagefolder:PATH --train.lr 0.05
    """
    from excite.comparison.experiment import run_plan, write_report
    from excite.comparison.plan import make_plan, plan_values

    if report is not None:
        unused = {
            "PLAN": plan, "--methods": methods, "--backbone": backbone, "--data": data, "--recipe": recipe,
            "--seeds": seeds, "--epochs": epochs, "--until-clear": until_clear, "--budget": budget, "--train": train,
            "--options": options, "--out": out, "--jobs": jobs != 1, "--ray": ray, "--store": store,
        }  # fmt: skip
        for name, value in unused.items():
            if value not in (None, False, {}):
                raise UsageError(f"--report {report} trains nothing, so it has no use for {name}; leave it out")
        _show(write_report(report), report, json)
        return
    chosen: dict[str, Any] = {"methods": methods, "backbone": backbone, "data": data, "recipe": recipe, "seeds": seeds}
    given = {name: value for name, value in chosen.items() if value is not None}
    typed = {"epochs": epochs, "until_clear": until_clear, "train": train, "options": _method_options(options)}
    planned = make_plan(**_overridden(plan_values(plan, given), given, typed))
    folder = out or (_folder_of(Path(plan)) if plan else planned.folder)
    say: Report = (lambda line: None) if json else print
    _show(run_plan(planned, folder, jobs=jobs, ray=ray, store=store, budget=budget, report=say), folder, json)


def _overridden(values: dict[str, Any], given: dict[str, Any], typed: dict[str, Any]) -> dict[str, Any]:
    """Return what a plan says with what was typed over it: epochs by either name, options of its variants, too."""
    from excite.common.options import merge

    train = {**values.get("train", {}), **typed["train"]}
    epochs, until_clear = typed["epochs"], typed["until_clear"]
    if epochs is None and "epochs" not in typed["train"]:
        epochs = values.get("epochs")
    elif "epochs" not in typed["train"]:
        train.pop("epochs", None)
    if until_clear is None and "seeds" not in given:
        until_clear = values.get("until_clear")
    options = merge(values.get("options"), typed["options"])
    values = {**values, **given, "epochs": epochs, "until_clear": until_clear, "train": train, "options": options}
    if "methods" in values and "methods" not in given and typed["options"]:
        values["methods"] = _typed_over(values["methods"], typed["options"])
    return values


def _typed_over(methods: "str | Sequence[Variant]", options: dict[str, dict[str, Any]]) -> "list[Variant]":
    """Return a file's variants with options that were typed; those that are typed themselves have their own last."""
    from excite.common.options import merge
    from excite.comparison.plan import BACKBONE
    from excite.comparison.variants import parse_all

    variants = parse_all(methods, BACKBONE)
    return [replace(v, options=merge(v.options, options.get(v.method))) for v in variants]


def _folder_of(plan: Path) -> Path:
    """The folder of a plan's comparison: that in which its plan.json lies, or compare/PLAN."""
    return plan.parent if plan.suffix == ".json" else Path("compare") / plan.stem


def _method_options(options: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """`{"se": {"reduction": 8}}` or `{"se.reduction": 8}` -> the former."""
    own: dict[str, dict[str, Any]] = {}
    for name, value in options.items():
        method, _, option = name.partition(".")
        if not option and not isinstance(value, dict):
            raise UsageError(f"--options.{name} {value}: expected --options.METHOD.NAME VALUE, as eca.kernel_size 3")
        own.setdefault(method, {}).update({option: value} if option else value)
    return own


def _show(results: "Results", folder: Path, json: bool) -> None:
    if json:
        print(json_.dumps(results.to_dict(), indent=2))
        return
    from rich.measure import Measurement
    from rich.table import Table

    from excite.common.tables import make_console, printable
    from excite.comparison.table import cells, header, notes, verdict

    console = make_console()
    table = Table(box=None, pad_edge=False)
    for i, name in enumerate(header(results)):
        # A name goes on in the next line where there is no room; cut short, two variants would look the same.
        table.add_column(name, justify="left" if i == 0 else "right", overflow="fold")
    for row in results.rows:
        table.add_row(*map(printable, cells(row)))
    if not console.is_terminal:
        needed = Measurement.get(console, console.options.update(max_width=10_000), table).maximum
        console.width = max(160, needed)
    console.print(table)
    console.print(f"\n{verdict(results)}\n")
    for note in notes(results):
        console.print(note, style="dim")
    there = [name for name in FILES if (folder / name).is_file()]
    console.print(f"\nfiles: {folder}/{', '.join(there)}")
