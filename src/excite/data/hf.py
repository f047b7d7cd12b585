"""`hfds:NAME`: a data set of the Hugging Face hub, or a folder that `datasets` can load (extra `hf`)."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from excite.common.extras import require
from excite.data.bundle import DataBundle, chosen
from excite.data.parquet import IMAGE_COLUMNS, LABEL_COLUMNS
from excite.data.preprocess import Preprocess, UnreadableImageError, read_rgb
from excite.errors import ExciteError, UsageError

if TYPE_CHECKING:
    import datasets


SAVED = ("dataset_dict.json", "state.json")  # in a folder that `save_to_disk` wrote
SPLITS = ("validation", "val", "valid", "test")


class HfImages:
    """Rows of a `datasets.Dataset` whose image column is left encoded."""

    def __init__(self, rows: "datasets.Dataset", image: str, label: str, where: str, indices: Sequence[int]) -> None:
        self.rows, self.image, self.label, self.where, self.indices = rows, image, label, where, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        row = self.rows[int(self.indices[index])]
        encoded = row[self.image]
        if not encoded or row[self.label] is None or row[self.label] < 0:
            raise UnreadableImageError(self.name(index), "there is no image or no label")
        source = encoded["bytes"] if encoded.get("bytes") is not None else encoded["path"]
        return read_rgb(source, self.name(index)), int(row[self.label])

    def name(self, index: int) -> str:
        """Return the data set, split and row."""
        return f"{self.where} row {self.indices[index]}"


def open_hf(spec: str, limit_train: int | None = None, limit_val: int | None = None) -> DataBundle:
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
        raise UsageError(f"{spec}: a single split; expected train and {' or '.join(SPLITS)}, as a DatasetDict has them")
    val = next((s for s in SPLITS if s in loaded), None)
    if "train" not in loaded or val is None:
        raise UsageError(f"{spec}: expected splits train and {' or '.join(SPLITS)}, found {list(loaded)}")
    features = loaded["train"].features
    image = next((c for c in IMAGE_COLUMNS if c in features), None)
    label = next((c for c in LABEL_COLUMNS if c in features), None)
    if image is None or label is None or not hasattr(features[label], "names"):
        raise UsageError(f"{spec}: expected an image column and a ClassLabel column, found {dict(features)}")
    splits = []
    for split, limit in (("train", limit_train), (val, limit_val)):
        rows = loaded[split].cast_column(image, datasets.Image(decode=False))
        splits.append(HfImages(rows, image, label, f"{spec} {split}", chosen(len(rows), limit)))
    size = min(splits[0][0][0].size)
    how = Preprocess.for_images_of(size).to_dict()
    return DataBundle(spec, splits[0], splits[1], list(features[label].names), how)
