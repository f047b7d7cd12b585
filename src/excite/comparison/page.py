"""report.html: one self-contained page, readable on a phone, sorted by a click; it asks the network for nothing."""

import base64
import datetime
import html
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from excite import __version__
from excite.common.tables import counted
from excite.comparison.command import command
from excite.comparison.results import Results, Row
from excite.comparison.table import cells, environment_text, header, notes, verdict


def page(results: Results, pictures: Sequence[Path], folder: Path | None = None) -> str:
    """Return the page's text; folder: of the comparison, for the command that goes on with it."""
    plan = results.plan
    size = f"{counted(len(plan.variants), 'variant')}, {counted(plan.seeds, 'seed')}"
    title = f"{', '.join(plan.backbones)} on {plan.data}: {size}"
    parts = {
        "title": html.escape(title),
        "state": _state(results),
        "verdict": html.escape(verdict(results)),
        "made": _made(results, folder),
        "head": "".join(f'<th scope="col"><button>{html.escape(h)}</button></th>' for h in header(results)),
        "rows": "\n".join(_row(row) for row in results.rows),
        "seeds": _seeds(results),
        "notes": "".join(f"<li>{html.escape(n)}</li>" for n in notes(results)),
        "pictures": "\n".join(_picture(p) for p in pictures),
    }
    text = files("excite.comparison").joinpath("page.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda place: parts[place[1]], text)  # in one pass: a name may hold such a place


def _state(results: Results) -> str:
    if results.complete:
        return f'<p class="state">All {results.total} runs have finished.</p>'
    return f'<p class="state open">Unfinished: {results.finished} of {results.total} runs.</p>'


def _made(results: Results, folder: Path | None) -> str:
    """How the page came to be: command, version, date, machine."""
    facts = f"excite {__version__}, {datetime.date.today().isoformat()}"
    if results.environment:
        facts += f". {environment_text(results.environment)}"
    return f"<pre>{html.escape(command(results.plan, folder))}</pre><p>{html.escape(facts)}</p>"


def _row(row: Row) -> str:
    """One table row; every cell carries the number that it sorts by."""
    cost: Mapping[str, object] = row.cost or {}
    keys = (
        row.name,
        cost.get("parameters", -1),
        cost.get("macs", -1),
        cost.get("latency_ratio", -1),
        cost.get("step_ratio", -1),
        cost.get("training_memory", -1),
        -1 if row.mean is None else row.mean,
        -9 if row.gain is None or row.gain.mean is None else row.gain.mean,
        2 if row.gain is None or row.gain.p_holm is None else row.gain.p_holm,
        row.verdict,
    )
    parts = []
    for i, (text, key) in enumerate(zip(cells(row), keys, strict=True)):
        tag = "th scope=row" if i == 0 else "td"
        value = html.escape(str(key), quote=True)
        # Spreads and intervals go to a line of their own, so that the table is half as wide.
        shown = html.escape(text).replace(" (", "<br><small>(").replace(" [", "<br><small>[")
        shown += "</small>" if "<small>" in shown else ""
        parts.append(f'<{tag} data-key="{value}">{shown}</{tag.split(maxsplit=1)[0]}>')
    return f"<tr>{''.join(parts)}</tr>"


def _seeds(results: Results) -> str:
    """The table behind the table: top-1 of every single run."""
    seeds = range(results.plan.seeds)
    head = "".join(f'<th scope="col">seed {s}</th>' for s in seeds)
    rows = []
    for row in results.rows:
        values = "".join(f"<td>{100 * row.top1[s]:.2f} %</td>" if s in row.top1 else "<td>-</td>" for s in seeds)
        rows.append(f"<tr><th scope=row>{html.escape(row.name)}</th>{values}</tr>")
    return f'<table class="seeds"><thead><tr><th>variant</th>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'


CAPTIONS = {
    "gains": (
        "Gain over the baseline, paired by seed: mean with its own 95 % interval (paired Student t), every seed a dot. "
        "Filled: clear after correction for all variants."
    ),
    "costs": (
        "Top-1 (mean ± one sample standard deviation over the seeds) against measured latency and training step, "
        "relative to the baseline, and against parameters and MACs. Axes show at least ten per cent."
    ),
    "curves": "Training loss and validation top-1: means over the seeds, the band from the lowest to the highest.",
}


def _picture(path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    caption = html.escape(CAPTIONS.get(path.stem, path.stem))
    return (
        f'<figure><img alt="{caption}" src="data:image/png;base64,{data}"><figcaption>{caption}</figcaption></figure>'
    )
