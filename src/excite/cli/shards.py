"""`excite shards`: any data as WebDataset shards."""

import json as json_
import sys
from dataclasses import asdict
from pathlib import Path

from excite.common.tables import counted, say
from excite.errors import UsageError


def shards(
    source: str,
    *,
    out: str | None = None,
    size: int | None = None,
    shard_size: int = 1000,
    workers: int = -1,
    skip_unreadable: bool = False,
    verify: bool = False,
    overwrite: bool = False,
    json: bool = False,
) -> None:
    """Write a data set as WebDataset shards, which read faster than many small files: tar files and a manifest.

    The same command goes on where one that was killed stopped. The shards are read as wds:FOLDER: excite train
    --data wds:shards.

    Args:
        source: a data spec; with --verify and without --out, a folder of shards.
        out: the folder to write to.
        size: shrink larger images to that many pixels of the shorter side; without it they stay as they are.
        shard_size: images in a shard.
        workers: threads that read images; -1 takes one per processor, less one.
        skip_unreadable: go on without images that cannot be read; the manifest names them.
        verify: check every shard against its SHA-256, and every key.
        overwrite: replace shards of other data.
        json: print JSON.

    Examples:
        excite shards imagefolder:PATH -o shards --size 256 --workers 8
        excite shards --verify shards
    """
    if out is None and not verify:
        raise UsageError("name the folder to write to: --out FOLDER")
    for name, value in (("size", 1 if size is None else size), ("shard-size", shard_size), ("workers", workers + 2)):
        if value < 1:
            raise UsageError(f"--{name} must be at least {-1 if name == 'workers' else 1}")
    if out is None and (size is not None or overwrite or skip_unreadable):
        raise UsageError(
            "--verify without --out writes nothing; --size, --overwrite and --skip-unreadable are for writing"
        )
    from excite.common.checks import LARGEST
    from excite.data.shards import verify as check
    from excite.data.shards import write_shards

    folder = Path(source if out is None else out)
    kept = None
    if out is not None:
        from excite.data import open_data
        from excite.engine.sampling import worker_count

        if max(shard_size, size or 1) > LARGEST or workers > 1024:
            raise UsageError(f"--shard-size and --size are at most {LARGEST}, --workers at most 1024")
        written = write_shards(
            open_data(source),
            folder,
            size=size,
            shard_size=shard_size,
            workers=worker_count(workers),
            skip=skip_unreadable,
            overwrite=overwrite,
            report=_progress,
        )
        manifest, kept = written.manifest, written.kept
    if verify:
        manifest = check(folder)
    skipped = [name for shard in manifest.shards for name in shard.skipped]
    if json:
        facts = {
            "data": manifest.source,
            "images": manifest.samples,
            "out": str(folder),
            "verified": verify,
            "kept": kept,
        }
        files = [str(folder / shard.name) for shard in manifest.shards]
        print(json_.dumps({**facts, "files": files, "manifest": asdict(manifest)}, indent=2))
        return
    state = f" ({kept} of them were there)" if kept else ""
    images, classes = counted(manifest.samples, "image"), counted(len(manifest.classes), "class")
    counts = f"{images} of {classes} in {counted(len(manifest.shards), 'shard')}"
    say(f"{counts}{state}: {folder}")
    if skipped:
        say(f"{len(skipped)} unreadable images left out: {', '.join(skipped[:3])}")
    if verify:
        say("verified: every shard has its SHA-256, every key is there once")
    say(f"next  excite train --data wds:{folder}")


def _progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{done} of {total} shards", end="\r\033[K" if done == total else "", file=sys.stderr, flush=True)
