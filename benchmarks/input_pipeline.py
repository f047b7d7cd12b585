"""Images per second and core of input pipelines, side by side: ours, torchvision's ImageFolder with v2, timm's.

python benchmarks/input_pipeline.py --images FOLDER --rounds 15

Each reads the same files in the same order in this process, on one thread, decodes them, cuts a random part to 224
pixels, flips half of them and stacks batches of 32. Ours and timm's give bytes, which the device normalises;
torchvision's gives normalised floats as in its training reference, and bytes in a second row.
"""

import argparse
import itertools
import shutil
import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from record import ORDER_STATISTICS, RATIO, add_out, ratio_cell, show, table, write
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from excite.measure.bench.timing import interleave, ratio
from excite.train.config import TrainConfig
from excite.train.datamodule import ImageData

SIZE, BATCH = 224, 32
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="a folder of JPEG files; drawn photographs of 500 x 375 without it")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--min-time", type=float, default=1.0)
    add_out(parser, "input_pipeline")
    return parser.parse_args()


def drawn(folder: Path, count: int = 64) -> None:
    """Draw photographs: clouds of several scales with the noise of a sensor."""
    for i in range(count):
        rng = np.random.default_rng(i)
        picture = rng.normal(0, 3, (375, 500, 3)).astype(np.float32)
        for cells in (4, 16, 64):
            grain = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
            picture += np.asarray(grain.resize((500, 375), Image.Resampling.BICUBIC), dtype=np.float32) / 3
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder / f"{i}.jpg", quality=90)


def arranged(source: Path | None, folder: Path) -> Path:
    """Return an image folder of two classes with these files, often enough for some batches."""
    for split in ("train", "val"):
        for name in ("one", "two"):
            (folder / split / name).mkdir(parents=True)
    if source is None:
        source = folder / "drawn"
        source.mkdir()
        drawn(source)
    files = sorted(f for f in source.rglob("*") if f.suffix.lower() in (".jpg", ".jpeg"))
    if not files:
        raise SystemExit(f"{source} holds no JPEG files")
    for number, file in zip(range(256), itertools.cycle(files)):
        shutil.copy(file, folder / "train" / ("one", "two")[number % 2] / f"{number:04d}.jpg")
    for name in ("one", "two"):
        shutil.copy(files[0], folder / "val" / name / "0.jpg")
    return folder


def endless(batches: Callable[[int], Iterator[object]]) -> Callable[[], object]:
    """Return a function that gives the next batch, epoch after epoch."""
    source = itertools.chain.from_iterable(map(batches, itertools.count()))
    return lambda: next(source)


def ours(folder: Path) -> Callable[[], object]:
    changes = {"augment": "resized-crop", "flip": True, "size": SIZE, "workers": 0, "batch_size": BATCH, "quiet": True}
    loader = ImageData(TrainConfig(data=f"imagefolder:{folder}", **changes)).train_dataloader()

    def epoch(number: int) -> Iterator[object]:
        loader.set_epoch(number)
        return iter(loader)

    return endless(epoch)


def map_style(dataset: object, collate: Callable[[list[object]], object]) -> Callable[[], object]:
    def epoch(number: int) -> Iterator[object]:
        torch.manual_seed(number)
        loader = torch.utils.data.DataLoader(dataset, BATCH, shuffle=True, drop_last=True, collate_fn=collate)
        return iter(loader)

    return endless(epoch)


def torchvision(folder: Path, floats: bool) -> Callable[[], object]:
    steps: list[v2.Transform] = [
        v2.RandomResizedCrop(SIZE, antialias=True),
        v2.RandomHorizontalFlip(),
        v2.PILToTensor(),
    ]
    if floats:
        steps += [v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    dataset = ImageFolder(folder / "train", v2.Compose([*steps, v2.ToPureTensor()]))
    return map_style(dataset, torch.utils.data.default_collate)


def timm(folder: Path) -> Callable[[], object]:
    from timm.data import create_dataset, create_transform
    from timm.data.loader import fast_collate

    dataset = create_dataset("", root=str(folder / "train"), split="train", is_training=True)
    dataset.transform = create_transform(
        SIZE, is_training=True, use_prefetcher=True, color_jitter=None, auto_augment=None, re_prob=0.0,
        interpolation="bilinear",
    )  # fmt: skip
    return map_style(dataset, fast_collate)


def main() -> None:
    args = arguments()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = arranged(args.images, Path(name))
        files = list((folder / "train").rglob("*.jpg"))
        sides = [Image.open(file).size for file in files]
        calls = {
            "torchvision ImageFolder + v2, floats": torchvision(folder, floats=True),
            "torchvision ImageFolder + v2, bytes": torchvision(folder, floats=False),
            "timm": timm(folder),
            "excite": ours(folder),
        }
        timings = interleave(calls, args.rounds, warmup=2, min_time=args.min_time)
        pixels = statistics.median(width * height for width, height in sides)
        stored = statistics.mean(file.stat().st_size for file in files) / 1e3
    reference = timings["torchvision ImageFolder + v2, floats"]
    rows = []
    for word, timing in timings.items():
        low, high = timing.quartiles
        speed = [round(BATCH / seconds, 1) for seconds in (timing.median, high, low)]
        rows.append([word, speed, ratio_cell(ratio(reference, timing))])
    tables = {
        "pipelines": table({"pipeline": "", "images/s and core": "{:.0f} [{:.0f}, {:.0f}]", "times": RATIO}, rows)
    }
    show(tables)
    about = f"JPEG files of {pixels / 1e3:.0f} thousand pixels (median), {stored:.0f} kB (mean), in the page cache"
    notes = [about, f"{SIZE} pixels, batches of {BATCH}, one process, one thread; in brackets the quartiles"]
    write(args.out, tables, interval=ORDER_STATISTICS, notes=notes)


if __name__ == "__main__":
    main()
