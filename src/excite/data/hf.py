"""`hfds:NAME`: a data set of the Hugging Face hub, or a folder that `datasets` can load (extra `hf`).

`hfds:NAME?stream` reads it while it is downloaded and keeps nothing on the disk.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image
from torch import Tensor

from excite.common.checks import LARGEST, shown
from excite.common.extras import require
from excite.data.parquet import IMAGE_COLUMNS, LABEL_COLUMNS
from excite.data.preprocess import Reading, UnreadableImageError, stored_size
from excite.data.sizes import LOOKED_AT, usual_for
from excite.data.splits import Source, SplitName
from excite.data.stream import BUFFER, Columns, StreamImages
from excite.errors import ExciteError, UsageError

if TYPE_CHECKING:
    import datasets


# Any: what a row holds, by column.

SAVED = ("dataset_dict.json", "state.json")  # in a folder that `save_to_disk` wrote
SPLITS: dict[SplitName, tuple[str, ...]] = {
    "train": ("train",),
    "val": ("validation", "val", "valid"),
    "test": ("test",),
}


class HfImages:
    """Rows of a `datasets.Dataset` whose image column is left encoded; a label of -1 is none."""

    reading = Reading()

    def __init__(
        self, rows: "datasets.Dataset", image: str, labels: Sequence[int], where: str, indices: Sequence[int]
    ) -> None:
        self.rows, self.image, self.labels, self.where, self.indices = rows, image, labels, where, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Image.Image | Tensor, int]:
        label = self.labels[index]
        if label < 0:
            raise UnreadableImageError(self.name(index), "there is no image or no label")
        return self.reading(self._encoded(self.rows[int(self.indices[index])], index), self.name(index)), label

    def _encoded(self, row: dict[str, Any], index: int) -> bytes | str:
        encoded = row[self.image]
        if not encoded:
            raise UnreadableImageError(self.name(index), "there is no image or no label")
        return encoded["bytes"] if encoded.get("bytes") is not None else encoded["path"]

    def size(self, index: int) -> tuple[int, int]:
        """Return width and height, from the first bytes. Raises UnreadableImageError."""
        return stored_size(self._encoded(self.rows[int(self.indices[index])], index), self.name(index))

    def name(self, index: int) -> str:
        """Return the data set, split and row."""
        return f"{self.where} row {self.indices[index]}"

    def take(self, indices: Sequence[int]) -> "HfImages":
        """Return these images alone."""
        labels, rows = ([values[i] for i in indices] for values in (self.labels, self.indices))
        return HfImages(self.rows, self.image, labels, self.where, rows)


@dataclass
class Streaming:
    """What stands behind `?stream`: images of splits that the data do not count, and the size of the buffer."""

    counts: dict[str, int] = field(default_factory=dict)
    buffer: int = BUFFER


def open_hf(spec: str) -> Source:
    """Open NAME, or NAME/CONFIG after a colon (`hfds:uoft-cs/cifar100:CONFIG`); with `?stream` read it as it comes.

    Raises ExciteError where `datasets` is missing or cannot load it, UsageError where columns or splits are missing.
    """
    require("datasets")
    import datasets

    place, streaming = read_streaming(spec)
    name, _, config = place.partition(":")[2].partition(":")
    if name.startswith("~"):
        name = str(Path(name).expanduser())
    if not name:
        raise UsageError(f"{spec}: expected hfds:NAME")
    saved = any((Path(name) / file).is_file() for file in SAVED)
    if saved and streaming:
        raise UsageError(f"{spec}: {name} is on the disk and read there row by row; leave ?stream out")
    try:
        if saved:
            loaded = datasets.load_from_disk(name)
        else:
            loaded = datasets.load_dataset(name, config or None, streaming=streaming is not None)
    except Exception as error:  # many kinds: no network, no such data set, a script that is refused
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ExciteError(f"cannot load {spec}: {first}") from error
    if not isinstance(loaded, dict):
        loaded = {"train": loaded}
    if "train" not in loaded:
        raise UsageError(f"{spec}: expected a split train, found {list(loaded)}")
    features = loaded["train"].features or {}
    image = next((c for c in IMAGE_COLUMNS if c in features), None)
    label = next((c for c in LABEL_COLUMNS if c in features), None)
    if image is None or label is None:
        raise UsageError(f"{spec}: expected an image column and a label column, found {dict(features)}")
    members: dict[SplitName, str] = {}
    for split, words in SPLITS.items():
        word = next((word for word in words if word in loaded), None)
        if word is not None:
            members[split] = word
    encoded = {word: loaded[word].cast_column(image, datasets.Image(decode=False)) for word in members.values()}
    names = getattr(features[label], "names", None)
    if streaming is not None:
        return _streams(spec, members, encoded, (image, label), names, streaming)
    columns = {word: list(loaded[word].select_columns([label])[:][label]) for word in members.values()}
    classes, number = _numbers(spec, names, columns.values())
    splits: dict[SplitName, HfImages] = {}
    notes: list[str] = []
    for split, word in members.items():
        labels = [-1 if value is None else number(value) for value in columns[word]]
        images = HfImages(encoded[word], image, labels, f"{spec} {word}", range(len(labels)))
        if split != "train" and not any(value >= 0 for value in images.labels):
            notes.append(f"passed over the split {word}: its {len(images)} images have no labels")
            continue
        splits[split] = images
    return Source(splits, classes, usual_for, notes)


def read_streaming(spec: str) -> tuple[str, Streaming | None]:
    """Return a spec without what stands behind its `?`, and that. Raises UsageError for other words than are known."""
    place, mark, words = spec.rpartition("?")
    if not mark or Path(spec.partition(":")[2]).exists():
        return spec, None
    streaming = Streaming()
    first, *options = words.split(",")
    for option in options:
        name, _, text = option.partition("=")
        if name not in ("buffer", *SPLITS) or not text.isascii() or not text.isdigit() or not 0 < int(text) <= LARGEST:
            first = option
        elif name == "buffer":
            streaming.buffer = int(text)
        else:
            streaming.counts[name] = int(text)
    if first != "stream":
        raise UsageError(
            f"{spec}: after ? expected stream, and perhaps train=N,val=N,test=N,buffer=N; found {shown(first)}"
        )
    return place, streaming


def _streams(
    spec: str,
    members: dict[SplitName, str],
    streams: "dict[str, datasets.IterableDataset]",
    columns: tuple[str, str],
    names: Sequence[str] | None,
    streaming: Streaming,
) -> Source:
    """Return splits that are read as they come; what the data do not say is counted in a pass over their labels."""
    notes: list[str] = []
    counts: dict[SplitName, int | None] = {}
    listed: dict[SplitName, list[object]] = {}
    for split, word in list(members.items()):
        told = (streams[word].info.splits or {}).get(word)
        counts[split] = streaming.counts.get(split) or (told.num_examples if told is not None else None)
        if counts[split] is None or names is None:
            listed[split] = [row[columns[1]] for row in streams[word].select_columns([columns[1]])]
            counts[split] = len(listed[split])
            notes.append(f"counted {counts[split]} images of {word} in a pass over their labels")
    classes, number = _numbers(spec, names, listed.values())
    splits: dict[SplitName, StreamImages] = {}
    for split, word in members.items():
        where = Columns(*columns, number)
        images = StreamImages(streams[word], where, counts[split] or 0, f"{spec} {split}", streaming.buffer)
        if not len(images):
            raise ExciteError(f"{spec}: its split {word} is empty")
        if split != "train" and not any(label >= 0 for label in images.head(LOOKED_AT).labels):
            notes.append(f"passed over the split {word}: its first images have no labels")
            continue
        splits[split] = images
    return Source(splits, classes, usual_for, notes)


def _numbers(
    spec: str, names: Sequence[str] | None, columns: Iterable[Sequence[object]]
) -> tuple[list[str], Callable[[Any], int]]:
    """Return the classes of some columns of labels, and what numbers a label. Raises UsageError for other labels.

    names: those of a ClassLabel; without them whole numbers count from 0, and words are classes in their order.
    """
    if names is not None:
        return list(names), int
    values = {value for column in columns for value in column if value is not None}
    if values and all(isinstance(value, int) and not isinstance(value, bool) for value in values):
        most = max(values)  # type: ignore[type-var]  # whole numbers, as was seen
        return [str(i) for i in range(int(most) + 1)], int  # type: ignore[call-overload]  # as above
    if values and all(isinstance(value, str) for value in values):
        classes = sorted(str(value) for value in values)
        return classes, {name: i for i, name in enumerate(classes)}.__getitem__
    raise UsageError(f"{spec}: labels are classes, whole numbers or words; found {shown(next(iter(values), None))}")
