"""`parquet:PATH`: the layout that Hugging Face `datasets` writes; splits by file name."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image
from torch import Tensor

from excite.card import MOST_CLASSES
from excite.common.extras import require
from excite.data.preprocess import Reading, stored_size
from excite.data.sizes import usual_for
from excite.data.splits import Source, SplitName
from excite.errors import ExciteError, UsageError

if TYPE_CHECKING:
    import pyarrow as pa


# Any: labels as a file has them, before they were checked.

IMAGE_COLUMNS = ("img", "image")
LABEL_COLUMNS = ("label", "fine_label", "labels", "class", "target", "category", "y")


class ParquetImages:
    """Encoded images of a table in memory, decoded when asked for."""

    reading = Reading()

    def __init__(self, encoded: "pa.Array", labels: Sequence[Any], names: Sequence[str]) -> None:
        self.encoded, self._names = encoded, list(names)
        self.labels: list[Any] = list(labels)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image | Tensor, int]:
        return self.reading(self.encoded[index].as_py() or b"", self.name(index)), self.labels[index]

    def name(self, index: int) -> str:
        """Return the file and row."""
        return self._names[index]

    def size(self, index: int) -> tuple[int, int]:
        """Return width and height, from the first bytes. Raises UnreadableImageError."""
        return stored_size(self.encoded[index].as_py() or b"", self.name(index))

    def take(self, indices: Sequence[int]) -> "ParquetImages":
        """Return these images alone, without the bytes of the others."""
        rows = list(indices)
        return ParquetImages(self.encoded.take(rows), [self.labels[i] for i in rows], [self.name(i) for i in rows])


SPLITS: dict[SplitName, tuple[str, ...]] = {"train": ("train",), "val": ("val",), "test": ("test",)}


def open_parquet(spec: str) -> Source:
    """Open parquet files; how their names start (train, val or valid, test) says which split they are of.

    Raises UsageError for a missing path or split, ExciteError for files without image and label columns.
    """
    root = Path(spec.partition(":")[2]).expanduser()
    if not root.exists():
        raise UsageError(f"{spec}: no folder {root}")
    files = sorted(root.rglob("*.parquet")) if root.is_dir() else [root]
    named = {name: [f for f in files if f.name.startswith(starts)] for name, starts in SPLITS.items()}
    if not named["train"] and {f.name for f in files} and not any(named.values()):
        named["train"] = files  # a set that nobody divided
    if not named["train"]:
        names = [f.name for f in files] or "no parquet files"
        raise UsageError(f"{spec}: expected train*.parquet, val*.parquet and test*.parquet in {root}, found {names}")
    splits: dict[SplitName, ParquetImages] = {}
    classes: list[str] | None = None
    for name, members in named.items():
        if members:
            splits[name], own = _read(members)
            classes = own if name == "train" else classes
    words = {label for split in splits.values() for label in split.labels if isinstance(label, str)}
    if words and classes is None:
        classes = sorted(words)
        number: dict[object, int] = {name: i for i, name in enumerate(classes)}
        for split in splits.values():
            split.labels = [number.get(label, -1) for label in split.labels]
    _check_labels(spec, splits.values(), MOST_CLASSES if classes is None else len(classes))
    if classes is None:
        classes = [str(i) for i in range(max(max(split.labels) for split in splits.values()) + 1)]
    return Source(splits, classes, usual_for)


def _read(files: list[Path]) -> tuple[ParquetImages, list[str] | None]:
    require("pyarrow")
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schemas = [pq.read_schema(f) for f in files]
        image, label = _columns(files[0], schemas[0])
        tables = [pq.read_table(f, columns=[image, label]) for f in files]
        table = pa.concat_tables(tables)
    except (pa.ArrowException, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ExciteError(f"cannot read parquet files {[str(f) for f in files]}: {reason}") from error
    kind = table.schema.field(image).type
    plain = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    if not plain and "bytes" not in [field.name for field in getattr(kind, "fields", [])]:
        raise ExciteError(f"{files[0]}: column {image!r} has no encoded images, as `datasets` writes them (bytes)")
    names = [f"{f.name} row {i}" for f, t in zip(files, tables, strict=True) for i in range(len(t))]
    if not len(table):
        raise ExciteError(f"{files[0]} holds no rows")
    encoded = table.column(image).combine_chunks()
    encoded = encoded if plain else encoded.field("bytes")
    return ParquetImages(encoded, table.column(label).to_pylist(), names), _class_names(schemas[0], label)


def _columns(file: Path, schema: "pa.Schema") -> tuple[str, str]:
    image = next((c for c in IMAGE_COLUMNS if c in schema.names), None)
    label = next((c for c in LABEL_COLUMNS if c in schema.names), None)
    if image is None or label is None:
        raise ExciteError(
            f"{file} needs a column {' or '.join(IMAGE_COLUMNS)} and a column label; it has {schema.names}"
        )
    return image, label


def _class_names(schema: "pa.Schema", label: str) -> list[str] | None:
    """The names that `datasets` keeps in the schema's metadata, or None."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        names = list(features[label]["names"])
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    return names if names and all(isinstance(name, str) for name in names) else None


def _check_labels(spec: str, splits: Iterable[ParquetImages], classes: int) -> None:
    for split in splits:
        for index, label in enumerate(split.labels):
            if isinstance(label, bool) or not isinstance(label, int) or not 0 <= label < classes:
                raise ExciteError(f"{spec}: {split.name(index)} has label {label!r}; expected 0 to {classes - 1}")
