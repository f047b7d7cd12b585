"""Build the C kernels on first use, once per machine, and load them. Linux and macOS, x86 and ARM.

The C is plain: the compiler makes AVX or NEON of it. Elsewhere (Windows) the same passes run in PyTorch.
The library is linked with the OpenMP runtime that torch brings, so both share one pool of threads. It is kept in
`~/.cache/excite` (EXCITE_CACHE moves it) under a name made of the source, the flags, the compiler and the
processor. `EXCITE_NATIVE=0` leaves it unbuilt and unused.

A kept library is loaded only if nobody else may write it and it ends with the digest of all before that: what is cut
off, damaged or somebody else's is built anew, never run.
"""

import ctypes
import errno
import hashlib
import logging
import os
import platform
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

from excite.common.files import partial_files, replacing
from excite.errors import ExciteError
from excite.runtime import cache_folder

SOURCES = Path(__file__).parent
# Apple's clang has OpenMP but for the option; torch brings the library.
OPENMP = {"linux": ("-fopenmp",), "darwin": ("-Xpreprocessor", "-fopenmp")}
FLAGS = ("-O3", *OPENMP.get(sys.platform, ()), "-shared", "-fPIC", "-std=c11")
# "For this processor", in the words of gcc and of clang on x86, and of clang on ARM; a compiler may know neither.
TUNINGS = ("-march=native", "-mcpu=native", "")
SECONDS = 120  # that the compiler may take
BUILDS = "building-"  # before the names of the folders that compilers work in
# In the compiler's words, where it failed for a reason that may be gone tomorrow.
PASSING = ("No space left", "quota exceeded", "Cannot allocate", "out of memory", "signal terminated", "File too large")
SEAL = b"\nexcite:sha256:"  # before the digest at a library's end, where the loader does not look

LOG = logging.getLogger("excite")


class UnavailableError(Exception):
    """Why there are no C kernels here."""


@cache
def found() -> ctypes.CDLL | str:
    """Return the library, built where needed, or why there is none. Never raises: the PyTorch form is always there.

    Warns in one line where it ought to be there.
    """
    reason = not_wanted()
    if reason:
        return reason
    try:
        return load()
    except UnavailableError as error:
        reason = str(error)
    except (OSError, AttributeError, subprocess.SubprocessError) as error:
        reason = f"building the C kernels failed: {error}"
    LOG.warning("excite: plain PyTorch instead of C, slower and with the same results (EXCITE_NATIVE=0): %s", reason)
    return reason


def not_wanted() -> str:
    """Return why no library is looked for; an empty text where one is."""
    if os.environ.get("EXCITE_NATIVE", "1").lower() in ("0", "off", "no", "false"):
        return "EXCITE_NATIVE switches the C kernels off"
    if sys.platform not in OPENMP:
        return f"the C kernels are built on Linux and macOS only, this is {sys.platform}"
    return ""


def load() -> ctypes.CDLL:
    """Build the library unless it is kept already, load it, and check that it counts.

    Raises UnavailableError with the reason.
    """
    compiler = find_compiler()
    runtime = find_openmp()
    name = f"tail-{identity(compiler, runtime)}.so"
    reasons = []
    for folder in folders():
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            check_own(folder.stat())
            return kept_or_built(compiler, runtime, folder / name)
        except (OSError, ExciteError) as error:
            reasons.append(f"{folder}: {getattr(error, 'strerror', None) or error}")
    raise UnavailableError(f"no folder for the C kernels ({'; '.join(reasons)}); set EXCITE_CACHE to one of your own")


def check_own(status: os.stat_result) -> None:
    """Raise OSError where others than this user may write a file or folder."""
    if status.st_uid != os.getuid():
        raise PermissionError(errno.EACCES, "it belongs to somebody else")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(errno.EACCES, "others may write it (chmod go-w)")


def kept_or_built(compiler: str, runtime: Path, kept: Path) -> ctypes.CDLL:
    """Return the library of this name, built if it is not there or broken; a build that failed is not tried again.

    Raises UnavailableError with the reason, OSError or ExciteError where the folder cannot be written.
    """
    failed = kept.with_suffix(".failed")
    try:
        raise UnavailableError(f"{failed.read_text(encoding='utf-8', errors='replace')} (delete {failed} to try again)")
    except FileNotFoundError:
        pass
    try:
        return opened(kept)
    except FileNotFoundError:
        pass
    except (OSError, AttributeError) as error:
        LOG.warning("excite: %s is built anew: %s", kept, getattr(error, "strerror", None) or error)
    try:
        build(compiler, runtime, kept)
        try:
            return opened(kept)
        except (OSError, AttributeError) as error:
            raise UnavailableError(f"the C kernels were built but cannot be loaded: {error}") from error
    except UnavailableError as reason:
        with replacing(failed) as temporary:
            temporary.write_text(str(reason), encoding="utf-8")
        raise


def opened(kept: Path) -> ctypes.CDLL:
    """Load a library that is whole, of this user alone, and counts; nothing else reaches the loader.

    Raises OSError or AttributeError where it is not, UnavailableError where it counts wrongly.
    """
    # Not through a link, and not waiting for the other end of a pipe.
    descriptor = os.open(kept, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is no file")
        check_own(status)
        content, mark, digest = file.read().rpartition(SEAL)
    if not mark or hashlib.sha256(content).hexdigest().encode() != digest:
        raise OSError(errno.EINVAL, "it is damaged")
    if sys.platform != "darwin":
        return checked(ctypes.CDLL(str(kept)))
    # There a library is signed, and must end where its signature does: the loader gets it without the seal.
    with tempfile.TemporaryDirectory() as folder:
        bare = Path(folder) / kept.name
        bare.write_bytes(content)
        return checked(ctypes.CDLL(str(bare)))


def find_compiler() -> str:
    """Return the C compiler: $CC, or the first of cc, gcc, clang. Raises UnavailableError."""
    wanted = os.environ.get("CC")
    if sys.platform == "darwin" and not wanted and not has_apple_tools():
        raise UnavailableError("there is no C compiler (xcode-select --install brings Apple's)")
    for name in (wanted,) if wanted else ("cc", "gcc", "clang"):
        path = shutil.which(name)
        if path:
            return path
    raise UnavailableError("there is no C compiler ($CC, cc, gcc or clang)")


def has_apple_tools() -> bool:
    """Tell whether Apple's compiler is installed; without it `cc` is a stub that opens a window."""
    try:
        return subprocess.run(["xcode-select", "-p"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def find_openmp() -> Path:
    """Return the OpenMP runtime in torch's own folders; another would start a second pool of threads.

    Raises UnavailableError.
    """
    import torch

    package = Path(torch.__file__).parent
    for folder in (package / "lib", package.parent / "torch.libs", package / ".dylibs"):
        for pattern in ("libgomp*.so*", "libiomp5*.so*", "libomp*.so*", "libomp*.dylib", "libiomp5*.dylib"):
            for path in sorted(folder.glob(pattern)):
                return path
    raise UnavailableError("torch brings no OpenMP runtime of its own")


def identity(compiler: str, runtime: Path) -> str:
    """Return a name for what the library depends on; a home folder may be shared by different machines."""
    program = Path(compiler).resolve()
    stamp = program.stat()
    parts = [
        SEAL.decode(),
        *FLAGS,
        *TUNINGS,
        str(program),
        str(stamp.st_mtime_ns),
        str(stamp.st_size),
        str(runtime.resolve()),
        processor(),
    ]
    digest = hashlib.sha256("\0".join(parts).encode())
    for path in sorted(SOURCES.glob("*.[ch]")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:20]


def processor() -> str:
    """Return what a processor's own instructions depend on."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = [f"model name: {platform.processor()} {platform.release()}"]
    kept = [line for line in lines if line.split(":")[0].strip() in ("model name", "flags", "Features", "CPU part")]
    return "\n".join([os.uname().machine, *kept[:4]])


def folders() -> list[Path]:
    """Return where the library may be kept: the cache, else a folder of this user among the temporary ones."""
    return [cache_folder(), Path(tempfile.gettempdir()) / f"excite-{os.getuid()}"]


def build(compiler: str, runtime: Path, target: Path) -> None:
    """Compile, seal and write the library. Raises UnavailableError with the compiler's words.

    Raises OSError or ExciteError where there is no room, or the compiler was ended.
    """
    sweep(target.parent)
    with tempfile.TemporaryDirectory(prefix=BUILDS, dir=target.parent) as folder:
        output = Path(folder) / target.name
        # The runtime is named as a file: its own name, already loaded by torch, is what the loader then finds.
        target_flags = ["-o", str(output), str(SOURCES / "tail.c"), str(runtime), f"-Wl,-rpath,{runtime.parent}", "-lm"]
        variables = {**os.environ, "LC_ALL": "C", "TMPDIR": folder}
        for tuning in TUNINGS:
            command = [compiler, *FLAGS, *filter(None, [tuning]), *target_flags]
            done = subprocess.run(
                command, capture_output=True, text=True, errors="replace", timeout=SECONDS, check=False, env=variables
            )
            # Only a word that the compiler does not know is worth another try.
            if not done.returncode or not tuning or tuning.partition("=")[0] not in done.stderr:
                break
        if done.returncode:
            words = f"{compiler} failed on the C kernels: {done.stderr.strip().splitlines()[-1:]}"
            if done.returncode < 0 or any(word in done.stderr for word in PASSING):
                raise OSError(words)
            raise UnavailableError(words)
        content = output.read_bytes()
    with replacing(target) as temporary:
        temporary.write_bytes(content + SEAL + hashlib.sha256(content).hexdigest().encode())
        temporary.chmod(0o600)


def sweep(cache: Path) -> None:
    """Remove what builders that were killed left in the cache; what may still be written stays."""
    for leftover in [*cache.glob(f"{BUILDS}*"), *partial_files(cache)]:
        try:
            if time.time() - leftover.lstat().st_mtime < 2 * SECONDS:
                continue
            if leftover.is_dir() and not leftover.is_symlink():
                shutil.rmtree(leftover)
            else:
                leftover.unlink()
        except OSError:
            continue  # another builder was quicker, or it is not ours


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
