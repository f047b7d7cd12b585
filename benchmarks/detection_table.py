"""Print a table of detection runs as Markdown, and store their figures as JSON.

    python benchmarks/detection_table.py --split test --out benchmarks/results/detection_bccd.json RUN...

Each RUN is a run directory of `excite detect train` in which `excite detect test` has left `metrics_SPLIT.json`.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import yaml


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


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as Markdown."""
    titles = ["detector", "parameters", "epochs", "box AP", "AP50", "AP75", "mask AP / AP50", "VOC AP50 (11-point)"]
    lines = ["| " + " | ".join([*titles, "AP50 by category"]) + " |", "|---" * (len(titles) + 1) + "|"]
    for row in rows:
        box, mask = row["box"], row.get("mask")
        cells = [f"{row['kind']}, {row['backbone']}", f"{row['parameters']:,}", str(row["epochs"])]
        cells += [f"{100 * box[k]:.1f}" for k in ("AP", "AP50", "AP75")]
        cells.append(f"{100 * mask['AP']:.1f} / {100 * mask['AP50']:.1f}" if mask else "-")
        cells.append(f"{100 * row['voc']['AP50']:.1f} ({100 * row['voc']['AP50_11point']:.1f})")
        cells.append(", ".join(f"{k} {100 * v:.1f}" for k, v in box["AP50 by category"].items()))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Read the runs, store and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    rows = [read(run, args.split) for run in args.runs]
    if args.out:
        args.out.write_text(json.dumps(rows, indent=1) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
