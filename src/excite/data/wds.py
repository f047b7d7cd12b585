"""`wds:PATTERN`: WebDataset shards on disk, as `wds:/data/{train,val}-{000..031}.tar` (extra `wds`).

The shards' tables of contents are read once, then samples are read by position. So they are shuffled over all shards
and a resumed run sees the same order, which a stream of shards cannot promise.
"""

import json
import tarfile
from pathlib import Path
from typing import NamedTuple, TypedDict

from PIL import Image

from excite.card import MOST_CLASSES
from excite.common.checks import shown
from excite.common.extras import require
from excite.data.bundle import DataBundle, chosen
from excite.data.preprocess import Preprocess, read_rgb
from excite.errors import ExciteError, UsageError

IMAGES = ("jpg", "jpeg", "png", "webp", "ppm")
LABELS = ("cls", "json")
LARGEST_LABEL = 2**20  # bytes of a file with a label


class Sample(NamedTuple):
    """Where one encoded image lies: shard, byte offset, bytes; its label and key."""

    shard: str
    offset: int
    length: int
    label: int
    key: str


class ShardImages:
    """Samples of tar files, read by position."""

    def __init__(self, samples: list[Sample]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        sample = self.samples[index]
        with open(sample.shard, "rb") as file:
            file.seek(sample.offset)
            return read_rgb(file.read(sample.length), self.name(index)), sample.label

    def name(self, index: int) -> str:
        """Return the shard and key."""
        return f"{self.samples[index].shard}:{self.samples[index].key}"


def open_wds(spec: str, limit_train: int | None = None, limit_val: int | None = None) -> DataBundle:
    """Open shards; a file name with `train` in it is training data, one with `val` or `test` validation data.

    A sample is KEY.jpg (or png, webp) with KEY.cls (a number) or KEY.json (`{"label": number}`). Class names come
    from a file classes.txt beside the shards, one per line, else they are the numbers.
    Raises UsageError for missing shards, ExciteError for samples without image or label.
    """
    require("webdataset")
    from webdataset.shardlists import expand_urls

    pattern = spec.partition(":")[2]
    shards = [Path(url).expanduser() for url in expand_urls(pattern)]
    shards = [p for s in shards for p in (sorted(s.parent.glob(s.name)) if "*" in s.name else [s])]
    missing = [str(s) for s in shards if not s.is_file()]
    if missing or not shards:
        raise UsageError(f"{spec}: no file {missing[0] if missing else pattern}")
    train = [s for s in shards if "train" in s.name]
    val = [s for s in shards if "val" in s.name] or [s for s in shards if "test" in s.name]
    if not train or not val:
        raise UsageError(f"{spec}: expected names with train and with val or test, found {[s.name for s in shards]}")
    splits = [_split(files, limit) for files, limit in ((train, limit_train), (val, limit_val))]
    top = max(s.label for split in splits for s in split.samples)
    listed = train[0].parent / "classes.txt"
    names = listed.read_text(encoding="utf-8").splitlines() if listed.is_file() else [str(i) for i in range(top + 1)]
    if top >= len(names):
        raise ExciteError(f"{spec}: label {top} has no line in {listed}, which has {len(names)}")
    size = min(splits[0][0][0].size)
    how = Preprocess.for_images_of(size).to_dict()
    return DataBundle(spec, splits[0], splits[1], names, how)


def _split(shards: list[Path], limit: int | None) -> ShardImages:
    samples = [sample for shard in shards for sample in _contents(shard)]
    if not samples:
        raise ExciteError(f"{shards[0]} holds no samples")
    return ShardImages([samples[i] for i in chosen(len(samples), limit)])


class Part(TypedDict, total=False):
    """What was seen of a sample; image: its offset and size in the shard, in bytes."""

    image: tuple[int, int]
    label: int


def _contents(shard: Path) -> list[Sample]:
    parts: dict[str, Part] = {}
    try:
        with tarfile.open(shard) as tar:
            for member in tar:
                folder, slash, name = member.name.rpartition("/")
                stem, _, suffix = name.partition(".")
                key = f"{folder}{slash}{stem}"
                if member.isfile() and suffix in IMAGES:
                    parts.setdefault(key, {})["image"] = (member.offset_data, member.size)
                elif member.isfile() and suffix in LABELS:
                    if member.size > LARGEST_LABEL:
                        raise ValueError(f"{member.name} is too large for a label: {member.size} bytes")
                    content = tar.extractfile(member)
                    parts.setdefault(key, {})["label"] = _label(content.read() if content else b"", suffix)
    except (tarfile.TarError, OSError, ValueError, KeyError, TypeError, EOFError, RecursionError) as error:
        raise ExciteError(f"cannot read shard {shard}: {error!r}") from error
    for key, part in parts.items():
        if len(part) < 2:
            raise ExciteError(f"{shard}: sample {key} has no {'label' if 'image' in part else 'image'}")
    return [Sample(str(shard), part["image"][0], part["image"][1], part["label"], key) for key, part in parts.items()]


def _label(content: bytes, suffix: str) -> int:
    label = int(content) if suffix == "cls" else json.loads(content)["label"]
    if isinstance(label, bool) or not isinstance(label, int) or not 0 <= label < MOST_CLASSES:
        raise ValueError(f"label {shown(label)}; expected a whole number from 0 to {MOST_CLASSES - 1}")
    return label
