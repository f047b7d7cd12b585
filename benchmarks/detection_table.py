"""Print a table of detection runs, and write it as a result file.

    python benchmarks/detection_table.py --split test --out benchmarks/results/detection_bccd.json RUN...

Each RUN is a run directory of `excite detect train` in which `excite detect test` has left `metrics_SPLIT.json`.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import yaml
from record import HERE, show, table, write


def read(run: Path, split: str) -> dict[str, Any]:
    """Return what a run's files say of it."""
    summary = json.loads((run / "summary.json").read_text())
    metrics = json.loads((run / f"metrics_{split}.json").read_text())
    config = yaml.safe_load((run / "config.yaml").read_text())
    row: dict[str, Any] = {k: summary[k] for k in ("kind", "backbone", "parameters", "epochs", "train_images", "seed")}
    row |= {"recipe": config["recipe"], "seconds": summary["seconds"], "split": split}
    row["voc"] = {k: round(metrics["voc"][k], 4) for k in ("AP50", "AP50_11point")}
    for kind in ("box", "mask"):
        if kind in metrics:
            row[kind] = {k: round(metrics[kind][k], 4) for k in ("AP", "AP50", "AP75")}
            row[kind]["AP50 by category"] = {r["class"]: round(r["AP50"], 4) for r in metrics[kind]["per_class"]}
    return row


def cells(row: dict[str, Any]) -> list[Any]:
    """Return a run's row of the table, in per cent."""
    box, mask, voc = row["box"], row.get("mask"), row["voc"]
    categories = ", ".join(f"{k} {100 * v:.1f}" for k, v in box["AP50 by category"].items())
    return [
        f"{row['kind']}, {row['backbone']}",
        row["parameters"],
        row["epochs"],
        *(round(100 * box[k], 2) for k in ("AP", "AP50", "AP75")),
        *([[round(100 * mask[k], 2) for k in ("AP", "AP50")]] if mask else []),
        [round(100 * voc[k], 2) for k in ("AP50", "AP50_11point")],
        categories,
        round(row["seconds"] / 60, 1),
    ]


def main() -> None:
    """Read the runs, print and write. All of them have masks, or none."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "detection.json")
    args = parser.parse_args()
    rows = [read(run, args.split) for run in args.runs]
    columns = {"detector": "", "parameters": "{:,}", "epochs": "{}", "box AP": "{:.1f}", "AP50": "{:.1f}"}
    columns |= {"AP75": "{:.1f}", **({"mask AP, AP50": "{:.1f}, {:.1f}"} if "mask" in rows[0] else {})}
    columns |= {"VOC AP50 (11-point)": "{:.1f} ({:.1f})", "AP50 by category": "", "minutes": "{:.0f}"}
    tables = {args.split: table(columns, [cells(row) for row in rows])}
    show(tables)
    images = rows[0]["train_images"]
    write(args.out, tables, notes=[f"{images} images in training. Minutes are those of the clock"], runs=rows)


if __name__ == "__main__":
    main()
