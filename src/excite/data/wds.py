"""`wds:PATTERN`: WebDataset shards, as `wds:/data/{train,val}-{000..031}.tar` (extra `wds`), or `wds:FOLDER`.

They are on disk, or elsewhere: `wds:https://HOST/train-{000..031}.tar`, `wds:s3://...`, `wds:pipe:COMMAND`; a folder
of `excite shards` is then written with a slash at its end.

The shards' tables of contents are read once, then samples are read by position. So they are shuffled over all shards
and a resumed run sees the same order, which a stream of shards cannot promise.
"""

import json
import math
import re
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypedDict

from PIL import Image
from torch import Tensor

from excite.card import MOST_CLASSES
from excite.common.checks import shown
from excite.common.extras import require
from excite.data.manifest import NAME, read_manifest, whole_shards
from excite.data.preprocess import Preprocess, Reading, UnreadableImageError, stored_size
from excite.data.remote import fetch, is_remote
from excite.data.sizes import usual_for
from excite.data.splits import Source, SplitName
from excite.errors import ExciteError, UsageError

IMAGES = ("jpg", "jpeg", "png", "webp", "ppm")
LABELS = ("cls", "json")
NAMES: tuple[SplitName, ...] = ("train", "val", "test")
MOST_SHARDS = 200_000
LARGEST_LABEL = 2**20  # bytes of a file with a label


class Sample(NamedTuple):
    """Where one encoded image lies: shard, byte offset, bytes; its label and key.

    One without an image has no bytes, one without a label the label -1: neither can be read.
    """

    shard: str
    offset: int
    length: int
    label: int
    key: str


class ShardImages:
    """Samples of tar files, read by position."""

    reading = Reading()

    def __init__(self, samples: list[Sample]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Image.Image | Tensor, int]:
        if self.samples[index].label < 0:
            raise UnreadableImageError(self.name(index), "there is no label")
        return self.reading(self.encoded(index), self.name(index)), self.samples[index].label

    def encoded(self, index: int) -> bytes:
        """Return the bytes of an image, as it was stored."""
        sample = self.samples[index]
        if not sample.length:
            raise UnreadableImageError(self.name(index), "there is no image")
        with open(sample.shard, "rb") as file:
            file.seek(sample.offset)
            return file.read(sample.length)

    def size(self, index: int) -> tuple[int, int]:
        """Return width and height, from the first bytes. Raises UnreadableImageError."""
        return stored_size(self.encoded(index), self.name(index))

    def name(self, index: int) -> str:
        """Return the shard and key."""
        return f"{self.samples[index].shard}:{self.samples[index].key}"

    @property
    def labels(self) -> list[int]:
        """The labels."""
        return [sample.label for sample in self.samples]

    def take(self, indices: Sequence[int]) -> "ShardImages":
        """Return these images alone."""
        return ShardImages([self.samples[i] for i in indices])


def open_wds(spec: str) -> Source:
    """Open the shards that a pattern names, or those of a folder, one that `excite shards` wrote or another.

    `train`, `val` or `test` in a file's name says which split it is of; without any, all train.

    A sample is KEY.jpg (or png, webp) with KEY.cls (a number) or KEY.json (`{"label": number}`). Class names come
    from a file classes.txt beside the shards, one per line, else they are the numbers.
    A sample without one of the two cannot be read. Raises UsageError for missing shards, ExciteError for damaged ones.
    """
    pattern = spec.partition(":")[2]
    manifest = None
    remote = is_remote(pattern)
    if remote and pattern.endswith("/"):
        folder = _fetched_folder(pattern)
    else:
        folder = Path(pattern).expanduser()
    if remote and not pattern.endswith("/"):
        shards = fetch(_named(pattern), ["classes.txt"])
    elif folder.is_dir() and (folder / NAME).is_file():
        manifest, shards = whole_shards(folder)
    elif folder.is_dir():
        shards = sorted(folder.glob("*.tar"))
        if not shards:
            raise UsageError(f"{spec}: {folder} holds no shards (.tar) and no {NAME}")
    else:
        places = [Path(place).expanduser() for place in _named(pattern)]
        shards = [p for s in places for p in (sorted(s.parent.glob(s.name)) if "*" in s.name else [s])]
    missing = [s for s in shards if not s.is_file()]
    if missing or not shards:
        raise _missing(spec, missing[0] if missing else Path(pattern).expanduser())
    named: dict[SplitName, list[Path]] = {
        name: [s for s in shards if name in s.name and (name == "train" or "train" not in s.name)] for name in NAMES
    }
    if not any(named.values()):
        named["train"] = shards
    if not named["train"]:
        raise UsageError(f"{spec}: expected shards with train in their names, found {[s.name for s in shards]}")
    splits = {name: _split(files) for name, files in named.items() if files}
    top = max(s.label for split in splits.values() for s in split.samples)
    listed = named["train"][0].parent / ("classes.txt" if manifest is None else NAME)
    if manifest is not None:
        names, how = manifest.classes, Preprocess.from_dict(manifest.preprocess)
    else:
        names = _lines(listed) if listed.is_file() else [str(i) for i in range(top + 1)]
    if top >= len(names):
        raise ExciteError(f"{spec}: label {top} has no line in {listed}, which has {len(names)}")
    return Source(splits, names, usual_for if manifest is None else lambda _: how)


def _fetched_folder(url: str) -> Path:
    """Return the folder into which a folder of `excite shards` was fetched."""
    folder = fetch([f"{url}{NAME}"])[0].parent
    fetch([f"{url}{shard.name}" for shard in read_manifest(folder).shards])
    return folder


def _named(pattern: str) -> list[str]:
    """Return the places that a pattern names."""
    ranges = [(int(first), int(last)) for first, last in re.findall(r"\{(\d{1,18})\.\.(\d{1,18})\}", pattern)]
    if math.prod(max(last - first + 1, 1) for first, last in ranges) * (1 + pattern.count(",")) > MOST_SHARDS:
        raise UsageError(f"wds:{shown(pattern)[1:-1]} names more than {MOST_SHARDS} shards")
    require("webdataset")
    from webdataset.shardlists import expand_urls

    return list(expand_urls(pattern))


def _missing(spec: str, path: Path) -> UsageError:
    folder = next((p for p in path.parents if p.is_dir()), Path())
    inside = sorted(p.name for p in folder.glob("*.tar"))
    if folder != path.parent:
        return UsageError(f"{spec}: no file {path}: there is no folder {path.parent}")
    listed = ", ".join(inside[:4]) + (f" and {len(inside) - 4} more" if len(inside) > 4 else "")
    return UsageError(f"{spec}: no file {path}; {folder} holds {listed or 'no shards (.tar)'}")


def _split(shards: list[Path]) -> ShardImages:
    samples = [sample for shard in shards for sample in contents(shard)]
    if not samples:
        raise ExciteError(f"{shards[0]} holds no samples")
    if not any(sample.length and sample.label >= 0 for sample in samples):
        first = samples[0]
        raise ExciteError(f"{first.shard}: sample {first.key} has no {'label' if first.length else 'image'}")
    return ShardImages(samples)


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise ExciteError(f"cannot read {file}: {error}") from None


class Part(TypedDict, total=False):
    """What was seen of a sample; image: its offset and size in the shard, in bytes."""

    image: tuple[int, int]
    label: int


def contents(shard: Path) -> list[Sample]:
    """Return the samples of a shard. Raises ExciteError for a damaged one."""
    parts: dict[str, Part] = {}
    try:
        with tarfile.open(shard) as tar:
            seen: set[str] = set()
            for member in tar:
                if member.name in seen or member.issparse():
                    raise ValueError(f"{member.name} {'is there twice' if member.name in seen else 'has gaps'}")
                seen.add(member.name)
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
    return [Sample(str(shard), *part.get("image", (0, 0)), part.get("label", -1), key) for key, part in parts.items()]


def _label(content: bytes, suffix: str) -> int:
    label = int(content) if suffix == "cls" else json.loads(content)["label"]
    if isinstance(label, bool) or not isinstance(label, int) or not 0 <= label < MOST_CLASSES:
        raise ValueError(f"label {shown(label)}; expected a whole number from 0 to {MOST_CLASSES - 1}")
    return label
