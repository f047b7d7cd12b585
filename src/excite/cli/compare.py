"""`excite compare`: the fair experiment."""

import json as json_
from pathlib import Path
from typing import TYPE_CHECKING, Any

from excite.common.options import options_of
from excite.errors import UsageError

if TYPE_CHECKING:
    from excite.comparison import Results

# Any: options of methods and recipes, which those check.


def compare(
    *,
    methods: str = "none,se,eca,emca_eca",
    backbone: str = "resnet20",
    data: str = "digits",
    recipe: str = "auto",
    seeds: int = 3,
    epochs: int | None = None,
    train: dict[str, Any] = {},  # noqa: B006  (read, never written)
    options: dict[str, Any] = {},  # noqa: B006
    out: Path | None = None,
    jobs: int = 1,
    ray: str | None = None,
    report: Path | None = None,
    json: bool = False,
) -> None:
    """Train several methods on one backbone with the same recipe, data order and seeds; one table, one page.

    Finished runs are kept: the same command goes on where a killed comparison stopped, and more methods or seeds can be
    added to one. Without arguments: none, SE, ECA and EMCA-ECA on ResNet-20 and handwritten digits, three seeds.

    Args:
        methods: methods, separated by commas; the first is the baseline.
        backbone: one of ours, timm/NAME, torchvision/NAME or path/to/file.py:factory (methods are attached to those).
        data: data spec, as for excite train.
        recipe: a training recipe, as for excite train.
        seeds: runs per method.
        epochs: epochs of every run, instead of the recipe's (digits, which are for trying things out, take 10).
        train: other options of every run, as --train.lr 0.05 --train.limit_train 10000.
        options: options of one method, as --options.eca.kernel_size 3 --options.se.reduction 8.
        out: the folder to write to; by default compare/BACKBONE-DATA.
        jobs: runs at a time, each in a process of its own.
        ray: address of a Ray cluster that trains the runs (auto, HOST:PORT, or local).
        report: only write the reports of the comparison in this folder, finished or not.
        json: print JSON.

    Examples:
        excite compare --methods none,se,eca,srm --backbone resnet50_cifar --data cifar10 --seeds 5
        excite compare --backbone timm/resnet18 --methods none,eca --data imagefolder:PATH --train.lr 0.05
    """
    from excite.comparison.experiment import run_plan, write_report
    from excite.comparison.plan import make_plan

    if report is not None:
        _show(write_report(report), report, json)
        return
    names = tuple(m.strip() for m in methods.split(",") if m.strip())
    own = _method_options(names, options)
    plan = make_plan(names, backbone, data, recipe, seeds=seeds, epochs=epochs, train=train, options=own)
    folder = out or plan.folder
    results = run_plan(plan, folder, jobs=jobs, ray=ray, report=(lambda line: None) if json else print)
    _show(results, folder, json)


def _method_options(methods: tuple[str, ...], options: dict[str, Any]) -> dict[str, dict]:
    for name, value in options.items():
        if not isinstance(value, dict):
            raise UsageError(f"--options.{name} {value}: expected --options.METHOD.NAME VALUE, as eca.kernel_size 3")
    own = {method: options_of(method, methods, options) for method in methods}
    return {method: values for method, values in own.items() if values}


def _show(results: "Results", folder: Path, json: bool) -> None:
    if json:
        print(json_.dumps(results.to_dict(), indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    from excite.comparison.table import cells, header, notes

    console = Console()
    if not console.is_terminal:
        console = Console(width=160)  # a file or pipe has room
    table = Table(box=None, pad_edge=False)
    for i, name in enumerate(header(results)):
        table.add_column(name, justify="left" if i == 0 else "right", no_wrap=False)
    for row in results.rows:
        table.add_row(*cells(row))
    console.print(table)
    for note in notes(results):
        console.print(note, highlight=False, markup=False, style="dim")
    console.print(f"\nfiles: {folder}/report.html, results.csv, results.json, results.md, bubbles.png, curves.png",
                  highlight=False)  # fmt: skip
