"""Build the C kernels on first use, once per machine, and load them.

The library is linked with the OpenMP runtime that torch brings, so both share one pool of threads. It is kept in
`~/.cache/excite` (EXCITE_CACHE moves it) under a name made of the source, the flags, the compiler and the
processor. `EXCITE_NATIVE=0` leaves it unbuilt and unused.
"""

import ctypes
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from excite.runtime import cache_folder

SOURCES = Path(__file__).parent
FLAGS = ("-O3", "-march=native", "-fopenmp", "-shared", "-fPIC", "-std=c11")
SECONDS = 120  # that the compiler may take


class UnavailableError(Exception):
    """Why there are no C kernels here."""


@cache
def found() -> ctypes.CDLL | str:
    """Return the library, built where needed, or why there is none. Never raises: the PyTorch form is always there."""
    try:
        return load()
    except UnavailableError as reason:
        return str(reason)
    except (OSError, AttributeError, subprocess.SubprocessError) as error:
        return f"building the C kernels failed: {error}"


def load() -> ctypes.CDLL:
    """Build the library unless it is kept already, load it, and check that it counts.

    Raises UnavailableError with the reason.
    """
    if os.environ.get("EXCITE_NATIVE", "1").lower() in ("0", "off", "no", "false"):
        raise UnavailableError("EXCITE_NATIVE switches the C kernels off")
    if sys.platform != "linux":
        raise UnavailableError(f"the C kernels are built on Linux only, this is {sys.platform}")
    compiler = find_compiler()
    runtime = find_openmp()
    name = f"tail-{identity(compiler, runtime)}.so"
    for folder in folders():
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if folder.stat().st_uid != os.getuid():
                continue  # what others wrote is not run
            return kept_or_built(compiler, runtime, folder / name)
        except OSError:
            continue
    raise UnavailableError("no folder to keep the C kernels in can be written; set EXCITE_CACHE to one")


def kept_or_built(compiler: str, runtime: Path, kept: Path) -> ctypes.CDLL:
    """Return the library of this name, built if it is not there or broken; a build that failed is not tried again.

    Raises UnavailableError with the reason, OSError where the folder cannot be written.
    """
    failed = kept.with_suffix(".failed")
    if failed.exists():
        raise UnavailableError(f"{failed.read_text(encoding='utf-8')} (delete {failed} to try again)")
    try:
        if kept.exists():
            return checked(ctypes.CDLL(str(kept)))
    except (OSError, AttributeError):
        pass  # broken, by whatever: built anew
    try:
        build(compiler, runtime, kept)
        return opened(kept)
    except UnavailableError as reason:
        failed.write_text(str(reason), encoding="utf-8")
        raise


def opened(kept: Path) -> ctypes.CDLL:
    """Load a library that was just built. Raises UnavailableError where that fails."""
    try:
        return checked(ctypes.CDLL(str(kept)))
    except (OSError, AttributeError) as error:
        raise UnavailableError(f"the C kernels were built but cannot be loaded: {error}") from error


def find_compiler() -> str:
    """Return the C compiler: $CC, or the first of cc, gcc, clang. Raises UnavailableError."""
    wanted = os.environ.get("CC")
    for name in (wanted,) if wanted else ("cc", "gcc", "clang"):
        path = shutil.which(name)
        if path:
            return path
    raise UnavailableError("there is no C compiler ($CC, cc, gcc or clang)")


def find_openmp() -> Path:
    """Return the OpenMP runtime in torch's own folders; another would start a second pool of threads.

    Raises UnavailableError.
    """
    import torch

    package = Path(torch.__file__).parent
    for folder in (package / "lib", package.parent / "torch.libs"):
        for pattern in ("libgomp*.so*", "libiomp5*.so*", "libomp*.so*"):
            for path in sorted(folder.glob(pattern)):
                return path
    raise UnavailableError("torch brings no OpenMP runtime of its own")


def identity(compiler: str, runtime: Path) -> str:
    """Return a name for what the library depends on; a home folder may be shared by different machines."""
    program = Path(compiler).resolve()
    stamp = program.stat()
    parts = [*FLAGS, str(program), str(stamp.st_mtime_ns), str(stamp.st_size), str(runtime.resolve()), processor()]
    digest = hashlib.sha256("\0".join(parts).encode())
    for path in sorted(SOURCES.glob("*.[ch]")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:20]


def processor() -> str:
    """Return what -march=native depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    kept = [line for line in lines if line.split(":")[0].strip() in ("model name", "flags", "Features", "CPU part")]
    return "\n".join([os.uname().machine, *kept[:4]])


def folders() -> list[Path]:
    """Return where the library may be kept: the cache, else a folder of this user among the temporary ones."""
    return [cache_folder(), Path(tempfile.gettempdir()) / f"excite-{os.getuid()}"]


def build(compiler: str, runtime: Path, target: Path) -> None:
    """Compile to a temporary name beside `target`, then rename. Raises UnavailableError with the compiler's words."""
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        made = Path(folder) / target.name
        # The runtime is named as a file: its own name, already loaded by torch, is what the loader then finds.
        command = [compiler, *FLAGS, "-o", str(made), str(SOURCES / "tail.c"), str(runtime), "-lm"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
        if done.returncode:
            raise UnavailableError(f"{compiler} failed on the C kernels: {done.stderr.strip().splitlines()[-1:]}")
        os.replace(made, target)


def checked(library: ctypes.CDLL) -> ctypes.CDLL:
    """Return the library after it has summed a small map rightly. Raises UnavailableError."""
    z = (ctypes.c_double * 12)(*range(12))
    mean, variance = (ctypes.c_double * 4)(), (ctypes.c_double * 4)()
    library.moments_double(
        z, None, mean, variance, None, *(ctypes.c_int64(x) for x in (2, 2, 3)), ctypes.c_int(0), ctypes.c_int(2)
    )
    if list(mean) != [1.0, 4.0, 7.0, 10.0] or any(abs(v - 2 / 3) > 1e-12 for v in variance):
        raise UnavailableError("the C kernels were built but do not count rightly")
    return library
