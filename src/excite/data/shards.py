"""Write any data as WebDataset shards: tar files with a manifest, whole or not at all, the same bytes again.

A shard holds KEY.jpg (png, webp, ppm) and KEY.cls (the label) for each image; KEY is CLASS/NUMBER, the number being the
image's in its split. Encoded images are taken as they are, so they read back to the same pixels.
"""

import hashlib
import io
import os
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from excite.common.files import LOCK, locked, partial_files, replacing, safe_name
from excite.data.bundle import DataBundle, Images
from excite.data.folder import FolderImages
from excite.data.manifest import NAME, Manifest, Shard, read_manifest
from excite.data.parquet import ParquetImages
from excite.data.preprocess import UnreadableImageError, read_rgb
from excite.data.wds import ShardImages, contents
from excite.errors import ExciteError, UsageError

ENDINGS = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp", "PPM": "ppm"}  # of formats that stay as they are
QUALITY = 95  # of photographs that are made smaller


@dataclass(frozen=True)
class Written:
    """What `write_shards` left: the manifest, and how many of its shards were there before."""

    manifest: Manifest
    kept: int


@dataclass(frozen=True)
class _Part:
    """The images of one shard."""

    name: str
    split: str
    images: Images
    first: int
    last: int  # not included


def write_shards(
    bundle: DataBundle,
    folder: Path,
    *,
    size: int | None = None,
    shard_size: int = 1000,
    workers: int = 0,
    skip: bool = False,
    overwrite: bool = False,
    report: Callable[[int, int], None] | None = None,
) -> Written:
    """Write all splits of a data set as shards into `folder`, or go on where a process that wrote them was ended.

    size: larger images are shrunk to that many pixels of the shorter side; shard_size: images in a shard; workers:
    threads that read images; skip: leave out images that cannot be read, and list them; overwrite: replace what is
    there; report: called with (shards there, shards in all).
    The outcome depends on the data and on size and shard_size alone. Raises UsageError where the folder holds something
    else, UnreadableImageError unless `skip`, ExciteError where it cannot be written.
    """
    splits = _splits(bundle)
    plan = Manifest(
        bundle.spec,
        {name: len(images) for name, images in splits.items()},
        bundle.class_names,
        bundle.default_preprocess,
        size,
        shard_size,
    )
    parts = [
        _Part(f"{name}-{number:06d}.tar", name, images, first, min(first + shard_size, len(images)))
        for name, images in splits.items()
        for number, first in enumerate(range(0, len(images), shard_size))
    ]
    taken: set[str] = set()
    places = [safe_name(name, taken) for name in bundle.class_names]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise ExciteError(f"cannot make {folder}: {getattr(error, 'strerror', None) or error}") from error
    lock = locked(folder, "another process is writing these shards; wait for its end or take another --out")
    try:
        done = _prepare(folder, plan, overwrite)
        kept = len(done)
        for part, shard in _write(parts, folder, places, size, workers, skip, done):
            done[part] = shard
            manifest = replace(plan, shards=[done[p.name] for p in parts if p.name in done])
            manifest = replace(manifest, complete=len(done) == len(parts))
            manifest.write(folder)
            if report is not None:
                report(len(done), len(parts))
        manifest = replace(plan, shards=[done[part.name] for part in parts], complete=True)
        if not manifest.samples:
            raise ExciteError(f"no image of {bundle.spec} can be read")
        manifest.write(folder)
        return Written(manifest, kept)
    finally:
        if lock is not None:
            lock.close()


def _splits(bundle: DataBundle) -> dict[str, Images]:
    held_out: dict[str, Images] = {bundle.val_name: bundle.val}
    if bundle.separate_test is not None:
        held_out["test"] = bundle.separate_test
    return {"train": bundle.train, **held_out}


def _prepare(folder: Path, plan: Manifest, overwrite: bool) -> dict[str, Shard]:
    """Return the shards that are there and whole, by name; what a killed writer left is removed."""
    before = None
    if (folder / NAME).is_file():
        try:
            before = read_manifest(folder)
        except ExciteError:
            if not overwrite:
                raise
    leftovers = {folder / LOCK, *partial_files(folder)}
    others = [path for path in sorted(folder.iterdir()) if path not in leftovers]
    if before is None and others and not ((folder / NAME).is_file() and overwrite):
        raise UsageError(f"{folder} exists and holds no shards ({others[0].name}, ...); take another --out")
    if before is not None and replace(before, shards=[], complete=False) != plan and not overwrite:
        raise UsageError(
            f"{folder} holds shards of {before.source} (size {before.size}, {before.shard_size} images each, "
            f"{sum(before.images.values())} images); take another --out, or --overwrite"
        )
    whole: dict[str, Shard] = {}
    if before is not None and not overwrite:
        whole = {shard.name: shard for shard in before.shards if _state(folder, shard) is None}
    try:
        for path in (
            partial_files(folder) if not overwrite else [p for p in others if p.suffix == ".tar" or p.name == NAME]
        ):
            path.unlink(missing_ok=True)
    except OSError as error:
        raise ExciteError(f"cannot write {folder}: {error.strerror}") from error
    replace(plan, shards=list(whole.values())).write(folder)  # from now on it is known what the folder is
    return whole


def _state(folder: Path, shard: Shard) -> str | None:
    """Return what is wrong with a shard, None for one that is as its manifest says."""
    file = folder / shard.name
    try:
        if not file.is_file() or file.is_symlink():
            return "is missing"
        if file.stat().st_size != shard.bytes:
            return f"is of {file.stat().st_size} bytes, not {shard.bytes}"
        with file.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return None if digest == shard.sha256 else "has another SHA-256: it is damaged"


def _write(
    parts: list[_Part],
    folder: Path,
    places: list[str],
    size: int | None,
    workers: int,
    skip: bool,
    done: dict[str, Shard],
) -> Iterator[tuple[str, Shard]]:
    """Write the shards that are not done, and yield each with its name as soon as it is there."""
    waiting = [part for part in parts if part.name not in done]
    if workers < 1:
        for part in waiting:
            yield part.name, _write_shard(part, folder, places, size, skip)
        return
    with ThreadPoolExecutor(workers) as pool:  # reading images and taking sums leave Python's lock to the others
        futures: dict[Future[Shard], str] = {
            pool.submit(_write_shard, part, folder, places, size, skip): part.name for part in waiting
        }
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _write_shard(part: _Part, folder: Path, places: list[str], size: int | None, skip: bool) -> Shard:
    skipped: list[str] = []
    samples = 0
    with replacing(folder / part.name) as temporary:
        with open(temporary, "wb") as file, tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for index in range(part.first, part.last):
                try:
                    content, ending, label = _sample(part.images, index, size)
                except UnreadableImageError as error:
                    if not skip:
                        raise
                    skipped.append(error.name)
                    continue
                key = f"{places[label]}/{index:08d}"
                for suffix, data in ((ending, content), ("cls", str(label).encode())):
                    member = tarfile.TarInfo(f"{key}.{suffix}")  # of no owner and no time: the same bytes again
                    member.size, member.mode = len(data), 0o644
                    tar.addfile(member, io.BytesIO(data))
                samples += 1
        with open(temporary, "rb") as written:
            digest = hashlib.file_digest(written, "sha256").hexdigest()
        length = os.path.getsize(temporary)
    return Shard(part.name, part.split, samples, length, digest, skipped)


def _sample(images: Images, index: int, size: int | None) -> tuple[bytes, str, int]:
    """Return one image's encoded bytes, their file ending, and its label. Raises UnreadableImageError."""
    image, label = images[index]  # decoded, so that no shard holds what cannot be read
    picture = Image.fromarray(np.asarray(image.permute(1, 2, 0))) if isinstance(image, Tensor) else image
    content = _encoded(images, index)
    ending = ENDINGS.get(_format(content))
    if size is not None and min(picture.size) > size:
        small = tv.resize(picture, [size], antialias=True)
        stream = io.BytesIO()
        if ending == "jpg":
            small.save(stream, "JPEG", quality=QUALITY, subsampling=0)
        else:
            small.save(stream, "PNG")
        return stream.getvalue(), "jpg" if ending == "jpg" else "png", label
    if ending is None:
        stream = io.BytesIO()
        picture.save(stream, "PNG")
        return stream.getvalue(), "png", label
    read_rgb(content, images.name(index))
    return content, ending, label


def _encoded(images: Images, index: int) -> bytes:
    """Return the bytes of an image that a file holds; none for images that are held decoded."""
    if isinstance(images, FolderImages):
        return images.files[index].read_bytes()
    if isinstance(images, ShardImages):
        return images.encoded(index)
    if isinstance(images, ParquetImages):
        return images.encoded[index].as_py() or b""
    return b""


def _format(content: bytes) -> str:
    if not content:
        return ""
    try:
        with Image.open(io.BytesIO(content)) as image:
            return image.format or ""
    except Exception:  # Pillow's plugins raise whatever a damaged file makes them stumble over
        return ""


def verify(folder: Path) -> Manifest:
    """Return the manifest of a folder after every shard and every key was checked.

    Raises UsageError where there is no manifest, ExciteError that names what is wrong.
    """
    manifest = read_manifest(folder)
    wrong = [f"{shard.name} {state}" for shard in manifest.shards if (state := _state(folder, shard)) is not None]
    if wrong or not manifest.complete:
        listed = "; ".join([*([] if manifest.complete else ["shards are missing in its manifest"]), *wrong[:5]])
        raise ExciteError(f"{folder}: {listed}; `excite shards` writes them anew, with the same source and --out")
    strange = sorted({path.name for path in folder.glob("*.tar")} - {shard.name for shard in manifest.shards})
    if strange:
        raise ExciteError(f"{folder}: {strange[0]} is not in its manifest")
    keys: dict[str, set[str]] = {}
    for shard in manifest.shards:
        samples = contents(folder / shard.name)
        if len(samples) != shard.samples:
            raise ExciteError(f"{folder}: {shard.name} holds {len(samples)} samples, its manifest says {shard.samples}")
        known = keys.setdefault(shard.split, set())
        for sample in samples:
            if sample.key in known or not sample.length or not 0 <= sample.label < len(manifest.classes):
                fault = f"has label {sample.label}, which is no class" if sample.label >= 0 else "has no label"
                fault = "is there twice" if sample.key in known else fault if sample.length else "has no image"
                raise ExciteError(f"{folder}: {shard.name}: sample {sample.key} {fault}")
            known.add(sample.key)
    for split, number in manifest.images.items():
        own = [shard for shard in manifest.shards if shard.split == split]
        if sum(shard.samples + len(shard.skipped) for shard in own) != number:
            raise ExciteError(f"{folder}: its {split} shards hold {sum(s.samples for s in own)} of {number} images")
    return manifest
