"""`parquet:PATH`: the layout that Hugging Face `datasets` writes; splits by file name."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from excite.card import MOST_CLASSES
from excite.common.extras import require
from excite.data.bundle import DataBundle, chosen
from excite.data.preprocess import Preprocess, read_rgb
from excite.errors import ExciteError, UsageError

if TYPE_CHECKING:
    import pyarrow as pa


IMAGE_COLUMNS = ("img", "image")
LABEL_COLUMNS = ("label", "fine_label", "labels")


class ParquetImages:
    """Encoded images of a table in memory, decoded when asked for."""

    def __init__(self, table: "pa.Table", image: str, label: str, names: Sequence[str]) -> None:
        struct = table.column(image).combine_chunks()
        self.encoded = struct.field("bytes")
        self.labels: list[int] = table.column(label).to_pylist()
        self._names = list(names)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return read_rgb(self.encoded[index].as_py() or b"", self.name(index)), self.labels[index]

    def name(self, index: int) -> str:
        """Return the file and row."""
        return self._names[index]


def open_parquet(spec: str, limit_train: int | None = None, limit_val: int | None = None) -> DataBundle:
    """Open parquet files; names that start with train, and with val, valid or test, are the two splits.

    Raises UsageError for a missing path or split, ExciteError for files without image and label columns.
    """
    root = Path(spec.partition(":")[2]).expanduser()
    if not root.exists():
        raise UsageError(f"{spec}: no folder {root}")
    files = sorted(root.rglob("*.parquet")) if root.is_dir() else []
    train = [f for f in files if f.name.startswith("train")]
    val = [f for f in files if f.name.startswith(("val", "valid"))] or [f for f in files if f.name.startswith("test")]
    if not train or not val:
        names = [f.name for f in files] or "no parquet files"
        raise UsageError(f"{spec}: expected train*.parquet and val*.parquet or test*.parquet in {root}, found {names}")
    first, classes = _read(train, limit_train)
    second, _ = _read(val, limit_val)
    _check_labels(spec, [first, second], MOST_CLASSES if classes is None else len(classes))
    if classes is None:
        classes = [str(i) for i in range(max([*first.labels, *second.labels]) + 1)]
    size = min(first[0][0].size)
    how = Preprocess.for_images_of(size).to_dict()
    return DataBundle(spec, first, second, classes, how)


def _read(files: list[Path], limit: int | None) -> tuple[ParquetImages, list[str] | None]:
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
    if "bytes" not in [field.name for field in getattr(table.schema.field(image).type, "fields", [])]:
        raise ExciteError(f"{files[0]}: column {image!r} has no encoded images, as `datasets` writes them (bytes)")
    names = [f"{f.name} row {i}" for f, t in zip(files, tables, strict=True) for i in range(len(t))]
    if not len(table):
        raise ExciteError(f"{files[0]} holds no rows")
    rows = chosen(len(table), limit)
    if len(rows) < len(table):
        table, names = table.take(pa.array(rows)), [names[i] for i in rows]
    return ParquetImages(table, image, label, names), _class_names(schemas[0], label)


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


def _check_labels(spec: str, splits: list[ParquetImages], classes: int) -> None:
    for split in splits:
        for index, label in enumerate(split.labels):
            if isinstance(label, bool) or not isinstance(label, int) or not 0 <= label < classes:
                raise ExciteError(f"{spec}: {split.name(index)} has label {label!r}; expected 0 to {classes - 1}")
