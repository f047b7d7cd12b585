"""Put the last epoch of finished runs into the package: half-precision weights with a card that says where from,
and the card once more as a page beside them.

    excite train eca_resnet20 --recipe cifar10-short --data cifar10
    python benchmarks/bundle_weights.py runs/eca_resnet20-cifar10

The score in the card is that of the stored halves on all of the data's test images. The table of all cards goes to
`results/weights.json`, from which the docs are written.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from record import add_out, commit, show, table, write

from excite.checkpoints.bundle import load_bundle
from excite.checkpoints.reading import read_checkpoint
from excite.checkpoints.sharing import page_of
from excite.common.files import write_bytes, write_text
from excite.data.specs import open_data
from excite.measure.bench import environment
from excite.measure.bench.environment import in_words
from excite.pretrained import FOLDER, bundled, bundled_card
from excite.train.evaluate import evaluate
from excite.train.predictor import NetworkPredictor

COLUMNS = {"weights": "", "test top-1": "{:.2f} %", "top-5": "{:.2f} %", "loss": "{:.4f}", "epochs": "{}", "seed": "{}"}


def bundle(run: Path, data: str, trained_at: str | None, note: str) -> Path:
    """Write one run's network to FOLDER/DATA/NAME.safetensors; returns the path.

    data: public name of what it saw; trained_at: the commit that trained it; note: what is to be known of the data.
    """
    from safetensors.torch import save

    path = run / "checkpoints" / "last.ckpt"
    checkpoint = read_checkpoint(path)
    epochs = len((run / "metrics.csv").read_text().splitlines()) - 1
    if epochs != checkpoint.config["epochs"]:
        raise SystemExit(f"{run} is not finished: {epochs} of {checkpoint.config['epochs']} epochs")
    network, spec = load_bundle(path)
    halves = {k: v.half() if v.is_floating_point() else v for k, v in network.state_dict().items()}
    network.load_state_dict(halves)
    source = str(checkpoint.config["data"])
    result = evaluate(NetworkPredictor(network, spec), open_data(source).val, batch_size=500)
    recipe, seed = checkpoint.config["recipe"], checkpoint.config["seed"]
    trained: dict[str, Any] = {
        "data": data,
        "recipe": recipe,
        "seed": seed,
        "epochs": epochs,
        "command": f"excite train {spec.name} --recipe {recipe} --data {data} --seed {seed}",
        "commit": trained_at,
        "note": note,
        "machine": in_words(environment()),
        "versions": environment()["versions"],
        "test": {"images": result.images, "top1": result.top1, "top5": result.top5, "loss": round(result.loss, 5)},
    }
    file = FOLDER / data / f"{spec.name}.safetensors"
    file.parent.mkdir(parents=True, exist_ok=True)
    card = json.dumps({**spec.to_dict(), "trained": trained})
    write_bytes(file, save({k: v.contiguous() for k, v in halves.items()}, metadata={"excite": card}))
    print(f"{file.name}: {100 * result.top1:.2f} % of {result.images} images, {file.stat().st_size / 1e6:.2f} MB")
    return file


def main() -> None:
    """Bundle the runs that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "runs", nargs="*", type=Path, help="run directories of finished trainings; none: the table alone"
    )
    parser.add_argument("--data", default="cifar10", help="the public name of the data")
    parser.add_argument("--trained-at", default=commit(), help="the commit that trained them; by default this one")
    parser.add_argument("--note", default="", help="what is to be known of the data")
    add_out(parser, "weights")
    options = parser.parse_args()
    for run in options.runs:
        bundle(run, options.data, options.trained_at, options.note)
    rows, notes = [], set()
    for data, names in bundled().items():
        for name in names:
            write_text(FOLDER / data / f"{name}.md", page_of(f"{name}.{data}"))
            facts = bundled_card(name, data)["trained"]
            test = facts["test"]
            rows.append(
                [f"{name}.{data}", 100 * test["top1"], 100 * test["top5"], test["loss"], facts["epochs"], facts["seed"]]
            )
            notes.add(f"trained at commit {facts['commit']} on {facts['machine']}")
            notes.add(facts["note"])
    tables = {"weights": table(COLUMNS, rows)}
    show(tables)
    write(options.out, tables, notes=sorted(notes - {""}))


if __name__ == "__main__":
    main()
