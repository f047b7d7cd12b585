"""`excite show data`: what a data set holds, and what is wrong with it."""

import json as json_
from pathlib import Path
from typing import TYPE_CHECKING

from excite.common.files import check_writable
from excite.common.tables import printable, say
from excite.errors import UsageError

if TYPE_CHECKING:
    from excite.data.report import DataReport

MOST_CLASSES = 30  # lines for people


def show_data(spec: str, limit: int, out: str | None, json: bool) -> None:
    """Print the classes, the images of each split, their sizes, and what may spoil a training; draw a contact sheet.

    Raises UsageError for a spec or file that cannot be used, ExciteError for data that cannot be read.
    """
    from excite.data import SPECS, open_data
    from excite.data.report import draw_contact_sheet, look

    if not spec:
        raise UsageError(f"name the data: excite show data PATH, or one of {', '.join(s.form for s in SPECS.values())}")
    if limit < 1:
        raise UsageError(f"--limit must be at least 1, got {limit}")
    if out is not None:
        check_writable(out)
    bundle = open_data(spec)
    report = look(bundle, limit)
    if out is not None:
        draw_contact_sheet(bundle, Path(out))
    if json:
        print(json_.dumps({**report.to_dict(), "out": out}, indent=2))
    else:
        _print(report, out)


def _print(report: "DataReport", out: str | None) -> None:
    say(f"{report.spec}: {len(report.class_names)} classes; {report.result}")
    for note in report.notes:
        say(f"  {note}")
    say()
    shown = report.class_names[:MOST_CLASSES]
    width = max(5, *(len(printable(name)) for name in shown)) + 2
    say(f"{'class':<{width}}" + "".join(f"{name:>8}" for name in report.splits))
    for i, name in enumerate(shown):
        say(f"{printable(name):<{width}}" + "".join(f"{split.classes[i]:>8}" for split in report.splits.values()))
    if len(report.class_names) > MOST_CLASSES:
        say(f"... and {len(report.class_names) - MOST_CLASSES} classes more")
    say(f"{'all':<{width}}" + "".join(f"{split.images:>8}" for split in report.splits.values()))
    say()
    for name, split in report.splits.items():
        if split.widths and split.heights:
            named = (("width", split.widths), ("height", split.heights))
            sides = (f"{label} {low} to {high} (median {mid})" for label, (low, mid, high) in named)
            say(f"{name}: {', '.join(sides)} pixels, in {split.looked_at} of {split.images} images")
    say(f"trained at {report.size} x {report.size} pixels, unless the network or --size says otherwise")
    if out is not None:
        say(f"contact sheet: {out}")
    say()
    for sentence in report.wrong:
        say(f"wrong: {sentence}")
    if not report.wrong:
        say("nothing wrong was seen")
