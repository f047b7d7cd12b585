"""The C kernels from other compilers and for other processors: without OpenMP, from clang, and on ARM (emulated)."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from excite.ops.tail.native import build

HERE = Path(__file__).parent
FLAGS = ("-std=c11", f"-I{build.SOURCES}")
PLAIN = ("-O1", "-fopenmp")


def needed(*programs: str) -> list[str]:
    """Return the programs' paths; skips the test where one is not installed."""
    paths = []
    for program in programs:
        path = shutil.which(program)
        if path is None:
            pytest.skip(f"{program} is not installed")
        paths.append(path)
    return paths


def built(folder: Path, compiler: str, *flags: str) -> Path:
    target = folder / "portable"
    command = [compiler, *FLAGS, *flags, "-o", str(target), str(HERE / "portable.c"), "-lm"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode and ("cannot find" in done.stderr or "omp" in done.stderr.lower()):
        pytest.skip(f"{compiler} lacks a library: {done.stderr.splitlines()[0]}")
    assert done.returncode == 0, done.stderr
    return target


def printed(*command: str) -> list[float]:
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100)
    return [float(word) for word in done.stdout.split()]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    (gcc,) = needed("gcc")
    numbers = printed(str(built(tmp_path_factory.mktemp("gcc"), gcc, *PLAIN)))
    assert len(numbers) == 2 * 10 * 3 * 4  # two sums of ten results, three types, two layouts by two counts of threads
    return numbers


def close(found: list[float], expected: list[float]) -> bool:
    return all(abs(a - b) <= 1e-3 * (1 + abs(b)) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize(
    "flags",
    [
        pytest.param(("-O3", "-march=native", "-fopenmp"), id="as built", marks=pytest.mark.slow),
        pytest.param(("-O1", "-Wno-unknown-pragmas"), id="no OpenMP"),
    ],
)
def test_other_flags(tmp_path: Path, expected: list[float], flags: tuple[str, ...]) -> None:
    (gcc,) = needed("gcc")
    assert close(printed(str(built(tmp_path, gcc, *flags))), expected)


@pytest.mark.slow
def test_clang(tmp_path: Path, expected: list[float]) -> None:
    (clang,) = needed("clang")
    assert close(printed(str(built(tmp_path, clang, "-O3", "-march=native", "-fopenmp"))), expected)


@pytest.mark.slow
def test_arm(tmp_path: Path, expected: list[float]) -> None:
    # Debian: gcc-aarch64-linux-gnu and qemu-user.
    gcc, dump, qemu = needed("aarch64-linux-gnu-gcc", "aarch64-linux-gnu-objdump", "qemu-aarch64")
    program = built(tmp_path, gcc, "-O3", "-fopenmp", "-static")
    assert close(printed(qemu, str(program)), expected)
    code = subprocess.run([dump, "-d", str(program)], capture_output=True, text=True, check=True).stdout
    kernel = code.partition("<affine_float._omp_fn.0>:")[2].partition("<affine_bfloat16")[0]
    assert re.search(r"\tfmul\tv\d+\.4s", kernel)  # the loops became NEON


def test_a_word_that_the_compiler_does_not_know_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (gcc,) = needed("gcc")
    compiler, seen = tmp_path / "cc", tmp_path / "seen"
    compiler.write_text(
        f'#!/bin/sh\necho "$@" >> {seen}\n'
        'for word in "$@"; do case "$word" in -m*=native) echo "unknown argument: $word" >&2; exit 1;; esac; done\n'
        f'exec {gcc} "$@"\n'
    )
    compiler.chmod(0o755)
    monkeypatch.setattr(build, "FLAGS", ("-O0", "-fopenmp", "-shared", "-fPIC", "-std=c11"))
    build.build(str(compiler), build.find_openmp(), tmp_path / "tail.so")
    build.opened(tmp_path / "tail.so")
    assert [line.count("=native") for line in seen.read_text().splitlines()] == [1, 1, 0]


def test_on_macos_the_loader_gets_the_library_without_its_seal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (gcc,) = needed("gcc")
    monkeypatch.setattr(build, "FLAGS", ("-O0", "-fopenmp", "-shared", "-fPIC", "-std=c11"))
    build.build(gcc, build.find_openmp(), tmp_path / "tail.so")
    loaded: list[bytes] = []
    load = build.ctypes.CDLL
    monkeypatch.setattr(build.ctypes, "CDLL", lambda path: (loaded.append(Path(path).read_bytes()), load(path))[1])
    monkeypatch.setattr(build.sys, "platform", "darwin")
    build.opened(tmp_path / "tail.so")
    (content,) = loaded
    assert build.SEAL not in content
    assert (tmp_path / "tail.so").read_bytes().startswith(content + build.SEAL)


def test_without_apples_tools_there_is_one_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build.sys, "platform", "darwin")
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", "")
    assert not build.has_apple_tools()
    with pytest.raises(build.UnavailableError, match="xcode-select --install"):
        build.find_compiler()
