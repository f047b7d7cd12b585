"""Images of a Hugging Face data set that is read while it is downloaded: counted, but not listed."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from PIL import Image
from torch import Tensor

from excite.data.preprocess import Reading, UnreadableImageError, stored_size
from excite.errors import ExciteError

if TYPE_CHECKING:
    import datasets

# Any: labels as the data have them.

BUFFER = 1000  # images among which the next one is drawn, still encoded


class Row(NamedTuple):
    """One image of a stream: its place in the order of an epoch, its encoded bytes or their file, its label or -1."""

    place: int
    encoded: bytes | str | None
    label: int
    name: str

    def read(self, reading: Reading) -> tuple[Image.Image | Tensor, int]:
        """Return the decoded image and its label. Raises UnreadableImageError."""
        if not self.encoded or self.label < 0:
            raise UnreadableImageError(self.name, "there is no image or no label")
        return reading(self.encoded, self.name), self.label


@dataclass(frozen=True)
class Columns:
    """Where a row has its image and label; number: what numbers a label."""

    image: str
    label: str
    number: Callable[[Any], int]


@dataclass
class _Cursor:
    """A reading in the stream's own order, and the row that it gave last."""

    rows: Iterator[Row] = field(default_factory=lambda: iter(()))
    last: Row | None = None


class StreamImages:
    """A split of a `datasets.IterableDataset` with the image left encoded.

    Images that are asked for by number are read in the stream's own order: a larger number goes on from the last one, a
    smaller one begins anew. count: of the images; where: what messages call the split; buffer: as BUFFER.
    """

    reading = Reading()

    def __init__(
        self, stream: "datasets.IterableDataset", columns: Columns, count: int, where: str, buffer: int = BUFFER
    ) -> None:
        self.stream, self.columns, self.count, self.where, self.buffer = stream, columns, count, where, buffer
        self.cursor = _Cursor()  # copies with another `reading` share it: rows are not decoded yet

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Image.Image | Tensor, int]:
        return self._row(index).read(self.reading)

    def name(self, index: int) -> str:
        """Return the data set, split and row."""
        return f"{self.where} row {index}"

    def size(self, index: int) -> tuple[int, int]:
        """Return width and height, from the first bytes. Raises UnreadableImageError."""
        return stored_size(self._row(index).encoded or b"", self.name(index))

    @cached_property
    def labels(self) -> list[int]:
        """The labels, in the stream's own order: a pass over their column."""
        label, number = self.columns.label, self.columns.number
        column = (row[label] for row in self.stream.select_columns([label]))
        return [-1 if value is None else number(value) for value in column]

    def head(self, count: int) -> "StreamImages":
        """Return the first images of the stream's own order."""
        count = min(count, self.count)
        return StreamImages(self.stream.take(count), self.columns, count, self.where, self.buffer)

    def rows(self, seed: int | None = None) -> Iterator[Row]:
        """Yield all rows, each once: in the stream's own order, or with files and rows shuffled by `seed`.

        Raises ExciteError where there are not as many as were counted or told.
        """
        stream = self.stream if seed is None else self.stream.shuffle(seed=seed, buffer_size=self.buffer)
        source, seen = iter(stream), 0
        for row in source:
            seen += 1
            if seen == self.count and next(source, None) is not None:
                raise self._miscounted("more than")
            image, label = row[self.columns.image], row[self.columns.label]
            encoded = image and (image["path"] if image.get("bytes") is None else image["bytes"])
            number = -1 if label is None else self.columns.number(label)
            name = f"row {seen - 1}" if seed is None else (image and image.get("path")) or f"shuffled row {seen - 1}"
            yield Row(seen - 1, encoded, number, f"{self.where} {name}")
        if seen < self.count:
            raise self._miscounted(f"{seen} and not")

    def _miscounted(self, words: str) -> ExciteError:
        split = self.where.rpartition(" ")[2]
        return ExciteError(f"{self.where} holds {words} {self.count} images; say how many there are: ?stream,{split}=N")

    def _row(self, index: int) -> Row:
        cursor = self.cursor
        if cursor.last is None or index < cursor.last.place:
            cursor.rows = self.rows()
        while cursor.last is None or cursor.last.place != index:
            row = next(cursor.rows, None)
            if row is None:
                raise IndexError(f"{self.where} has no row {index}")
            cursor.last = row
        return cursor.last
