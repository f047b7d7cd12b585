"""`excite tables`: the papers' tables, published beside computed."""

import json as json_
import sys
from pathlib import Path
from typing import Any, Literal

from excite.common.extras import require
from excite.errors import UsageError

# Any: cells and detectors are named by modules that are imported when the command runs.


def tables(
    name: str = "all",
    *,
    format: Literal["text", "markdown", "csv"] = "text",
    only: Literal["all", "computed", "reproduced", "rounded twice", "off", "not reproducible"] = "all",
    out: Path | None = None,
    results: Path | None = None,
    comparisons: Path | None = None,
    json: bool = False,
) -> None:
    """Set every published number of five works beside the number that our networks give, with a verdict.

    Parameters and multiply-accumulates are computed now, on the meta device, each by the convention of its table, and
    beside them those of the same network without attention. Accuracies and speeds are shown as published, beside
    recorded runs of ours where there are any. Tables: ecanet, ecanet-paper, ecanet-modules, emca, emca-placement,
    emca-scales, emanet-cifar, emanet-voc, coco, senet; all of them without a name. `ablations` sets what the papers
    say that one variant gains over another beside our comparisons, and says what did not show there.

    Args:
        name: one table, ablations, or all of it (csv: of the tables).
        format: text, markdown or csv.
        only: show only what is computed, or one verdict.
        out: the file to write, instead of the terminal.
        results: folder of recorded runs, JSON files with a list of records (default: benchmarks/results).
        comparisons: folder of comparisons of ours, JSON files of benchmarks/comparison_table.py (default:
            docs/results).
        json: print JSON.

    Examples:
        excite tables emca
        excite tables --only off --format markdown -o off.md
        excite tables ablations
    """
    from excite.common.files import write_text
    from excite.measure.published import ABLATIONS, select
    from excite.measure.records import load_records
    from excite.measure.tables import Verdict, compute

    chosen = select(name)
    if json and format != "text":
        raise UsageError(f"--format {format} and --json are two forms; leave one of them out")
    for option, folder in (("--results", results), ("--comparisons", comparisons)):
        if folder is not None and not folder.is_dir():  # without the usual ones there are no runs of ours
            what = "is a file" if folder.exists() else "is not there"
            raise UsageError(f"{option} {folder} {what}; give the name of a folder")
    results, comparisons = results or Path("benchmarks/results"), comparisons or Path("docs/results")
    if name == ABLATIONS and only != "all":
        raise UsageError(f"--only {only}: ablations have no cells to choose from; leave it out")
    if only != "all":
        chosen = [c for c in chosen if not c.measured]
    show = _progress(len(chosen))
    verdicts: list[Verdict] = compute(chosen, detector=_create_detector, records=load_records(results), progress=show)
    show(None)
    if only not in ("all", "computed"):
        verdicts = [v for v in verdicts if v.state == only]
    kind = "json" if json else format
    findings = _findings(name, comparisons) if name in (ABLATIONS, "all") and only == "all" else []
    parts, summaries = [], []
    if name != ABLATIONS:
        from excite.measure.tables_report import summary

        parts.append(_render(verdicts, kind, findings))
        summaries.append(summary(verdicts))
    if findings and not (kind in ("json", "csv") and parts):
        parts.append(_render_ablations(findings, kind))
    if findings:
        from excite.comparison import claims

        summaries.append(claims.summary(findings))
    text = "\n\n".join(part.rstrip("\n") for part in parts)
    if out is not None:
        write_text(out, text + "\n")
        print(f"wrote {out}: {' '.join(summaries)}")
        return
    print(text)


def _create_detector(**options: Any) -> Any:
    # Imported only when a detection row is reached: it brings torchvision along.
    from excite.detect import create_detector

    return create_detector(**options)


def _findings(name: str, comparisons: Path) -> Any:
    """The published claims beside comparisons; among all tables they are left out where the extra for them is."""
    try:
        require("lightning", "scipy")
    except UsageError:
        if name == "all":
            return []
        raise
    from excite.comparison import claims

    return claims.find(claims.load(comparisons))


def _render_ablations(findings: Any, kind: str) -> str:
    from excite.comparison import claims

    if kind == "json":
        return json_.dumps({"ablations": _rows(findings)}, indent=2)
    write = {"csv": claims.to_csv, "markdown": claims.to_markdown, "text": claims.to_text}[kind]
    return write(findings)


def _rows(findings: Any) -> Any:
    from excite.comparison import claims

    return claims.to_rows(findings)


def _render(verdicts: Any, kind: str, findings: Any) -> str:
    from excite.measure import tables_report as report

    if kind == "json":
        more = {"ablations": _rows(findings)} if findings else {}
        return json_.dumps({**report.to_dict(verdicts), **more}, indent=2)
    if kind == "csv":
        return report.to_csv(verdicts).rstrip("\n")
    if kind == "markdown":
        return report.to_markdown(verdicts)
    from excite.common.tables import make_console

    console = make_console()
    with console.capture() as capture:
        for table in report.to_rich(verdicts):
            console.print(table)
        console.print(report.summary(verdicts))
    return capture.get().rstrip("\n")


def _progress(total: int) -> Any:
    """A counter on the terminal (nothing in a file or pipe); called with None it clears its line."""
    done = 0

    def step(cell: Any) -> None:
        nonlocal done
        if not sys.stderr.isatty():
            return
        if cell is None:
            print("\r\033[K", end="", file=sys.stderr)
            return
        done += 1
        print(f"\r\033[K{done}/{total} {cell.table}: {cell.row}, {cell.column}", end="", file=sys.stderr, flush=True)

    return step
