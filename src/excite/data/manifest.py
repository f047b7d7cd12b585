"""What a folder of shards says about itself: `manifest.json`, written by `excite shards`, read by `wds:FOLDER`."""

import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path

from excite.card import LARGEST_SIDE, MOST_CLASSES, CardFields, Preparation, is_plain
from excite.common.checks import LARGEST, shown
from excite.common.files import write_json
from excite.errors import ExciteError, UsageError

NAME = "manifest.json"
FORMAT = 1
SPLITS = ("train", "val", "test")
LARGEST_MANIFEST = 2**28  # bytes
SHARD = re.compile(r"(train|val|test)-\d{6}\.tar")


@dataclass(frozen=True)
class Shard:
    """One tar file: its name, split, samples, bytes, SHA-256, and the unreadable images that are left out."""

    name: str
    split: str
    samples: int
    bytes: int
    sha256: str
    skipped: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Manifest:
    """What shards were made of, and those that are whole.

    source: the data spec; images: of each split of it; classes: their names, by label; preprocess: how its images
    are prepared; size: pixels of the shorter side that larger images were shrunk to, None for none; shard_size: images
    in a shard; shards: in order; complete: they are all there.
    """

    source: str
    images: dict[str, int]
    classes: list[str]
    preprocess: Preparation
    size: int | None
    shard_size: int
    shards: list[Shard] = field(default_factory=list)
    complete: bool = False

    @property
    def samples(self) -> int:
        """The samples (keys) in all shards."""
        return sum(shard.samples for shard in self.shards)

    def write(self, folder: Path) -> None:
        """Write it into the folder, atomically."""
        write_json(folder / NAME, {"format": FORMAT, **asdict(self), "samples": self.samples}, indent=1)


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of a folder. Raises UsageError where there is none, ExciteError that names what is wrong."""
    file = folder / NAME
    if not file.is_file():
        raise UsageError(f"{folder} holds no {NAME}, as `excite shards` writes it")
    try:
        if file.stat().st_size > LARGEST_MANIFEST:
            raise ValueError("it is too large")
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ExciteError(f"cannot read {file}: {' '.join(str(error).split())}") from None
    return _checked(content, str(file))


def _checked(content: object, source: str) -> Manifest:
    values = CardFields(content, source)
    if values.whole("format", 1, LARGEST) != FORMAT:
        raise ExciteError(f"{source} is of a later version: format {values.values['format']}, known here: {FORMAT}")
    names = values.values.get("classes")
    if not isinstance(names, list):
        raise values.wrong("classes", "a list of names")
    if not 1 <= len(names) <= MOST_CLASSES:
        raise values.wrong("classes", f"1 to {MOST_CLASSES} names")
    images = CardFields(values.values.get("images"), f"{source}, images")
    unknown = [name for name in images.values if name not in SPLITS]
    if unknown or "train" not in images.values:
        raise values.wrong("images", f"numbers of images of {', '.join(SPLITS)}")
    preprocess = values.preprocess("preprocess", 3)
    complete = values.values.get("complete")
    if preprocess is None or not isinstance(complete, bool):
        raise values.wrong("preprocess" if preprocess is None else "complete", "one")
    listed = values.values.get("shards")
    if not isinstance(listed, list) or len(listed) > LARGEST:
        raise values.wrong("shards", "a list of shards")
    shards = [_shard(CardFields(entry, f"{source}, shard {number}")) for number, entry in enumerate(listed)]
    if len({shard.name for shard in shards}) < len(shards):
        raise values.wrong("shards", "shards of different names")
    size = None if values.values.get("size") is None else values.whole("size", 1, LARGEST_SIDE)
    return Manifest(
        values.text("source"),
        {name: images.whole(name, 0, 2**40) for name in images.values},
        values.class_names("classes", len(names)) or [],
        preprocess,
        size,
        values.whole("shard_size", 1, LARGEST),
        shards,
        complete,
    )


def _shard(entry: CardFields) -> Shard:
    name = entry.text("name")
    if not SHARD.fullmatch(name):
        raise entry.wrong("name", "SPLIT-000000.tar")
    digest = entry.text("sha256")
    if not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise entry.wrong("sha256", "64 hexadecimal digits")
    skipped = entry.values.get("skipped", [])
    if not isinstance(skipped, list) or not is_plain(skipped) or not all(isinstance(n, str) for n in skipped):
        raise entry.wrong("skipped", "a list of names")
    split = entry.text("split", known=SPLITS)
    return Shard(name, split, entry.whole("samples", 0, LARGEST), entry.whole("bytes", 0, 2**60), digest, skipped)


def whole_shards(folder: Path) -> tuple[Manifest, list[Path]]:
    """Return the manifest of a folder and its shards.

    Raises ExciteError where shards are not written yet, missing, or of another size than it says.
    """
    manifest = read_manifest(folder)
    if not manifest.complete:
        raise ExciteError(
            f"{folder} is not complete: {len(manifest.shards)} shards are written; go on with "
            f"`excite shards {shown(manifest.source)[1:-1]} -o {folder}`"
        )
    for shard in manifest.shards:
        file = folder / shard.name
        if not file.is_file() or file.stat().st_size != shard.bytes:
            state = "missing" if not file.is_file() else f"of {file.stat().st_size} bytes, not {shard.bytes}"
            raise ExciteError(f"{file} is {state}; `excite shards` writes it anew, with the same source and --out")
    return manifest, [folder / shard.name for shard in manifest.shards]
