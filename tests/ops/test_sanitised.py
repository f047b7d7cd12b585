"""The C kernels under AddressSanitizer and UndefinedBehaviorSanitizer: odd shapes, layouts, offsets and threads."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from excite.ops.tail.native import build

WATCHED = ["-O1", "-g", "-std=c11", "-fopenmp", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


def compiled(folder: Path, source: Path, sources: Path) -> Path:
    gcc = shutil.which("gcc")
    if gcc is None:
        pytest.skip("there is no gcc")
    program = folder / "sanitised"
    command = [gcc, *WATCHED, f"-I{sources}", "-o", str(program), str(source), "-lm"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "cannot find" in done.stderr and "san" in done.stderr:
        pytest.skip("gcc has no sanitizers here")
    assert done.returncode == 0, done.stderr
    return program


def watched(program: Path) -> subprocess.CompletedProcess[str]:
    # The pool of threads is never freed, by design of OpenMP.
    settings = {"ASAN_OPTIONS": "detect_leaks=0", "OMP_NUM_THREADS": "4"}
    return subprocess.run(
        [str(program)], capture_output=True, text=True, check=False, timeout=1800, env={**os.environ, **settings}
    )


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_nothing_is_read_or_written_out_of_place(tmp_path: Path) -> None:
    done = watched(compiled(tmp_path, Path(__file__).with_name("sanitised.c"), build.SOURCES))
    assert done.returncode == 0, done.stderr[:3000]
    assert int(re.match(r"(\d+) calls, 0 without memory", done.stdout)[1]) > 10_000  # type: ignore[index]
    assert done.stderr == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "slip"),
    [
        ("for (int64_t k = 0; k < p; k++) {\n                    S v = a * LOAD(x[k]) + b;", ("k < p", "k <= p")),
        (
            "int64_t shift = tap - half, from = LARGER(0, -shift), to = SMALLER(c, c - shift);",
            ("LARGER(0, -shift)", "0"),
        ),
    ],
    ids=["affine", "correlate"],
)
def test_a_slip_is_seen(tmp_path: Path, line: str, slip: tuple[str, str]) -> None:
    sources = tmp_path / "sources"
    shutil.copytree(build.SOURCES, sources)
    for name in ("passes.h", "numbers.h"):
        text = (sources / name).read_text()
        (sources / name).write_text(text.replace(line, line.replace(*slip)))
    assert any((sources / n).read_text() != (build.SOURCES / n).read_text() for n in ("passes.h", "numbers.h"))
    done = watched(compiled(tmp_path, Path(__file__).with_name("sanitised.c"), sources))
    assert done.returncode != 0
    assert "AddressSanitizer" in done.stderr
