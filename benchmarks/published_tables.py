"""The papers' tables: writes docs/tables.md, and for the README how many cells have which verdict.

python benchmarks/published_tables.py
"""

from record import HERE, write

from excite.common.files import write_text
from excite.detect import create_detector
from excite.measure.published import cells
from excite.measure.records import load_records
from excite.measure.tables import compute
from excite.measure.tables_report import STATES, blind, tally, to_markdown

DOCS = HERE.parent / "docs"


def main() -> None:
    """Compute every cell once."""
    verdicts = compute(cells(), detector=create_detector, records=load_records(HERE / "results"))
    counts = tally(verdicts)
    values = {name: str(counts[name]) for name in STATES[:4]}
    values["computed"] = str(sum(counts[name] for name in STATES[:3]))
    values["blind"] = str(len(blind(verdicts)))
    write_text(DOCS / "tables.md", to_markdown(verdicts))
    write(DOCS / "results" / "tables.json", {}, values=values)


if __name__ == "__main__":
    main()
