"""`hfds:NAME`: a data set of the Hugging Face hub, or a folder that `datasets` can load (extra `hf`)."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image
from torch import Tensor

from excite.common.checks import shown
from excite.common.extras import require
from excite.data.parquet import IMAGE_COLUMNS, LABEL_COLUMNS
from excite.data.preprocess import Reading, UnreadableImageError, stored_size
from excite.data.sizes import usual_for
from excite.data.splits import Source, SplitName
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


def open_hf(spec: str) -> Source:
    """Open NAME, or NAME/CONFIG after a colon (`hfds:uoft-cs/cifar100:CONFIG`).

    Raises ExciteError where `datasets` is missing or cannot load it, UsageError where columns or splits are missing.
    """
    require("datasets")
    import datasets

    name, _, config = spec.partition(":")[2].partition(":")
    if name.startswith("~"):
        name = str(Path(name).expanduser())
    if not name:
        raise UsageError(f"{spec}: expected hfds:NAME")
    try:
        saved = any((Path(name) / file).is_file() for file in SAVED)
        loaded = datasets.load_from_disk(name) if saved else datasets.load_dataset(name, config or None)
    except Exception as error:  # many kinds: no network, no such data set, a script that is refused
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ExciteError(f"cannot load {spec}: {first}") from error
    if not isinstance(loaded, datasets.DatasetDict):
        loaded = datasets.DatasetDict({"train": loaded})
    if "train" not in loaded:
        raise UsageError(f"{spec}: expected a split train, found {list(loaded)}")
    features = loaded["train"].features
    image = next((c for c in IMAGE_COLUMNS if c in features), None)
    label = next((c for c in LABEL_COLUMNS if c in features), None)
    if image is None or label is None:
        raise UsageError(f"{spec}: expected an image column and a label column, found {dict(features)}")
    members: dict[SplitName, str] = {}
    for split, words in SPLITS.items():
        word = next((word for word in words if word in loaded), None)
        if word is not None:
            members[split] = word
    columns = {word: list(loaded[word].select_columns([label])[:][label]) for word in members.values()}
    classes, number = _numbers(spec, getattr(features[label], "names", None), columns.values())
    splits: dict[SplitName, HfImages] = {}
    notes: list[str] = []
    for split, word in members.items():
        rows = loaded[word].cast_column(image, datasets.Image(decode=False))
        labels = [-1 if value is None else number(value) for value in columns[word]]
        images = HfImages(rows, image, labels, f"{spec} {word}", range(len(rows)))
        if split != "train" and not any(value >= 0 for value in images.labels):
            notes.append(f"passed over the split {word}: its {len(rows)} images have no labels")
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
