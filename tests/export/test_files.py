"""Exported files: written whole or not at all, and what they compute."""

import errno
import io
import json
import resource
from pathlib import Path

import pytest
import torch
from torch import nn

import excite
from excite.cli.export import top1
from excite.cli.main import main
from excite.errors import ExciteError, UsageError
from excite.export import export_model, open_engine, open_exported, write
from excite.export.runtime import ExportedModel
from excite.models import describe


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    model = excite.create_model("se_resnet20", num_classes=4, width=4).eval()
    how = {"size": 16, "resize": 16, "mean": [0.5] * 3, "std": [0.25] * 3}
    describe(model, class_names=["a", "b", "c", "d"], preprocess=how)
    return model


def images(n: int) -> torch.Tensor:
    return torch.randn(n, 3, 16, 16, generator=torch.Generator().manual_seed(1))


CASES = [
    ("onnx", "m.onnx", "fp32", 1e-4),
    ("onnx", "m.onnx", "fp16", 2e-2),
    ("openvino", "m.xml", "fp32", 1e-4),
    ("openvino", "m.xml", "bf16", 8e-2),
    ("torch-export", "m.pt2", "fp32", 1e-4),
]


# Any batch size in one precision: the precisions have nothing to do with it.
ROUND_TRIPS = [(*case, False) for case in CASES] + [(*case, True) for case in CASES if case[2] == "fp32"]
# Both ways to take a batch, and half precision; the others are slow (`test_engines_agree` runs OpenVINO, too).
QUICK = {("onnx", "fp16", False), ("onnx", "fp32", True), ("torch-export", "fp32", True)}


@pytest.mark.parametrize(
    ("format", "file", "precision", "tolerance", "dynamic"),
    [pytest.param(*c, marks=() if (c[0], c[2], c[4]) in QUICK else pytest.mark.slow) for c in ROUND_TRIPS],
)
def test_round_trip(network, tmp_path: Path, format, file, precision, tolerance, dynamic) -> None:
    path = tmp_path / file
    result = export_model(
        network, network.excite_card, path, format=format, precision=precision, input_size=16, dynamic=dynamic
    )
    assert result.error <= tolerance
    assert precision == "fp32" or result.error > 1e-5  # fewer digits show
    opened = open_exported(path)
    assert opened.card.class_names == ["a", "b", "c", "d"]
    assert (opened.precision, opened.input_size, opened.batch) == (precision, 16, None if dynamic else 1)
    x = images(5)
    with torch.no_grad():
        wanted = network(x)
    assert float((opened(x) - wanted).abs().max() / wanted.abs().max()) <= tolerance
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


@pytest.mark.parametrize("n", [1, 3, 4, 5, 9])
def test_a_fixed_batch_is_met_by_cutting_and_padding(network, n: int) -> None:
    seen = []

    def engine(x: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(x.shape))
        return network(x)

    fixed = ExportedModel(Path("m.onnx"), engine, network.excite_card, "onnx", "fp32", 16, batch=4)
    with torch.no_grad():
        torch.testing.assert_close(fixed(images(n)), network(images(n)))
    assert seen == [(4, 3, 16, 16)] * -(-n // 4)


@pytest.mark.parametrize(
    ("format", "file"), [("onnx", "q.onnx"), pytest.param("openvino", "q.xml", marks=pytest.mark.slow)]
)
def test_int8_is_smaller_and_near(network, tmp_path: Path, format: str, file: str) -> None:
    kwargs = {"format": format, "input_size": 16}
    export_model(network, network.excite_card, tmp_path / f"full{Path(file).suffix}", **kwargs)
    result = export_model(
        network, network.excite_card, tmp_path / file, precision="int8", calibration=[images(8)], **kwargs
    )
    assert 0 < result.error < 0.3  # a quantised network is never exactly the original
    with torch.no_grad():
        wanted = network(images(8))
    got = open_exported(tmp_path / file)(images(8))
    assert torch.nn.functional.cosine_similarity(got.flatten(), wanted.flatten(), 0) > 0.95


def test_a_file_that_disagrees_is_not_written(network, tmp_path: Path, monkeypatch) -> None:
    from excite.export import write

    def broken(path):
        opened = open_exported(path)
        opened.engine = lambda x, engine=opened.engine: engine(x) * 1.01
        return opened

    monkeypatch.setattr(write, "open_exported", broken)
    with pytest.raises(ExciteError, match="nothing was written"):
        export_model(network, network.excite_card, tmp_path / "m.onnx", input_size=16)
    assert list(tmp_path.iterdir()) == []


def test_requests_that_cannot_be_met(network, tmp_path: Path) -> None:
    card = network.excite_card
    with pytest.raises(UsageError, match=r"ends in \.onnx"):
        export_model(network, card, tmp_path / "m.xml", format="onnx")
    with pytest.raises(UsageError, match="bf16"):
        export_model(network, card, tmp_path / "m.onnx", precision="bf16")
    with pytest.raises(UsageError, match="calibrate"):
        export_model(network, card, tmp_path / "m.onnx", precision="int8")
    with pytest.raises(UsageError, match="format"):
        export_model(network, card, tmp_path / "m.onnx", format="onx")
    (tmp_path / "m.onnx").write_text("mine")
    with pytest.raises(UsageError, match="exists"):
        export_model(network, card, tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx").read_text() == "mine"
    with pytest.raises(ExciteError, match="cannot be opened"):
        open_exported(tmp_path / "m.onnx")
    with pytest.raises(UsageError, match="no file"):
        open_exported(tmp_path / "n.onnx")
    with pytest.raises(UsageError, match="not an exported network"):
        open_exported(tmp_path / "n.ckpt")


@pytest.mark.parametrize("engine", ["torch", "onnxruntime", "openvino"])
def test_engines_agree(network, engine: str) -> None:
    x = images(2)
    with torch.no_grad():
        wanted = network(x)
    torch.testing.assert_close(open_engine(network, engine, x)(x), wanted, rtol=1e-3, atol=1e-4)


def test_wrong_engines(network) -> None:
    with pytest.raises(UsageError, match="onnxruntime"):
        open_engine(network, "onnxruntim", images(1))
    with pytest.raises(UsageError, match="bfloat16"):
        open_engine(network, "onnxruntime", images(1), "bf16")


def test_command(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert (
        main(
            [
                "export",
                "eca_resnet20",
                "--num-classes",
                "10",
                "--size",
                "16",
                "--format",
                "torch-export",
                "--data",
                "digits",
                "--limit",
                "20",
                "--json",
            ]
        )
        == 0
    )
    report = json.loads(capsys.readouterr().out)
    assert report["out"] == "eca_resnet20.pt2"
    assert report["rewrites"]["norms_folded"] == 19
    assert report["top1_before"] == report["top1_after"]
    assert main(["export", "eca_resnet20", "--num-classes", "10", "--format", "torch-export"]) == 2
    assert "exists" in capsys.readouterr().err
    assert main(["export", "eca_resnet2O"]) == 2
    assert "eca_resnet20" in capsys.readouterr().err
    assert main(["export", "gone.ckpt"]) == 2
    assert "gone.ckpt" in capsys.readouterr().err


def test_a_full_disk_is_one_line(network: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def save(program: object, file: io.BytesIO, extra_files: dict[str, str]) -> None:
        file.write(bytes(100_000))

    monkeypatch.setattr(write, "prepare", lambda *_, **__: (None, None, None))
    monkeypatch.setattr(torch.export, "save", save)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, limits[1]))
    try:
        with pytest.raises(ExciteError, match=r"^cannot write .*m\.pt2: File too large$"):
            export_model(network, network.excite_card, tmp_path / "m.pt2", format="torch-export", input_size=16)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())


def test_of_two_files_both_are_written_or_none(
    network: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def draft(program: object, path: Path, *_: object) -> None:
        path.write_text("new")
        path.with_suffix(".bin").write_text("new")

    def copy(source: Path, target: Path) -> None:
        if source.suffix in full:
            raise OSError(errno.ENOSPC, "No space left on device")
        target.write_bytes(source.read_bytes())

    monkeypatch.setattr(write, "_write", draft)
    monkeypatch.setattr(write, "_compare", lambda *_: 0.0)
    monkeypatch.setattr(write, "prepare", lambda *_, **__: (None, None, None))
    monkeypatch.setattr(write.shutil, "copyfile", copy)
    full: list[str] = []
    for ending in (".bin", ".xml"):
        full[:] = [ending]
        for name in ("m.xml", "m.bin"):
            (tmp_path / name).write_text("old")
        with pytest.raises(ExciteError, match="No space left"):
            export_model(
                network, network.excite_card, tmp_path / "m.xml", format="openvino", input_size=16, overwrite=True
            )
        assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"m.xml": "old", "m.bin": "old"}


def test_top1_is_the_share_of_largest_logits() -> None:
    logits = torch.tensor([[3.0, 1.0, 2.0], [0.0, 5.0, 1.0], [0.0, 1.0, 2.0], [9.0, 1.0, 2.0]])
    batches = [(logits[:3], torch.tensor([0, 1, 0])), (logits[3:], torch.tensor([0]))]
    assert top1(lambda x: x, batches) == 0.75
