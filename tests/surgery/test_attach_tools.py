"""What people do with a network afterwards: copy, pickle, move, compile, export, distribute, detect."""

import copy
import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from attach_ddp import CASES as CASES_IN_TWO
from attach_ddp import train_two_steps
from attach_hosts import Residual, build
from torch import nn
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.feature_extraction import create_feature_extractor

import excite
from excite import ExciteError
from excite.surgery import convert_norms
from excite.surgery.carrier import carriers

CASES = {
    "residual": ("torchvision/resnet18", {"method": "eca"}),
    "before": ("timm/convnext_atto", {"method": "se"}),
    "replaced": ("timm/regnety_002", {"method": "eca", "replace": True}),
    "emca": ("torchvision/resnet18", {"method": "emca_eca"}),
    "emca branch": ("timm/resnet10t", {"method": "emca_srm", "form": "released"}),
}


def attached(case: str) -> nn.Module:
    name, options = CASES[case]
    model = build(name)
    excite.attach(model, **options)
    return model


def image(size: int = 64, n: int = 2) -> torch.Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("case", CASES)
def test_copies_and_pickles(case: str) -> None:
    model, x = attached(case), image()
    expected = model(x)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for _, module in carriers(twin):
            for p in module.parameters():
                p.add_(1)
    assert not torch.equal(twin(x), expected)
    assert torch.equal(model(x), expected), "a copy shares nothing"
    back = pickle.loads(pickle.dumps(model))
    assert type(back) is type(model)
    assert torch.equal(back(x), expected)
    excite.detach(back)
    assert not list(carriers(back))


SOME = [c if c in ("residual", "emca") else pytest.param(c, marks=pytest.mark.slow) for c in CASES]


@pytest.mark.parametrize("case", SOME)
def test_compiles_full_graph(case: str) -> None:
    model, x = attached(case), image()
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-4)
    model.train()
    compiled(x).square().mean().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("case", SOME)
def test_exports_with_a_dynamic_batch(case: str) -> None:
    model, x = attached(case), image()
    program = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim("n", min=1, max=64)},))
    assert set(program.state_dict) == set(model.state_dict())
    other = image(n=3)
    torch.testing.assert_close(program.module()(other), model(other), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", [pytest.param("residual", marks=pytest.mark.slow), "emca"])
def test_onnx(case: str) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model, x = attached(case), image(n=1)
    program = torch.onnx.export(model, (x,), dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    (got,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    np.testing.assert_allclose(got, model(x).detach().numpy(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("case", SOME)
def test_moves_between_dtypes_and_devices(case: str) -> None:
    name, options = CASES[case]
    model, x = build(name), image()
    before = model(x)
    excite.attach(model, **options)
    model.double()
    assert model(x.double()).dtype == torch.float64
    assert model.to(torch.bfloat16)(x.bfloat16()).dtype == torch.bfloat16
    model.float().to(memory_format=torch.channels_last)
    model(x.to(memory_format=torch.channels_last))
    excite.detach(model)
    assert model(x).shape == before.shape
    assert all(p.dtype == torch.float32 for p in model.parameters())
    late = build(name).double()
    excite.attach(late, **options)
    assert {p.dtype for p in late.parameters()} == {torch.float64}
    assert torch.equal(excite.detach(late)(x.double()), build(name).double()(x.double()))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("case", CASES)
def test_on_cuda(case: str) -> None:
    name, options = CASES[case]
    model = build(name).cuda()
    excite.attach(model, **options)
    assert all(p.is_cuda for p in model.parameters())
    torch.testing.assert_close(model(image().cuda()).cpu(), model.cpu()(image()), rtol=1e-2, atol=1e-2)


def test_parts_of_a_network_take_their_attention_along() -> None:
    model, x = attached("residual"), image()
    full: dict[str, torch.Tensor] = {}
    handle = model.layer4.register_forward_hook(lambda m, a, out: full.update(map=out))
    model(x)
    handle.remove()
    body = IntermediateLayerGetter(model, {"layer4": "out"})
    assert torch.equal(body(x)["out"], full["map"])
    traced = create_feature_extractor(model, {"layer4": "out"})
    assert torch.equal(traced.eval()(x)["out"], full["map"])


def test_detection_backbone() -> None:
    from torchvision.models.detection import FasterRCNN

    torch.manual_seed(0)
    body = attached("residual")
    backbone = BackboneWithFPN(body, {f"layer{i}": str(i - 1) for i in (1, 2, 3, 4)}, [64, 128, 256, 512], 64)
    assert sum("attention" in k for k in backbone.state_dict()) == 8
    detector = FasterRCNN(backbone, num_classes=3, min_size=64, max_size=64, box_detections_per_img=5)
    target = {"boxes": torch.tensor([[5.0, 5.0, 40.0, 40.0]]), "labels": torch.tensor([1])}
    losses = detector.train()([torch.rand(3, 64, 64)], [target])
    sum(losses.values()).backward()
    assert all(p.grad is not None for k, p in backbone.named_parameters() if "attention" in k)
    found = detector.eval()([torch.rand(3, 64, 64)])
    assert set(found[0]) == {"boxes", "labels", "scores"}


def test_emca_refuses_to_run_in_parts() -> None:
    model = attached("emca")
    with pytest.raises(ExciteError, match=r"called as a whole"):
        model.layer1(torch.randn(1, 64, 8, 8))


@pytest.mark.parametrize("case", ["residual", "emca branch"])
def test_synchronised_norms_keep_attention(case: str) -> None:
    """Conversions make new norms and hand over the children; the attention goes on running."""
    model, x = attached(case), image()
    expected, keys = model(x), list(model.state_dict())
    sync = convert_norms(copy.deepcopy(model))
    found = {p: type(m).__name__ for p, m in carriers(sync)}
    assert found.keys() == {p for p, _ in carriers(model)}
    assert "SyncBatchNorm" in found.values()
    assert list(sync.state_dict()) == keys
    torch.testing.assert_close(sync(x), expected)
    sync.train()(x).square().mean().backward()
    assert all(p.grad is not None for p in sync.parameters())
    torch.testing.assert_close(pickle.loads(pickle.dumps(sync)).eval()(x), sync.eval()(x))
    excite.detach(sync)
    assert not any("attention" in k for k in sync.state_dict())


def test_lightning_and_timm_conversions_keep_attention() -> None:
    from lightning.pytorch.plugins.layer_sync import TorchSyncBatchNorm
    from timm.layers import convert_sync_batchnorm

    model, x = attached("residual"), image()
    expected = model(x)
    plugin = TorchSyncBatchNorm()
    there = convert_norms(copy.deepcopy(model), plugin.apply)
    torch.testing.assert_close(there(x), expected)
    torch.testing.assert_close(convert_norms(there, plugin.revert).eval()(x), expected)
    torch.testing.assert_close(convert_norms(copy.deepcopy(model), convert_sync_batchnorm)(x), expected)
    excite.detach(model)
    assert not torch.allclose(model(x), expected), "without attention the output differs, so the test can fail"


def test_a_conversion_that_would_drop_attention_is_refused() -> None:
    from lightning.pytorch.plugins.layer_sync import TorchSyncBatchNorm
    from timm.layers import convert_sync_batchnorm

    model, x = attached("residual"), image()
    expected = model(x)
    for convert in (nn.SyncBatchNorm.convert_sync_batchnorm, convert_sync_batchnorm, TorchSyncBatchNorm().apply):
        with pytest.raises(excite.UsageError, match="convert_norms"):
            convert(model)
        torch.testing.assert_close(model(x), expected)
    sync = convert_norms(model)  # it was left half converted, with all of its attention
    torch.testing.assert_close(sync(x), expected)
    with pytest.raises(excite.UsageError, match="convert_norms"):
        TorchSyncBatchNorm().revert(sync)


def test_a_conversion_that_fails_or_drops_attention() -> None:
    model, x = attached("residual"), image()
    expected = model(x)

    def fail(network: nn.Module) -> nn.Module:
        nn.SyncBatchNorm.convert_sync_batchnorm(network.layer1)
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        convert_norms(model, fail)
    torch.testing.assert_close(model(x), expected)

    def drop(network: nn.Module) -> nn.Module:
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module._modules.clear()
        return network

    with pytest.raises(ExciteError, match="of 8 norms"):
        convert_norms(model, drop)


def test_importing_excite_leaves_the_modules_of_the_process_alone() -> None:
    code = (
        "import excite.ops, excite.models, excite.surgery; from torch.nn.modules import module\n"
        "print([k for k, v in vars(module).items() if k.startswith('_global_') and k.endswith('hooks') and v])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_attention_after_converted_norms() -> None:
    model = nn.SyncBatchNorm.convert_sync_batchnorm(Residual())
    report = excite.attach(model, "eca", input_size=(2, 16, 16), sites="**.body.1")
    assert len(report.sites) == 4


def test_no_parameter_is_without_a_gradient_in_ddp(tmp_path: Path) -> None:
    """Such a one would fail in the second step, of one process too."""
    train_two_steps(0, f"{tmp_path}/store", f"{tmp_path}/sum", processes=1)
    assert json.loads((tmp_path / "sum.0").read_text()).keys() == CASES_IN_TWO.keys()


@pytest.mark.slow
def test_two_processes(tmp_path: Path) -> None:
    """With attached attention and in EMCA networks: the same weights in both, and no parameter without a gradient."""
    torch.multiprocessing.spawn(train_two_steps, (f"{tmp_path}/store", f"{tmp_path}/sum"), nprocs=2)
    first, second = (json.loads((tmp_path / f"sum.{rank}").read_text()) for rank in (0, 1))
    assert first == second
    assert first.keys() == CASES_IN_TWO.keys()
    with pytest.raises(excite.UsageError, match=r"already|wrapped"):
        excite.attach(nn.DataParallel(attached("residual")), "eca")
