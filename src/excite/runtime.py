"""Settings of the process: memory that stays mapped and threads that have a core make work on a CPU faster; the cache.

A feature map of some megabytes is by default mapped afresh from the kernel for every operation and given back after
it; each first touch of a page is a fault, and together they cost more than the arithmetic between them. Told to keep
freed memory, glibc hands the same pages out again. The price: the process keeps its peak memory until it ends.
No torch is imported at the start; call `tune` before it is, so that the thread count is taken up.
"""

import contextlib
import ctypes
import os
import platform
from dataclasses import dataclass
from pathlib import Path

from excite.errors import UsageError, unknown

# mallopt's parameters (glibc, malloc.h)
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -2, -3, -4
SETTINGS = (
    (M_MMAP_THRESHOLD, 32 << 20),  # the largest that glibc takes
    (M_MMAP_MAX, 0),  # and nothing beyond it mapped apart either
    (M_TRIM_THRESHOLD, -1),  # as unsigned: freed memory is never given back
    (M_TOP_PAD, 64 << 20),  # grow in large steps
)


DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True)
class Tuning:
    """What `tune` did. allocator: glibc took all settings; threads: OMP_NUM_THREADS as set here, or None."""

    allocator: bool
    threads: int | None

    def __str__(self) -> str:
        allocator = "freed memory is kept" if self.allocator else "allocator left as it is"
        return allocator + (f", {self.threads} threads" if self.threads else "")


def tune() -> Tuning:
    """Tune allocator and threads for this process; changes nothing on systems without glibc.

    Whoever set GLIBC_TUNABLES, MALLOC_* or OMP_NUM_THREADS knows better: those are respected. Results do not change
    (sums may be split differently with another number of threads).
    """
    return Tuning(keep_freed_memory(), match_threads())


def keep_freed_memory() -> bool:
    """Tell glibc to keep and reuse freed memory; return whether it will."""
    chosen = any(name == "GLIBC_TUNABLES" or name.startswith("MALLOC_") for name in os.environ)
    if chosen or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    taken = [mallopt(name, value) == 1 for name, value in SETTINGS]
    return all(taken)


def match_threads() -> int | None:
    """Set OMP_NUM_THREADS where a container's quota grants fewer processors than it shows; return it, else None."""
    if "OMP_NUM_THREADS" in os.environ or not hasattr(os, "sched_getaffinity"):
        return None
    quota, visible = cpu_quota(), len(os.sched_getaffinity(0))
    if quota is None or quota >= visible:
        return None
    threads = max(1, int(quota))
    os.environ["OMP_NUM_THREADS"] = str(threads)
    return threads


def pick_device(device: str) -> str:
    """Return "cpu" or "cuda": what `device` (auto, cpu or cuda) means on this machine.

    Raises UsageError for another name, and for cuda where torch finds no GPU.
    """
    import torch

    if device not in DEVICES:
        raise unknown("device", device, DEVICES)
    if device == "cpu":
        return device
    if torch.cuda.is_available():
        return "cuda"
    if device == "cuda":
        raise UsageError("--device cuda: torch finds no GPU here; use --device cpu")
    return "cpu"


def cache_folder() -> Path:
    """Return where what was downloaded or built is kept: `EXCITE_CACHE`, else `~/.cache/excite`."""
    return Path(os.environ.get("EXCITE_CACHE", Path.home() / ".cache" / "excite"))


GROUP_MEMORY = (
    ("memory.max", "memory.current"),  # version 2 of control groups
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),  # version 1
)


def free_memory(device: str, root: Path = Path("/")) -> int | None:
    """Return the bytes of memory that are free on cpu or cuda; None where the system does not say it.

    On a CPU the least of what the machine has available and what the control group leaves. root: where /proc and /sys
    are.
    """
    if device == "cuda":
        import torch

        free: int = torch.cuda.mem_get_info()[0]
        return free
    limits = []
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = (root / "proc/meminfo").read_text().splitlines()
        limits.append(next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")))
    for most, used in GROUP_MEMORY:
        with contextlib.suppress(OSError, ValueError):
            group = root / "sys/fs/cgroup"
            limits.append(int((group / most).read_text()) - int((group / used).read_text()))
    return max(min(limits), 0) if limits else None


def cpu_quota(root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Return the processors that the control group (version 2 or 1) grants, or None where there is no limit."""
    try:
        quota, period = (root / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (root / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (root / "cpu" / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    return None if quota in ("max", "-1") else int(quota) / int(period)
