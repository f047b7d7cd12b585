"""What trained weights and attention are worth on a small data set: fine-tuning beside training from scratch.

python benchmarks/finetune.py

ResNet-20 with the weights that come with excite (trained on CIFAR-10) learns ten drawn classes from a few images each:
without attention, with attention put into it (the identity at first), and as ECA-ResNet-20 with trained attention.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFilter
from record import add_out, show, table, write

from excite.data import DataBundle
from excite.data.arrays import ArrayImages
from excite.data.preprocess import Preprocess
from excite.train import TrainConfig
from excite.train.fit import fit

SIDE = 32
CLASSES = ("disc", "square", "triangle", "cross", "ring", "frame", "bars", "waves", "checks", "dots")
SEEDS = (0, 1, 2)
LONGER = 3  # times the epochs, for training from scratch that has not ended at as many


def draw(kind: int, rng: torch.Generator) -> Image.Image:
    """Draw one image: a figure of any size, place, turn and colour before blurred noise of another colour."""

    def number(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=rng))

    def colour() -> tuple[int, int, int]:
        return tuple(int(number(0, 256)) for _ in range(3))

    noise = torch.randint(0, 256, (8, 8, 3), generator=rng, dtype=torch.uint8).numpy()
    picture = Image.blend(
        Image.fromarray(noise).resize((128, 128), Image.Resampling.BICUBIC),
        Image.new("RGB", (128, 128), colour()),
        number(0.3, 0.7),
    )
    mask = Image.new("L", (128, 128))
    pen = ImageDraw.Draw(mask)
    r = number(22, 44)
    low, high = 64 - r, 64 + r
    step = r / number(1.6, 2.6)
    ticks = [low + i * step for i in range(int(2 * r / step) + 1)]
    match CLASSES[kind]:
        case "disc":
            pen.ellipse((low, low, high, high), fill=255)
        case "square":
            pen.rectangle((low, low, high, high), fill=255)
        case "triangle":
            pen.polygon([(64, low), (high, high), (low, high)], fill=255)
        case "cross":
            pen.rectangle((64 - r / 3, low, 64 + r / 3, high), fill=255)
            pen.rectangle((low, 64 - r / 3, high, 64 + r / 3), fill=255)
        case "ring":
            pen.ellipse((low, low, high, high), outline=255, width=int(r / 2.5))
        case "frame":
            pen.rectangle((low, low, high, high), outline=255, width=int(r / 2.5))
        case "bars":
            for x in ticks:
                pen.rectangle((x, low, x + step / 2, high), fill=255)
        case "waves":
            for y in ticks:
                pen.arc((low, y - r / 2, 64, y + r / 2), 180, 360, fill=255, width=5)
                pen.arc((64, y - r / 2, high, y + r / 2), 0, 180, fill=255, width=5)
        case "checks":
            for i, x in enumerate(ticks):
                for y in ticks[i % 2 :: 2]:
                    pen.rectangle((x, y, x + step, y + step), fill=255)
        case _:
            for x in ticks:
                for y in ticks:
                    pen.ellipse((x, y, x + step / 2, y + step / 2), fill=255)
    mask = mask.rotate(number(-35, 35), translate=(int(number(-14, 14)), int(number(-14, 14))))
    picture.paste(Image.new("RGB", (128, 128), colour()), mask=mask)
    return picture.filter(ImageFilter.GaussianBlur(number(0, 3))).resize((SIDE, SIDE), Image.Resampling.BOX)


def images(each: int, seed: int) -> ArrayImages:
    """Return that many images of every class."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.arange(len(CLASSES)).repeat(each)
    drawn = [torch.frombuffer(bytearray(draw(int(k), rng).tobytes()), dtype=torch.uint8) for k in labels]
    return ArrayImages(torch.stack(drawn).view(-1, SIDE, SIDE, 3).permute(0, 3, 1, 2).contiguous(), labels)


def arms(weights: str, epochs: int) -> dict[str, dict[str, object]]:
    """Return what is compared: options by the name of the row."""
    tuned = {"recipe": "finetune", "epochs": epochs}
    scratch = {"recipe": "finetune", "epochs": epochs, "lr": 0.1, "no_decay": []}
    identity = {"attach": "eca", "attach_options": {"init": "identity"}}
    return {
        "resnet20 from scratch": {"model": "resnet20", **scratch},
        "eca_resnet20 from scratch": {"model": "eca_resnet20", **scratch},
        "eca_resnet20 from scratch, longer": {"model": "eca_resnet20", **scratch, "epochs": LONGER * epochs},
        "resnet20 fine-tuned": {"model": "resnet20", "init": weights.format("resnet20"), **tuned},
        "resnet20 + ECA at identity, fine-tuned": {
            "model": "resnet20",
            "init": weights.format("resnet20"),
            **identity,
            **tuned,
        },
        "eca_resnet20 fine-tuned": {"model": "eca_resnet20", "init": weights.format("eca_resnet20"), **tuned},
    }


def run(options: dict[str, object], data: DataBundle, seed: int, folder: Path) -> float:
    """Train once; return the top-1 of the last epoch in percent."""
    more = {"batch_size": 16, "seed": seed, "workers": 0, "quiet": True, "logger": "none", "device": "cpu"}
    config = TrainConfig.from_recipe(**options, data="drawn", out=str(folder), **more)
    return 100 * fit(config, bundle=data).rows[-1]["val_top1"]


def main() -> None:
    """Train, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="{}.cifar10", help="weights to start from; {} is the network's name")
    parser.add_argument("--train", type=int, default=20, help="training images of each class")
    parser.add_argument("--test", type=int, default=20, help="test images of each class")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--sheet", type=Path, help="draw a sheet of training images and stop")
    add_out(parser, "finetune")
    args = parser.parse_args()
    torch.set_num_threads(1)
    how = Preprocess.for_images_of(SIDE).to_dict()
    train, test = images(args.train, 1), images(args.test, 2)
    data = DataBundle("drawn", train, test, list(CLASSES), how, val_name="test")
    if args.sheet:
        grid = train.images[: 10 * len(CLASSES)].view(-1, len(CLASSES), 3, SIDE, SIDE).permute(0, 3, 1, 4, 2)
        Image.fromarray(grid.reshape(-1, len(CLASSES) * SIDE, 3).numpy()).save(args.sheet)
        return
    rows = []
    for name, options in arms(args.weights, args.epochs).items():
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            scores = [run(options, data, seed, Path(folder) / str(seed)) for seed in SEEDS]
        spread = [statistics.mean(scores), statistics.stdev(scores)]
        rows.append([name, options["epochs"], *scores, spread])
        print(
            name, options["epochs"], [round(s, 1) for s in scores], f"{time.perf_counter() - start:.0f} s", flush=True
        )
    columns = {"network": "", "epochs": "{}", **{f"seed {s}": "{:.1f}" for s in SEEDS}}
    columns |= {"top-1 (%)": "{:.1f} ± {:.1f}"}
    tables = {"drawn": table(columns, rows)}
    show(tables)
    notes = [f"{10 * args.train} training and {10 * args.test} test images, last epoch; ± is the standard deviation"]
    write(args.out, tables, notes=notes)


if __name__ == "__main__":
    main()
