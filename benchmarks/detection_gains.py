r"""Detectors that differ in their attention alone, several seeds each: AP on the test images, and paired gains.

    python benchmarks/detection_gains.py --data shapes --name detect-shapes-attention
    python benchmarks/detection_gains.py --data voc:data/bccd --name detect-bccd-attention -- \
        --train-split trainval --val-split none

Runs that are there are kept, and one that was killed goes on from its last epoch: give the same command again. Writes
docs/results/NAME.json when all are there. Options after -- go to `excite detect train`.
"""

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from record import HERE, show, shown_data, table, write

from excite.common.files import write_json
from excite.comparison.statistics import Gain, corrected, mean_std, paired_gain

DOCS = HERE.parent / "docs"
SCORES = {"AP": ("box", "AP"), "AP50": ("box", "AP50"), "AP75": ("box", "AP75"), "VOC AP50": ("voc", "AP50")}
Metrics = dict[str, Any]  # a metrics_test.json


def excite(*words: str) -> None:
    """Run a command of excite. Raises CalledProcessError where it fails."""
    subprocess.run([sys.executable, "-m", "excite", *words], check=True)


def run(folder: Path, network: str, seed: int, args: argparse.Namespace) -> Metrics:
    """Train and test one detector, as far as that has not been done; return its scores on the test images."""
    scores = folder / "metrics_test.json"
    if not (folder / "summary.json").is_file():
        new = [network, "--data", args.data, "--seed", str(seed), "--out", str(folder), *args.train]
        there = (folder / "config.yaml").is_file()
        excite("detect", "train", *(["--resume", str(folder)] if there else new), "--pictures", "0", "--quiet")
    if not scores.is_file():
        excite("detect", "test", str(folder), "--split", "test", "--pictures", "0")
    metrics: Metrics = json.loads(scores.read_text(encoding="utf-8"))
    print(f"{folder.name}: AP {100 * metrics['box']['AP']:.2f}", flush=True)
    return metrics


def check_same(runs: Path, args: argparse.Namespace) -> None:
    """Keep how the runs of a folder are trained; raise SystemExit where those there were trained otherwise."""
    file, made = runs / "trained.json", {"data": args.data, "options": args.train}
    if file.is_file() and (there := json.loads(file.read_text(encoding="utf-8"))) != made:
        raise SystemExit(f"{runs} holds runs of {there}, not {made}; choose another --runs")
    runs.mkdir(parents=True, exist_ok=True)
    write_json(file, made)


def tables(found: dict[str, list[Metrics]]) -> dict[str, Any]:
    """Return per variant the scores over its seeds, and its gain in AP over the first; AP of every run; categories."""
    by_score = {n: {c: [100 * m[a][b] for m in ms] for c, (a, b) in SCORES.items()} for n, ms in found.items()}
    first, *others = by_score
    gains = dict(
        zip(others, corrected([paired_gain(by_score[n]["AP"], by_score[first]["AP"]) for n in others]), strict=True)
    )
    columns = {"backbone": "", **dict.fromkeys(SCORES, "{:.2f} ± {:.2f}")}
    columns |= {f"AP over {first}": "{:+.2f} [{:+.2f}, {:+.2f}]", "p, Holm": "{:.3f}", "verdict": ""}
    rows = [[n, *(pair(values) for values in v.values()), *gain_cells(gains.get(n))] for n, v in by_score.items()]
    seeds = range(len(by_score[first]["AP"]))
    single = [[n, *v["AP"]] for n, v in by_score.items()]
    categories = [row["class"] for row in found[first][0]["box"]["per_class"]]
    by_category = [[n, *(pair(category(ms, c)) for c in categories)] for n, ms in found.items()]
    return {
        "test": table(columns, rows),
        "AP by seed": table({"backbone": "", **{f"seed {s}": "{:.2f}" for s in seeds}}, single),
        "AP50 by category": table({"backbone": "", **dict.fromkeys(categories, "{:.2f} ± {:.2f}")}, by_category),
    }


def category(metrics: list[Metrics], name: str) -> list[float]:
    """Return the AP50 of one category, run by run, in per cent."""
    return [100 * row["AP50"] for m in metrics for row in m["box"]["per_class"] if row["class"] == name]


def pair(values: list[float]) -> list[float] | None:
    """Return mean and deviation, None for one value."""
    mean, std = mean_std(values)
    return None if std is None else [mean, std]


def gain_cells(gain: Gain | None) -> list[Any]:
    """Return the cells of a gain; the baseline has none."""
    if gain is None:
        return [None, None, "baseline"]
    interval = None if gain.low is None else [gain.mean, gain.low, gain.high]
    return [interval, gain.p_holm, gain.verdict]


def main(arguments: list[str] | None = None, docs: Path = DOCS) -> None:
    """Train and test what is missing, seed by seed; print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, help="folder of the run directories (runs/NAME)")
    parser.add_argument("--data", default="shapes")
    parser.add_argument("--backbones", default="resnet20,se_resnet20,eca_resnet20,emca_eca_resnet20")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--name", required=True, help="of the result file")
    parser.add_argument("--commit", help="whose sources trained, where they are not those of this checkout")
    parser.add_argument("train", nargs="*", help="options of excite detect train")
    args = parser.parse_args(arguments)
    names = args.backbones.split(",")
    runs = args.runs or Path("runs") / args.name
    check_same(runs, args)
    found: dict[str, list[Metrics]] = {name: [] for name in names}
    for seed in range(args.seeds):
        for name in names:
            found[name].append(run(runs / f"{name}-seed{seed}", name, seed, args))
    kept = tables(found)
    show(kept)
    words = ["--data", shown_data(args.data), "--backbones", args.backbones, "--seeds", str(args.seeds)]
    words += ["--name", args.name, *(["--", *args.train] if args.train else [])]
    notes = [
        "± is one sample standard deviation over the seeds. A seed gives all backbones the data order and the "
        "augmentation; p is corrected for the backbones (Holm)"
    ]
    interval = "of the gain its own 95 % interval (paired Student t)"
    command = shlex.join(["python", "benchmarks/detection_gains.py", *words])
    facts = {"command": command, **({"commit": args.commit} if args.commit else {})}
    write(docs / "results" / f"{args.name}.json", kept, interval=interval, **facts, notes=notes)


if __name__ == "__main__":
    main()
