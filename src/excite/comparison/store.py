"""Runs kept at an fsspec address (s3://BUCKET/PATH, file:///PATH): any machine that reaches it can go on with them.

A run is fetched before it goes on and sent after every epoch; its summary, which says that it has ended, is sent last.
"""

import contextlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from excite.common.extras import require
from excite.common.files import LOCK, PARTIAL, locked, replacing
from excite.errors import ExciteError, UsageError

# Any: fsspec has no types.

RESULT = ("config.yaml", "metrics.csv", "summary.json")  # what tables are made of; the summary last
LATE = ("checkpoints/last.ckpt", RESULT[-1])  # what a run goes on from, and what says that it has ended
BUCKETS = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss")  # have no folders; "making" one would make the bucket
LEFT_OUT = (LOCK, "samples", "tensorboard")


class Store:
    """A place for the files of a comparison; paths below it are written with `/`.

    Raises UsageError for an address that is none, or whose library is missing. All others raise ExciteError where the
    place cannot be reached.
    """

    def __init__(self, address: str) -> None:
        require("fsspec")
        from fsspec.core import url_to_fs
        from fsspec.implementations.local import LocalFileSystem

        self.address = address.rstrip("/")
        if not address.partition("://")[2].strip("/"):
            raise UsageError(f"--store {address}: expected an address, as s3://BUCKET/PATH or file:///PATH")
        try:
            self.system, root = url_to_fs(self.address)
        except (ImportError, ValueError) as error:
            raise UsageError(f"--store {address}: {error}") from None
        self.root = str(root).rstrip("/")
        # The folder of this machine that the address names, links followed; None for any other place.
        self.local = Path(self.root).resolve() if isinstance(self.system, LocalFileSystem) else None

    def __reduce__(self) -> tuple[type["Store"], tuple[str]]:
        """Travel to other processes as the address."""
        return Store, (self.address,)

    @property
    def private(self) -> bool:
        """Whether only this process sees it."""
        return self.address.startswith("memory:")

    def files(self, place: str = "") -> list[str]:
        """Return the paths of the files below a place, from there on; none where nothing is there."""
        base = self._path(place)
        self.system.invalidate_cache()
        found = self._reach(lambda: self.system.find(base))
        names = (str(path)[len(base) :].lstrip("/") for path in found if str(path).startswith(f"{base}/"))
        return sorted(name for name in names if PARTIAL not in name)  # of a sender that is at work, or was killed

    def fetch(self, place: str, folder: Path, names: Sequence[str]) -> None:
        """Write files of a place into a folder, each whole or not at all."""
        for name in names:
            with replacing(folder / name) as temporary:
                self._reach(partial(self._get, self._path(place, name), temporary))

    def send(self, folder: Path, place: str, names: Sequence[str]) -> None:
        """Write files of a folder to a place, one after another, each whole or not at all."""
        for name in names:
            self._reach(partial(self._put, folder / name, self._path(place, name)))

    def _path(self, *parts: str) -> str:
        return "/".join(part for part in (self.root, *parts) if part)

    def _get(self, source: str, target: Path) -> None:
        with self.system.open(source, "rb") as file, target.open("wb") as copy:
            shutil.copyfileobj(file, copy)

    def _put(self, source: Path, target: str) -> None:
        if self.local is not None:  # a copy that is cut short must not be there
            with replacing(target) as temporary:
                shutil.copyfile(source, temporary)
            return
        if self.address.partition(":")[0] not in BUCKETS:
            self.system.makedirs(target.rpartition("/")[0], exist_ok=True)
        self.system.put_file(str(source), target)  # of an object store there is a whole object or none

    def _reach(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except ExciteError:
            raise
        except Exception as error:  # each kind of place has errors of its own
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ExciteError(f"--store {self.address}: {reason}") from error

    # Runs: the folder of one is runs/NAME, here as there.

    def fetch_run(self, folder: Path) -> None:
        """Replace a run's folder by what is kept of it, where that has come as far: another machine went on with it.

        The folder stays as it is until the copy is whole. Raises UsageError while another process trains the run.
        """
        place, folder = f"runs/{folder.name}", folder.resolve()
        coming, going = (folder.with_name(f".{folder.name}.{way}{PARTIAL}") for way in ("coming", "going"))
        with _writing(folder):
            if going.exists() and not folder.exists():  # killed in the middle of an exchange
                going.rename(folder)
            _remove(coming, going)
        names = self.files(place)
        if not names:
            return
        try:
            self.fetch(place, coming, names)
            if (coming / RESULT[-1]).is_file() or _epochs(coming) >= _epochs(folder):
                with _writing(folder):
                    _exchange(folder, coming, going)
        finally:
            _remove(coming)

    def send_run(self, folder: Path) -> None:
        """Keep a run as it stands."""
        names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
        names = [name for name in names if name.partition("/")[0] not in LEFT_OUT and PARTIAL not in name]
        early = [name for name in names if name not in LATE]
        self.send(folder, f"runs/{folder.name}", [*early, *(name for name in LATE if name in names)])

    def fetch_ended(self, folders: Sequence[Path]) -> None:
        """Fetch what tables are made of from runs that ended elsewhere."""
        there = self._ended()
        for folder in folders:
            if folder.name in there and not (folder / RESULT[-1]).is_file():
                self.fetch(f"runs/{folder.name}", folder, RESULT)

    def send_ended(self, folders: Sequence[Path]) -> None:
        """Send runs that ended here."""
        there = self._ended()
        for folder in folders:
            if folder.name not in there and (folder / RESULT[-1]).is_file():
                self.send_run(folder)

    def _ended(self) -> set[str]:
        ended = f"/{RESULT[-1]}"
        return {name.removesuffix(ended) for name in self.files("runs") if name.endswith(ended)}


def _epochs(folder: Path) -> int:
    """Return how many epochs a run would go on from."""
    file = folder / RESULT[1]
    if not (folder / LATE[0]).is_file() or not file.is_file():
        return 0
    return len(file.read_bytes().splitlines()) - 1


def _exchange(folder: Path, coming: Path, going: Path) -> None:
    """Put `coming` in a run's place; the run is `going` meanwhile, so that it is whole somewhere at any moment."""
    lock = locked(folder, "another process is training this run; wait for its end") if folder.is_dir() else None
    try:
        if folder.exists():
            folder.rename(going)
        coming.rename(folder)
        _remove(going)
    finally:
        if lock is not None:
            lock.close()


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Raise ExciteError for what the system does not allow inside."""
    try:
        yield
    except OSError as error:
        raise ExciteError(f"cannot write {folder}: {error.strerror or error}") from error


def _remove(*folders: Path) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


class Sending(Callback):
    """Calls `send` when an epoch has been kept: at the start of the next one its checkpoint is there."""

    def __init__(self, send: Callable[[], None]) -> None:
        self.send, self.trained = send, False

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Send what the last epoch left; before the first one there is nothing new."""
        if trainer.is_global_zero and self.trained:
            self.send()
        self.trained = True
