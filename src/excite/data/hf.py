"""`hfds:NAME`: a data set of the Hugging Face hub, or a folder that `datasets` can load (extra `hf`)."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from excite.common.extras import require
from excite.data.parquet import IMAGE_COLUMNS, LABEL_COLUMNS
from excite.data.preprocess import UnreadableImageError, read_rgb, stored_size
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
    """Rows of a `datasets.Dataset` whose image column is left encoded."""

    def __init__(self, rows: "datasets.Dataset", image: str, label: str, where: str, indices: Sequence[int]) -> None:
        self.rows, self.image, self.label, self.where, self.indices = rows, image, label, where, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        row = self.rows[int(self.indices[index])]
        if row[self.label] is None or row[self.label] < 0:
            raise UnreadableImageError(self.name(index), "there is no image or no label")
        return read_rgb(self._encoded(row, index), self.name(index)), int(row[self.label])

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

    @property
    def labels(self) -> list[int]:
        """The labels; -1 where there is none."""
        column = list(self.rows[self.label])
        return [-1 if column[i] is None else int(column[i]) for i in self.indices]

    def take(self, indices: Sequence[int]) -> "HfImages":
        """Return these images alone."""
        return HfImages(self.rows, self.image, self.label, self.where, [self.indices[i] for i in indices])


def open_hf(spec: str) -> Source:
    """Open NAME, or NAME/CONFIG after a colon (`hfds:uoft-cs/cifar100:CONFIG`).

    Raises ExciteError where `datasets` is missing or cannot load it, UsageError where columns or splits are missing.
    """
    require("datasets")
    import datasets

    name, _, config = spec.partition(":")[2].partition(":")
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
    if image is None or label is None or not hasattr(features[label], "names"):
        raise UsageError(f"{spec}: expected an image column and a ClassLabel column, found {dict(features)}")
    splits: dict[SplitName, HfImages] = {}
    notes: list[str] = []
    for split, words in SPLITS.items():
        word = next((word for word in words if word in loaded), None)
        if word is None:
            continue
        rows = loaded[word].cast_column(image, datasets.Image(decode=False))
        images = HfImages(rows, image, label, f"{spec} {word}", range(len(rows)))
        if split != "train" and not any(value >= 0 for value in images.labels):
            notes.append(f"passed over the split {word}: its {len(rows)} images have no labels")
            continue
        splits[split] = images
    return Source(splits, list(features[label].names), usual_for, notes)
