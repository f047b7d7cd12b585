"""Which images come when, and how many processes read them."""

import contextlib
import multiprocessing.context
import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import islice
from typing import Any, Generic, TypeVar, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from excite.engine.process import end_with
from excite.engine.seeds import balanced_order, epoch_order
from excite.errors import ExciteError

# Any: samples and batches are of the data's own kinds.

Key = tuple[int, int]
Batch = TypeVar("Batch")
Item = TypeVar("Item")


class EpochSampler(Sampler[Key]):
    """Yields (epoch, index), so that workers which outlive an epoch still know which one it is.

    seed: of the order, None for the images' own; rank, world: this process, of how many that share the images: equally
    many for each, in their own order all of them; labels: draw all classes equally often.
    """

    def __init__(self, n: int, seed: int | None, rank: int = 0, world: int = 1, labels: Tensor | None = None) -> None:
        self.n, self.seed, self.rank, self.world, self.labels = n, seed, rank, world, labels
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.n // self.world if self.seed is not None else len(range(self.rank, self.n, self.world))

    def __iter__(self) -> Iterator[Key]:
        if self.seed is None:
            order = torch.arange(self.rank, self.n, self.world)
        elif self.labels is not None:
            order = balanced_order(self.labels, self.seed, self.epoch, self.rank, self.world)
        else:
            order = epoch_order(self.n, self.seed, self.epoch, self.rank, self.world)
        return iter([(self.epoch, i) for i in order.tolist()])


class Readers(Generic[Batch]):
    """The reading processes of a run, shared by its splits: one of them is read at a time.

    splits: data sets by name; collate: makes a batch of their items; workers: processes, 0 reads in this one; context:
    how they are started. They end with this process, however it ends.
    """

    def __init__(
        self,
        splits: Mapping[str, Dataset[Any]],
        collate: Callable[[list[Any]], Batch],
        workers: int,
        context: multiprocessing.context.BaseContext | None = None,
    ) -> None:
        self.plan = _Plan()
        self.turn = 0
        self.loader: DataLoader[Any] = DataLoader(
            _Splits(splits),
            batch_sampler=self.plan,
            num_workers=workers,
            persistent_workers=workers > 0,
            collate_fn=collate,
            multiprocessing_context=context if workers else None,
            worker_init_fn=partial(end_with, os.getpid()),
            # Starting to iterate draws a number; from the global generator it would shift what a network draws.
            generator=torch.Generator(),
        )

    def read(self, split: str, batches: Iterable[list[Any]]) -> Iterator[Batch]:
        """Yield the batches that these keys of a split make; the keys are taken as the reading goes on.

        Raises what the data raise, ExciteError where a reading process was ended, and RuntimeError where another
        reading has begun.
        """
        self.turn += 1
        turn = self.turn
        self.plan.batches = ([(split, key) for key in batch] for batch in batches)
        source = iter(self.loader)
        while True:
            try:
                batch = next(source)
            except StopIteration:
                return
            except (ExciteError, RuntimeError) as error:
                self.close()
                raise _plain(error) from None
            yield batch
            if self.turn != turn:
                raise RuntimeError(f"split {split}: read on after another reading began")

    def close(self) -> None:
        """End the processes; the next reading starts new ones.

        Left to the garbage collector, which ends the queues first, each takes torch's five seconds of patience.
        """
        iterator, self.loader._iterator = self.loader._iterator, None
        if iterator is not None and hasattr(iterator, "_shutdown_workers"):
            iterator._shutdown_workers()


def _plain(error: Exception) -> Exception:
    """Return an error as it was raised: of a reading process it comes with its whole traceback as the message."""
    lines = str(error).strip().splitlines() or [""]
    if "Original Traceback" in str(error) and lines[-1].startswith("excite."):
        return ExciteError(lines[-1].partition(": ")[2])
    if lines[0].startswith("DataLoader worker"):
        return ExciteError(f"a process that reads images was ended ({lines[0]}); --workers 0 reads in this one")
    return error


class SplitLoader(Generic[Batch]):
    """The batches of one split: `sampler` says which keys and in what order; Lightning tells it the epoch.

    drop_last: leave out an incomplete last batch.
    """

    def __init__(
        self, readers: Readers[Batch], split: str, sampler: Any, batch_size: int, *, drop_last: bool = False
    ) -> None:
        self.readers, self.split, self.sampler = readers, split, sampler
        self.batch_size, self.drop_last = batch_size, drop_last
        self.first = 0  # batches of the epoch that were trained already: a run goes on inside it
        self.batch_sampler = None  # Lightning looks for one where there is a sampler

    def __len__(self) -> int:
        whole, rest = divmod(len(self.sampler), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[Batch]:
        size = self.batch_size
        keys = islice(self.sampler, self.first * size, len(self) * size)
        yield from self.readers.read(self.split, iter(lambda: list(islice(keys, size)), []))

    def close(self) -> None:
        """End the reading processes, which other splits may share."""
        self.readers.close()


class _Plan(Sampler[list[Any]]):
    """The batches to read next."""

    def __init__(self) -> None:
        self.batches: Iterable[list[Any]] = []

    def __iter__(self) -> Iterator[list[Any]]:
        return iter(self.batches)


class _Splits(Dataset[Any]):
    """Several data sets as one, with (name, key) as keys."""

    def __init__(self, splits: Mapping[str, Dataset[Any]]) -> None:
        self.splits = dict(splits)

    def __getitem__(self, key: tuple[str, Any]) -> Any:
        split, own = key
        return self.splits[split][own]


def ahead(source: Iterator[Item], most: int) -> Iterator[Item]:
    """Yield what `source` yields, taken by a thread of its own that is at most so many items ahead."""
    waiting: queue.Queue[tuple[Item | None, BaseException | None]] = queue.Queue(most)
    ended = threading.Event()

    def put(item: Item | None, error: BaseException | None = None) -> bool:
        while not ended.is_set():
            with contextlib.suppress(queue.Full):
                waiting.put((item, error), timeout=0.1)
                return True
        return False

    def take() -> None:
        try:
            if all(put(item) for item in source):
                put(None, StopIteration())
        except BaseException as error:  # it is raised where the items are used
            put(None, error)

    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    try:
        while True:
            item, error = waiting.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield cast(Item, item)
    finally:
        ended.set()
        thread.join()


def worker_count(workers: int) -> int:
    """Return the number of reading processes: -1 is one per processor, less one, and at least one."""
    return workers if workers >= 0 else max(len(os.sched_getaffinity(0)) - 1, 1)
