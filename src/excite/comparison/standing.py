"""The comparison that stands in a store: whether a plan goes on with it, and what it has grown by elsewhere."""

import contextlib
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from excite.card import code_refused
from excite.comparison.execute import Report
from excite.comparison.plan import FILE, Plan, continued, load
from excite.comparison.store import RESULT, Store
from excite.comparison.variants import Variant
from excite.engine.config import refuse_code
from excite.errors import ExciteError, UsageError
from excite.registry import METHODS, VARIABLE


@contextlib.contextmanager
def mirrored(store: Store | None) -> Iterator[Path | None]:
    """Yield a folder with a store's plan in which the runs that have ended there have ended; None where none stands.

    Errors about that folder leave as errors about the store. Raises UsageError for a store that holds runs of no plan.
    """
    names = [] if store is None else store.files()
    if store is None or FILE not in names:
        if any(name.startswith("runs/") for name in names):
            raise UsageError(f"--store {store and store.address} holds runs but no {FILE}; choose another --store")
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="excite-store-") as place:
        there = Path(place)
        store.fetch("", there, [FILE])
        for name in names:
            if name.startswith("runs/") and name.endswith(f"/{RESULT[-1]}"):
                (there / name).parent.mkdir(parents=True, exist_ok=True)
                (there / name).touch()
        try:
            yield there
        except ExciteError as error:
            if place in str(error):
                words = str(error).replace(place, f"--store {store.address}")
                error.args = (words.replace("another --out", "another --store"),)
            raise


def joined(plan: Plan, there: Path, report: Report) -> Plan:
    """Return a plan as it goes on with the comparison in a store, which may have grown elsewhere: the larger counts.

    there: what `mirrored` yields. Raises UsageError where that is another comparison, ExciteError where it has grown by
    code that nobody names here: it is not run.
    """
    old = load(there)
    more = [variant for variant in old.variants if not any(map(variant.same, plan.variants))]
    grown = replace(plan, seeds=max(plan.seeds, old.seeds))
    if all(any(map(variant.same, old.variants)) for variant in plan.variants):
        _refuse_code(more, plan, there)
        grown = replace(grown, variants=(*plan.variants, *more))
    grown = continued(grown, there)
    if (len(grown.variants), grown.seeds) != (len(plan.variants), plan.seeds):
        report(f"the store has grown: going on with {len(grown.variants)} variants and {grown.seeds} seeds")
    return grown


def _refuse_code(more: Iterable[Variant], plan: Plan, there: Path) -> None:
    for variant in more:
        if variant.backbone not in plan.backbones:
            refuse_code({"backbone": variant.backbone}, str(there))
        if variant.method not in METHODS and variant.file:
            raise code_refused(str(there), variant.file, "--methods")
        if variant.method not in METHODS:
            raise ExciteError(
                f"{there} holds variants of {variant.method}, a method that is not known here; where it is one of "
                f"yours, register it: {VARIABLE}=FILE.py:NAME"
            )
