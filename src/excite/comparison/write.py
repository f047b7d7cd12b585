"""The files of a comparison: table as CSV, JSON and Markdown, pictures, one page."""

from pathlib import Path

from excite.common.files import write_json, write_text
from excite.comparison.page import page
from excite.comparison.plots import draw
from excite.comparison.results import Results
from excite.comparison.table import to_csv, to_markdown


def write_reports(results: Results, folder: Path) -> None:
    """Write results.json, results.csv, results.md, the pictures and report.html into `folder`."""
    pictures = draw(results, folder)
    write_json(folder / "results.json", results.to_dict())
    write_text(folder / "results.csv", to_csv(results))
    write_text(folder / "results.md", to_markdown(results))
    write_text(folder / "report.html", page(results, pictures))
