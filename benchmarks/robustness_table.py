"""The bundled CIFAR-10 networks under every corruption: top-1 errors by family, and the pictures of the command.

    python benchmarks/robustness_table.py --data parquet:data/cifar10 --limit 500

runs `excite robustness` on the test images; writes docs/results/robustness-cifar10.json and the pictures in docs/img.
A data path of this machine is written as data/FOLDER.
"""

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from record import HERE, show, shown_data, table, write

from excite.common.files import write_bytes

DOCS = HERE.parent / "docs"
NETWORKS = [f"{method}resnet20.cifar10" for method in ("", "se_", "eca_", "srm_", "cbam_", "emca_eca_")]
PICTURES = {
    "errors": "robustness_cifar_errors",
    "probes": "robustness_cifar_probes",
    "corruptions": "corruptions_cifar",
}


def tables(networks: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the errors in per cent: a row per family, a column per network."""
    found = [n["corruptions"] for n in networks]
    families = found[0]["by_family"]
    rows = [
        ["clean", *(100 * n["clean_error"] for n in networks)],
        *([family, *(100 * c["by_family"][family] for c in found)] for family in families),
        ["mean, un-normalised", *(100 * c["mean_error"] for c in found)],
        ["mCE, normalised", *(100 * c["mce"] for c in found)],
        ["relative mCE", *(None if c["relative_mce"] is None else 100 * c["relative_mce"] for c in found)],
    ]
    columns = {"family": "", **{n["label"]: "{:.1f}" for n in networks}}
    return {"top-1 error in %": table(columns, rows)}


def main(arguments: list[str] | None = None, docs: Path = DOCS) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--limit", type=int, default=500, help="test images")
    args = parser.parse_args(arguments)
    words = ["robustness", *NETWORKS, "--data", args.data, "--limit", str(args.limit), "--probes", "all"]
    words += ["--baseline", NETWORKS[0]]
    with tempfile.TemporaryDirectory() as out:
        subprocess.run([sys.executable, "-m", "excite", *words, "--out", out], check=True, stdout=subprocess.DEVNULL)
        found = json.loads((Path(out) / "robustness.json").read_text(encoding="utf-8"))
        for name, picture in PICTURES.items():
            write_bytes(docs / "img" / f"{picture}.png", (Path(out) / f"{name}.png").read_bytes())
    kept = tables(found["networks"])
    show(kept)
    command = shlex.join(["excite", *(shown_data(word) if word == args.data else word for word in words)])
    first = found["networks"][0]["label"]
    once = "mean over severities 1 to 5, one training of each network"
    notes = [f"{found['images']} test images, {once}. mCE is divided by {first}'s"]
    write(docs / "results" / "robustness-cifar10.json", kept, command=command, notes=notes)


if __name__ == "__main__":
    main()
