"""The Triton kernels: interpreted on the CPU, compiled for a GPU that is not there, run on one that is."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent
pytest.importorskip("triton")


def test_interpreted_kernels_equal_those_in_pytorch() -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(HERE / "interpreted.py")], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("pieces") == 16


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bf16", "fp16", "fp32", "fp64"])
@pytest.mark.parametrize("last", [True, False])
def test_kernels_compile_for_a_gpu_with_wide_loads(kind: str, last: bool) -> None:
    import triton
    import triton.language as tl
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from excite.ops.tail import triton as source

    wide = "fp64" if kind == "fp64" else "fp32"
    common = {"WIDE": tl.float64 if kind == "fp64" else tl.float32}
    common |= {"SC": 1, "BS": 16, "BC": 128} if last else {"SS": 1, "BS": 1024, "BC": 2}
    maps = {"z_ptr", "shortcut_ptr", "out_ptr", "grad_ptr", "g_ptr", "dz_ptr"}
    for kernel, flags in (
        (source.moments_kernel, {"SECOND": True, "BASIS": False, "basis_ptr": None, "sp_ptr": None}),
        (source.affine_kernel, {"SHORTCUT": True, "RELU": True}),
        (source.grad_sums_kernel, {"RELU": True}),
        (source.grad_input_kernel, {"QUADRATIC": True, "BASIS": False, "d_ptr": None, "basis_ptr": None}),
    ):
        constants = {**common, **flags}
        names = kernel.arg_names
        types = {
            n: "constexpr" if n in constants else f"*{kind if n in maps else wide}" if n.endswith("_ptr") else "i32"
            for n in names
        }
        attributes = {(i,): [["tt.divisibility", 16]] for i, n in enumerate(names) if n not in constants}
        made = ASTSource(kernel, types, {(names.index(n),): v for n, v in constants.items()}, attributes)
        compiled = triton.compile(made, target=GPUTarget("cuda", 90, 32), options={"num_warps": 4})
        assert "cubin" in compiled.asm
        assert "ld.global.v" in compiled.asm["ptx"].replace(".b32", "").replace(".b64", "")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("method", ["none", "se", "eca", "srm", "gct", "fca"])
def test_fused_tail_on_a_gpu(method: str, last: bool) -> None:
    from tails import difference, example, run
    from torch import nn

    module, z, r = example(method, torch.float64, last=last)
    module, z, r = module.cuda(), z.cuda(), r.cuda()
    assert difference(run("reference", module, z, r, nn.ReLU()), run("fused", module, z, r, nn.ReLU())) <= 1e-10
