"""Authors' files in every command, and the table of the public ones."""

import json
from pathlib import Path

import pytest
import references as ref
import torch
from PIL import Image

from excite.checkpoints.public import PUBLIC
from excite.cli.main import main
from excite.models import NetworkSpec
from excite.pretrained import bundled


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("authors") / "se_resnet20.pth.tar"
    torch.manual_seed(0)

    def filled(like: torch.Tensor) -> torch.Tensor:
        """Return weights under which numbers stay finite through the network."""
        if not like.is_floating_point():
            return like.clone()
        return torch.randn(like.shape) / like[0].numel() ** 0.5 if like.dim() > 1 else torch.rand(like.shape) + 0.5

    state = {k: filled(v) for k, v in ref.small_se_resnet(3).items()}
    optimizer = {"state": {0: {"momentum_buffer": torch.ones(2)}}}
    content = {"epoch": 90, "state_dict": state, "best_prec1": torch.tensor([91.0]), "optimizer": optimizer}
    torch.save(content, path)
    Image.new("RGB", (32, 32), (200, 30, 30)).save(path.with_name("image.png"))
    return path


def test_predict_imports_on_the_fly(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", str(file), str(file.with_name("image.png")), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["predictions"]
    assert len(rows[0]["classes"]) == 5


def test_test_and_explain_import_on_the_fly(file: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    command = ["test", str(file), "--data", "digits", "--limit", "20", "--out", str(tmp_path), "--json"]
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 20
    assert main(["explain", str(file), "--data", "digits", "--limit", "20", "--out", str(tmp_path), "--json"]) == 0


def test_resume_with_other_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = NetworkSpec("eca_resnet20", 10, options={"width": 4})
    weights = {"model." + k: v for k, v in spec.build().state_dict().items()}
    (tmp_path / "checkpoints").mkdir()
    own = tmp_path / "checkpoints" / "last.ckpt"
    torch.save({"excite": spec.to_dict(), "state_dict": weights}, own)
    assert main(["train", "--resume", str(own)]) == 2
    assert f"--init {own} starts a new run" in capsys.readouterr().err
    (tmp_path / "config.yaml").write_text("model: eca_resnet20\n")
    assert main(["train", "--resume", str(own)]) == 2
    assert f"is a checkpoint; --resume {tmp_path}" in capsys.readouterr().err
    torch.save({"anything": torch.zeros(3)}, tmp_path / "x.pth")
    assert main(["train", "--resume", str(tmp_path / "x.pth")]) == 2
    assert "nothing of" in capsys.readouterr().err
    assert main(["train", "--resume", str(tmp_path / "none.pth")]) == 2


def test_list_of_public_files(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "checkpoints", "eca_resnet50*"]) == 0
    text = capsys.readouterr().out
    assert "77.42 / 93.62" in text
    assert "excite import eca_resnet50_k3557 -o eca_resnet50.safetensors" in text
    assert "Nothing is downloaded" in text
    assert main(["list", "checkpoints", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    own = [f"{name}.{data}" for data, names in bundled().items() for name in names]
    assert sorted(row["name"] for row in rows) == sorted([*own, *(file.name for file in PUBLIC)])
    assert main(["list", "checkpoints", "nothing*"]) == 2


def test_public_files_name_networks_of_ours() -> None:
    from excite.backbones.names import all_names

    names = set(all_names())
    assert all(file.network in names for file in PUBLIC)
    assert len({file.place for file in PUBLIC}) == len(PUBLIC)


def test_torchvisions_files_are_as_torchvision_says() -> None:
    import torchvision

    own = [file for file in PUBLIC if file.sha256]
    assert len(own) == 6
    for file in own:
        weights = torchvision.models.get_model_weights(file.network)["IMAGENET1K_V1"]
        scores = weights.meta["_metrics"]["ImageNet-1K"]
        assert file.place == weights.url
        assert file.scores == f"{scores['acc@1']:.2f} {scores['acc@5']:.2f}"


def test_timms_files_are_known_to_timm() -> None:
    timm = pytest.importorskip("timm")
    known = set(timm.list_pretrained())
    files = [file for file in PUBLIC if "huggingface" in file.place]
    assert files
    assert all(file.name.removesuffix(".safetensors") in known for file in files)
