"""The C kernels against those in PyTorch, and what happens where they cannot be built."""

import copy
import errno
import math
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from tails import difference, example, run
from torch import nn

from excite import ops
from excite.ops.tail import torch as plain
from excite.ops.tail.api import fused_tail
from excite.ops.tail.kernels import Affine, Carried, Kernels
from excite.ops.tail.moments import NormalisedGrads, Saved, Settings
from excite.ops.tail.native import build
from excite.ops.tail.plan import INSIDE, Request, native, plan

PLAIN = Kernels(plain)
LIMITS = {torch.float32: 1e-5, torch.float64: 1e-12, torch.bfloat16: 8e-3}


@pytest.fixture
def kernels(compiler: str) -> Kernels:
    if reason := build.not_wanted():
        pytest.skip(reason)
    made = native()
    # Where there is a compiler they are there: kernels that cannot be built, or are refused, are a failure.
    assert made is not None, ops.kernels_on("cpu")
    return made


@pytest.fixture(scope="module")
def compiler() -> str:
    if not any(map(shutil.which, ("cc", "gcc", "clang"))):
        pytest.skip("there is no C compiler")
    return build.find_compiler()


@pytest.fixture(params=[2, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def maps(shape: tuple[int, ...], dtype: torch.dtype, last: bool) -> list[torch.Tensor]:
    torch.manual_seed(0)
    layout = torch.channels_last if last else torch.contiguous_format
    return [(torch.randn(shape) + 1).to(dtype).contiguous(memory_format=layout) for _ in range(3)]


def passes(kernels: Kernels, z: torch.Tensor, r: torch.Tensor, grad: torch.Tensor, project: bool) -> list[Any]:
    """Return what every call of the tail gives."""
    torch.manual_seed(1)
    wide = torch.float64 if z.dtype == torch.float64 else torch.float32
    n, c = z.shape[:2]
    layout = torch.contiguous_format if z.is_contiguous() else torch.channels_last
    basis = torch.randn(1, *z.shape[1:], dtype=wide).contiguous(memory_format=layout)[0] if project else None
    gamma, beta, mean, var = (torch.rand(c).to(wide) for _ in range(4))
    w, one, two, a = (torch.randn(n, c).to(wide) for _ in range(4))
    settings = Settings(1e-3, True, (mean.clone(), var.clone()), 0.3, True, not project, z[0, 0].numel())
    moments, inverse, y = kernels.standardise(z, basis, gamma, beta, settings)
    eval_settings = settings._replace(batch=False)
    frozen = kernels.standardise(z, basis, gamma, beta, eval_settings)
    by, bare = Affine(y.scale, y.bias, y.mu, w), Affine(y.scale, y.bias, y.mu, None)
    out = PLAIN.scaled(z, by, r, math.inf)
    numbers = [torch.randn(c).double() for _ in range(3)]
    grads = NormalisedGrads(*numbers, *((None, None, one) if project else (one, two, None)))
    mean_only = NormalisedGrads(projection=one) if project else NormalisedGrads(mean=one)
    saved = Saved(z, basis, gamma, None, *moments, y.scale, y.mu, inverse)
    g, scale, shares = kernels.grad_scaled(grad, out, z, by, math.inf)
    plain_g, _, no_weights = kernels.grad_scaled(grad, None, z, bare, None)
    carried = Carried(grad, a)
    cases = [(carried, settings), (carried, eval_settings), (None, settings)]
    backward = [*kernels.grad_standardise(saved._replace(gamma=None), carried, mean_only, eval_settings)]
    backward += [x for part, how in cases for x in kernels.grad_standardise(saved, part, grads, how)]
    # A single position has no variance, sums of squares in PyTorch leave a rounding of one.
    moments = moments._replace(variance=moments.variance.clamp_min(1e-6))
    return [
        *moments, inverse, *y, frozen.inverse, *frozen.normalised, *(settings.running or ()),
        kernels.scaled(z, by, r, math.inf), kernels.scaled(z, bare, None, None),
        g, scale, *shares, plain_g, *no_weights, *backward,
    ]  # fmt: skip


SHAPES = [(4, 16, 9, 7), (2, 130, 4, 4), (1, 40, 12, 11), (3, 5, 1, 1), (2, 3, 40, 33), (5, 64, 1, 30)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("dtype", LIMITS, ids=str)
def test_every_pass_equals_that_in_pytorch(
    kernels: Kernels, dtype: torch.dtype, last: bool, shape: tuple[int, ...]
) -> None:
    for project in (False, True):
        given = maps(shape, dtype, last)
        assert difference(passes(PLAIN, *given, project), passes(kernels, *given, project)) <= LIMITS[dtype]


@pytest.mark.parametrize("last", [False, True])
def test_results_do_not_depend_on_the_threads(kernels: Kernels, threads: int, last: bool) -> None:
    for shape in ((1, 130, 20, 20), (2, 96, 9, 9)):
        given = maps(shape, torch.float32, last)
        several = passes(kernels, *given, False)
        torch.set_num_threads(1)
        alone = passes(kernels, *given, False)
        torch.set_num_threads(threads)
        assert all(x is None or torch.equal(x, y) for x, y in zip(several, alone, strict=True))


@pytest.mark.parametrize("last", [False, True])
def test_maps_laid_out_otherwise_are_copied(kernels: Kernels, last: bool) -> None:
    z, r, grad = maps((2, 6, 5, 4), torch.float64, last)
    other = torch.contiguous_format if last else torch.channels_last
    wrong = [z, *(x.contiguous(memory_format=other) for x in (r, grad))]
    assert difference(passes(kernels, z, r, grad, False), passes(kernels, *wrong, False)) == 0
    expanded = grad.mean((2, 3), keepdim=True).expand_as(grad)
    assert difference(passes(PLAIN, z, r, expanded, False), passes(kernels, z, r, expanded, False)) <= 1e-12


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16], ids=str)
def test_parameters_of_another_type_than_the_map(kernels: Kernels, kind: torch.dtype) -> None:
    found = []
    for some in (PLAIN, kernels):
        module, z, r = example("eca", torch.float32)
        norm = module[0].to(kind)
        leaf = z.clone().requires_grad_()
        out, _ = fused_tail(leaf, norm, module[1].squeeze, module[1].gate, r, nn.ReLU(), some)
        out.square().sum().backward()
        assert norm.weight.grad.dtype == kind
        found.append([out.detach(), leaf.grad, norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var])
    assert difference(*found) <= (1e-5 if kind == torch.float64 else 1e-2)


def test_another_default_device(kernels: Kernels) -> None:
    for method in ("fca", "srm"):
        module, z, r = example(method, torch.float64)
        expected = run("reference", module, z, r, nn.ReLU())
        torch.set_default_device("meta")
        try:
            leaf, norm = z.clone().requires_grad_(), module[0]
            out, _ = fused_tail(leaf, norm, module[1].squeeze, module[1].weights_of, r, nn.ReLU(), kernels)
            out.sum().backward()
        finally:
            torch.set_default_device(None)
        assert difference(expected[:1], [out.detach()]) <= 1e-10
        assert leaf.grad.device.type == "cpu"


def test_parameters_with_gaps(kernels: Kernels) -> None:
    z, _, _ = maps((2, 6, 4, 4), torch.float32, False)
    settings = Settings(1e-5, True, (torch.zeros(12)[::2], torch.ones(1).repeat(12)[::2]), 0.5, False, False, 16)
    gamma = torch.tensor(2.0).expand(6)
    dense = settings._replace(running=tuple(x.contiguous() for x in settings.running or ()))
    one = kernels.standardise(z, None, gamma, None, settings)
    two = kernels.standardise(z, None, gamma.contiguous(), None, dense)
    assert difference([one.inverse, *one.normalised], [two.inverse, *two.normalised]) <= 1e-12
    assert difference(list(settings.running or ()), list(dense.running or ())) <= 1e-6
    assert float(settings.running[0].abs().min()) > 0  # type: ignore[index]


@pytest.mark.parametrize("last", [False, True])
def test_nan_stays(kernels: Kernels, last: bool) -> None:
    z, r, grad = maps((2, 4, 3, 3), torch.bfloat16, last)
    r[1, 2, 1, 1] = torch.nan
    ones = torch.ones(4, dtype=torch.float64)
    by = Affine(ones, ones, ones, None)
    out = kernels.scaled(z, by, r, math.inf)
    assert out.isnan().nonzero().tolist() == [[1, 2, 1, 1]]
    g, _, numbers = kernels.grad_scaled(grad.fill_(torch.nan), None, z, by, None)
    assert g.isnan().all()
    assert numbers.scale.isnan().all()
    settings = Settings(1e-5, False, (ones, ones), 0.0, True, True, 9)
    moments, _, y = kernels.standardise(r, None, None, None, settings)
    for x in (moments.mean, moments.variance, y.mean, y.variance):
        assert x.isnan().nonzero().tolist() == [[1, 2]]
    # A NaN has many patterns; rounded as a number, the one of ones alone would become zero.
    weights = torch.full((2, 4), -1, dtype=torch.int32).view(torch.float32)
    assert kernels.scaled(z, Affine(ones, ones, ones, weights), None, None).isnan().all()


@pytest.mark.parametrize("act", [nn.ReLU6(), nn.ReLU6(inplace=True), nn.ReLU(), None, nn.Hardswish()], ids=str)
@pytest.mark.parametrize("shortcut", [True, False])
def test_rectifiers_with_a_ceiling(kernels: Kernels, act: nn.Module | None, shortcut: bool) -> None:
    module, z, r = example("none", torch.float64)
    nn.init.constant_(module[0].weight, 8)  # the ceiling is met
    found = [run(mode, module, z, r if shortcut else None, act) for mode in ("reference", "fused")]
    assert difference(*found) <= 1e-10
    if isinstance(act, nn.ReLU6):
        assert float(found[1][0].max()) == 6


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("training", [True, False])
def test_norm_and_rectifier_inside_a_block(kernels: Kernels, training: bool, last: bool) -> None:
    module, z, _ = example("none", torch.float64, last=last)
    norm, found = module[0].train(training), []
    for mode in ("reference", "fused"):
        leaf, own = (4 * z).requires_grad_(), copy.deepcopy(norm)
        with ops.use(mode):
            out = ops.norm_act(leaf, own, nn.ReLU6(inplace=True))
        out.square().sum().backward()
        found.append([out.detach(), leaf.grad, own.weight.grad, own.bias.grad, own.running_mean, own.running_var])
    assert difference(*found) <= 1e-10


def inside(z: torch.Tensor) -> Kernels | None:
    return plan(Request(INSIDE, z, nn.BatchNorm2d(64))).kernels


def test_norms_inside_a_block_are_fused_where_it_pays(kernels: Kernels) -> None:
    first, last = torch.empty(4, 64, 56, 56), torch.empty(4, 64, 56, 56).to(memory_format=torch.channels_last)
    assert inside(first) is kernels
    assert inside(last) is None
    assert inside(first[:1]) is None
    assert inside(first.half()) is None
    with torch.no_grad():
        assert inside(last) is None
        assert inside(torch.cat([last] * 6)) is kernels
    with ops.use("fused"):
        assert inside(last) is kernels


def test_a_hook_on_the_rectifier_inside_a_block_is_called(kernels: Kernels) -> None:
    norm, act, seen = nn.BatchNorm2d(64), nn.ReLU(), []
    act.register_forward_hook(lambda *_: seen.append(1))
    z = torch.randn(4, 64, 56, 56)
    with ops.use("reference"):
        expected = act(copy.deepcopy(norm)(z))
    torch.testing.assert_close(ops.norm_act(z, norm, act), expected)
    assert len(seen) == 2


@pytest.mark.parametrize("second", [True, False])
@pytest.mark.parametrize("last", [False, True])
def test_variance_of_a_far_off_channel(kernels: Kernels, last: bool, second: bool) -> None:
    z = maps((2, 8, 30, 30), torch.float32, last)[0] + 5000
    own, whole = z.double().var((2, 3), unbiased=False), z.double().var((0, 2, 3), unbiased=False)
    settings = Settings(1e-5, True, None, 0.0, True, second, 900)
    for some in (PLAIN, kernels):
        statistics = some.standardise(z, None, None, None, settings)
        torch.testing.assert_close(statistics.inverse.double(), (whole + 1e-5).rsqrt(), rtol=1e-3, atol=0)
        if second:
            torch.testing.assert_close(statistics.moments.variance.double(), own, rtol=1e-3, atol=0)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("dtype", LIMITS, ids=str)
def test_the_variance_of_every_sample_is_biased(kernels: Kernels, dtype: torch.dtype, last: bool) -> None:
    """Few positions, so that one more or less in the divisor shows; half precision stores them exactly."""
    z = torch.arange(24.0).reshape(2, 3, 2, 2).square().to(dtype)
    z = z.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
    settings = Settings(1e-5, True, None, 0.0, True, True, 4)
    variance = kernels.standardise(z, None, None, None, settings).moments.variance
    torch.testing.assert_close(variance.double(), z.double().var((2, 3), unbiased=False), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("last", [False, True])
def test_bfloat16_is_rounded_to_the_nearest_and_ties_to_even(kernels: Kernels, last: bool) -> None:
    """Sums of z and quarters of its last digit, which float32 holds exactly."""
    z = (1 + torch.arange(16.0).repeat(2, 9, 1) / 128).bfloat16().reshape(2, 9, 4, 4)
    z = z.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
    ones, offsets = torch.ones(9, dtype=torch.float64), torch.arange(9, dtype=torch.float64) / 512
    out = kernels.scaled(z, Affine(ones, offsets, 0 * ones, None), None, None)
    assert torch.equal(out, (z.float() + offsets.float().reshape(9, 1, 1)).bfloat16())


def test_what_the_tail_runs_on(kernels: Kernels, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ops.kernels_on("cpu") == "C"
    assert ops.kernels_on("meta") == "PyTorch: no kernels for meta"
    monkeypatch.setattr(build, "found", lambda: "there is no C compiler")
    assert ops.kernels_on("cpu") == "PyTorch: there is no C compiler"


# Building.


def at_home(folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.delenv("EXCITE_NATIVE", raising=False)
    patch.setenv("EXCITE_CACHE", str(folder / "excite"))
    patch.setattr(build.tempfile, "gettempdir", lambda: str(folder / "temporary"))
    patch.setattr(build, "FLAGS", ("-O0", "-fopenmp", "-shared", "-fPIC", "-std=c11"))  # fast to build


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    at_home(tmp_path, monkeypatch)
    build.found.cache_clear()
    return tmp_path


@pytest.fixture(scope="module")
def built(compiler: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that was built and kept; tests take copies."""
    folder = tmp_path_factory.mktemp("built")
    with pytest.MonkeyPatch.context() as patch:
        at_home(folder, patch)
        build.load()
    (library,) = (folder / "excite").glob("tail-*.so")
    return library


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IEXEC)
    return path


def test_built_once_and_kept(home: Path, compiler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    build.load()
    (kept,) = (home / "excite").iterdir()
    monkeypatch.setattr(build, "build", None)  # its use would raise
    build.load()
    assert kept.suffix == ".so"


def test_what_killed_builders_left_is_swept(home: Path, compiler: str) -> None:
    cache = home / "excite"
    old, new = cache / f"{build.BUILDS}old", cache / f"{build.BUILDS}new"
    for folder in (old, new):
        folder.mkdir(parents=True)
        (folder / "x.o").write_bytes(b"x")
    cache.chmod(0o700)
    leftover = cache / ".0123abcd.partial.so"
    leftover.write_bytes(b"half")
    for path in (old, leftover):
        os.utime(path, (1e9, 1e9))
    build.load()
    (kept,) = cache.glob("tail-*.so")
    assert set(cache.iterdir()) == {kept, new}  # the new one may be at work


def test_a_broken_library_is_built_anew(home: Path, compiler: str) -> None:
    name = f"tail-{build.identity(compiler, build.find_openmp())}.so"
    (home / "excite").mkdir()
    (home / "excite" / name).write_bytes(b"not a library")
    assert build.load().moments_float
    assert (home / "excite" / name).stat().st_size > 1000


@pytest.fixture
def kept(home: Path, built: Path) -> Path:
    (home / "excite").mkdir(mode=0o700)
    return Path(shutil.copy2(built, home / "excite"))


def test_nothing_but_a_whole_library_reaches_the_loader(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = kept.read_bytes()
    assert build.opened(kept).moments_float
    monkeypatch.setattr(build.ctypes, "CDLL", None)  # its use would raise
    cuts = [0, 1, 64, 4096, 8192, len(content) // 2, len(content) - 64, len(content) - 1]
    flips = [content[:n] + bytes([content[n] ^ 1]) + content[n + 1 :] for n in range(0, len(content), 997)]
    for broken in [*(content[:n] for n in cuts), *flips, content + b"x", build.SEAL, b"\0" * len(content)]:
        kept.unlink()  # the one that was opened stays as it is: this process ends with it
        kept.write_bytes(broken)
        with pytest.raises(OSError, match="damaged"):
            build.opened(kept)


def test_a_library_that_was_cut_off_does_not_end_the_process(kept: Path, tmp_path: Path) -> None:
    """The loader maps what is not there any more; the first touch of it is a SIGBUS."""
    whole = kept.read_bytes()
    kept.write_bytes(whole[:8192])
    command = (
        f"import sys; from excite.ops.tail.native import build; build.FLAGS = {build.FLAGS!r}; "
        "sys.exit(isinstance(build.found(), str))"
    )
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0
    assert done.stderr.count("\n") == 1
    assert f"{kept} is built anew: it is damaged" in done.stderr
    assert kept.stat().st_size == len(whole)


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666, 0o777])
def test_a_library_that_others_may_write_is_built_anew(kept: Path, mode: int, caplog) -> None:
    kept.chmod(mode)
    build.load()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert "others may write it" in caplog.text


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_a_folder_that_others_may_write_is_not_used(home: Path, compiler: str, mode: int) -> None:
    (home / "excite").mkdir()
    (home / "excite").chmod(mode)
    assert build.load().moments_float
    assert list((home / "excite").iterdir()) == []
    assert len(list((home / "temporary").glob("excite-*/tail-*.so"))) == 1


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
def test_a_library_of_somebody_else_is_built_anew(kept: Path, caplog) -> None:
    os.chown(kept, 12345, 12345)
    build.load()
    assert kept.stat().st_uid == 0
    assert "somebody else" in caplog.text


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_what_is_no_file_is_not_loaded(home: Path, kept: Path, kind: str) -> None:
    elsewhere = kept.rename(home / "elsewhere.so")
    if kind == "link":
        kept.symlink_to(elsewhere)
    elif kind == "pipe":
        os.mkfifo(kept)
    else:
        kept.mkdir()
    assert build.load().moments_float
    assert kept.is_dir() if kind == "folder" else kept.is_file() and not kept.is_symlink()


def test_a_full_disk_is_no_failure_for_good(home: Path, compiler: str, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    full = "echo 'final link failed: No space left on device' >&2; exit 1"
    with monkeypatch.context() as patch:
        patch.setenv("CC", str(script(home / "cc", full)))
        assert "No space left" in str(build.found())
        assert caplog.text.count("plain PyTorch") == 1
        assert list((home / "excite").iterdir()) == []
    build.found.cache_clear()
    assert build.load().moments_float


def test_a_library_that_finds_no_room_is_kept_elsewhere(
    home: Path, compiler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = os.replace

    def full(source: Path, target: Path) -> None:
        if target.parent == home / "excite":
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    assert build.load().moments_float
    assert list((home / "excite").iterdir()) == []


def test_several_builders_at_once(home: Path, compiler: str) -> None:
    with ThreadPoolExecutor(3) as pool:
        libraries = list(pool.map(lambda _: build.load(), range(3)))
    assert all(library.moments_float for library in libraries)
    assert [path.suffix for path in (home / "excite").iterdir()] == [".so"]


def test_another_folder_where_the_cache_cannot_be_written(home: Path, compiler: str) -> None:
    (home / "excite").write_text("a file where a folder is needed")
    assert build.load().moments_float
    assert len(list((home / "temporary").glob("excite-*/tail-*.so"))) == 1


def test_a_folder_of_somebody_else_is_not_used(home: Path, compiler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build.os, "getuid", lambda: 12345678)
    assert "EXCITE_CACHE" in str(build.found())
    build.found.cache_clear()


def test_a_library_that_cannot_be_loaded(home: Path, compiler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", str(script(home / "cc", 'for a; do case $a in *.so) echo junk > "$a";; esac; done')))
    monkeypatch.setattr(build, "find_openmp", lambda: home / "runtime")
    (home / "runtime").write_text("")
    assert "cannot be loaded" in str(build.found())
    build.found.cache_clear()


def test_no_folder_at_all(home: Path, compiler: str) -> None:
    (home / "excite").write_text("")
    (home / "temporary").write_text("")
    assert "EXCITE_CACHE" in str(build.found())


def test_reasons(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", str(script(home / "cc", "echo 'internal compiler error' >&2; exit 1")))
    assert "internal compiler error" in str(build.found())
    build.found.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(build, "build", None)  # its use would raise
        again = str(build.found())
    assert re.search(r"internal compiler error.* \(delete .*\.failed to try again\)", again)
    build.found.cache_clear()
    monkeypatch.setenv("CC", "no-such-compiler")
    assert "no C compiler" in str(build.found())
    build.found.cache_clear()
    for word in ("0", "off", "no", "False"):
        monkeypatch.setenv("EXCITE_NATIVE", word)
        assert "EXCITE_NATIVE" in str(build.found())
        build.found.cache_clear()
    monkeypatch.delenv("EXCITE_NATIVE")
    monkeypatch.setenv("CC", str(script(home / "cc", "true")))
    monkeypatch.setattr(torch, "__file__", str(home / "torch" / "__init__.py"))
    assert "OpenMP" in str(build.found())
    build.found.cache_clear()
    monkeypatch.setattr(build.sys, "platform", "win32")
    assert "Linux" in str(build.found())
    build.found.cache_clear()


def test_a_library_that_counts_wrongly_is_refused(home: Path, compiler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = home / "sources"
    shutil.copytree(build.SOURCES, sources)
    text = (sources / "passes.h").read_text()
    (sources / "passes.h").write_text(text.replace("mean[row] = (S)(sum / p)", "mean[row] = (S)(sum / (p + 1))"))
    monkeypatch.setattr(build, "SOURCES", sources)
    assert "count" in str(build.found())
    build.found.cache_clear()


def test_the_name_tells_sources_flags_compiler_and_processor(
    home: Path, compiler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = build.find_openmp()
    names = {build.identity(compiler, runtime)}
    monkeypatch.setattr(build, "processor", lambda: "another")
    names.add(build.identity(compiler, runtime))
    monkeypatch.setattr(build, "FLAGS", ("-O1",))
    names.add(build.identity(compiler, runtime))
    names.add(build.identity(str(script(home / "cc2", "true")), runtime))
    assert len(names) == 4
    assert all(len(a) == 20 for a in names)
