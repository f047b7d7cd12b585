"""Sharing through the Hugging Face hub, offline: its cache as the library lays it out, and what would be uploaded."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
import yaml
from huggingface_hub import constants
from safetensors import safe_open
from safetensors.torch import save_file

import excite
from excite.card import CARD
from excite.checkpoints.bundle import save_bundle
from excite.checkpoints.sharing import files_of, page_of
from excite.cli.main import main
from excite.errors import ExciteError, UsageError
from excite.models import describe, spec_of
from excite.pretrained import bundled, bundled_file

COMMIT = "0123456789abcdef0123456789abcdef01234567"
HOW = {"size": 24, "resize": 30, "mean": [0.5, 0.4, 0.3], "std": [0.25, 0.2, 0.3]}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, without a network."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def keep(cache: Path, repository: str, files: dict[str, bytes], revision: str = "main") -> Path:
    """Lay files out as snapshot_download does: contents in blobs, names in a snapshot, a branch that names it."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    snapshot = folder / "snapshots" / COMMIT
    for place in (folder / "refs", folder / "blobs", snapshot):
        place.mkdir(parents=True, exist_ok=True)
    (folder / "refs" / revision).write_text(COMMIT)
    for number, (name, content) in enumerate(files.items()):
        (folder / "blobs" / f"{number:040d}").write_bytes(content)
        (snapshot / name).symlink_to(f"../../blobs/{number:040d}")
    return snapshot


def trained(name: str = "eca_resnet20", **options: Any) -> torch.nn.Module:
    torch.manual_seed(0)
    network = excite.create_model(name, **{"num_classes": 3, "width": 4, **options})
    describe(network, class_names=["a", "b", "c"], preprocess=HOW)
    return network.eval()


@pytest.fixture
def network() -> torch.nn.Module:
    return trained()


@pytest.fixture
def shared(network: torch.nn.Module, tmp_path: Path, cache: Path) -> str:
    """A network in the cache under the name by which it was shared."""
    save_bundle(tmp_path / "own.safetensors", network)
    keep(cache, "somebody/small", files_of(tmp_path / "own.safetensors", "somebody/small"))
    return "hf-hub:somebody/small"


def test_load_takes_a_repository(shared: str, network: torch.nn.Module) -> None:
    model = excite.load(shared)
    x = torch.randn(2, 3, 24, 24)
    assert torch.equal(model(x), network(x))
    assert spec_of(model) == spec_of(network)
    assert torch.equal(excite.load(f"{shared}@main")(x), network(x))
    assert torch.equal(excite.load(f"{shared}@{COMMIT}")(x), network(x))


def test_verbs_take_a_repository(
    shared: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (40, 30)).save("x.png")
    assert main(["predict", shared, "x.png", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["model"] == "eca_resnet20"
    assert main(["import", shared, "-o", "copy.safetensors"]) == 0
    other = trained()
    assert excite.load_checkpoint(other, shared).complete
    from excite.checkpoints.reading import home, is_checkpoint, locate
    from excite.cli.export import find_network
    from excite.explain.networks import open_network

    assert is_checkpoint(shared)
    assert home(locate(shared)) == Path("runs/somebody-small")
    assert find_network(shared, None, None)[1].name == "eca_resnet20"
    assert open_network(shared).card.class_names == ["a", "b", "c"]


def test_timms_repositories(cache: Path, tmp_path: Path) -> None:
    """A network that our families do not know is built by its config.json, one that they know takes its preparation."""
    import timm

    for name in ("test_efficientnet", "resnet18"):
        model = timm.create_model(name, num_classes=5).eval()
        file = tmp_path / f"{name}.safetensors"
        save_file(model.state_dict(), file)
        inner = {"input_size": [3, 64, 64], "crop_pct": 0.8, "mean": [0.1, 0.2, 0.3], "std": [0.5] * 3}
        config = {"architecture": name, "num_classes": 5, "pretrained_cfg": inner}
        keep(cache, f"x/{name}", {"model.safetensors": file.read_bytes(), "config.json": json.dumps(config).encode()})
        loaded = excite.load(f"hf-hub:x/{name}")
        x = torch.randn(1, 3, 64, 64)
        torch.testing.assert_close(loaded(x), model(x))
        assert spec_of(loaded).preprocess == {"size": 64, "resize": 80, "mean": [0.1, 0.2, 0.3], "std": [0.5] * 3}
    assert spec_of(loaded).name == "resnet18"


CONFIGS: dict[str, Any] = {
    "no JSON": b"{",
    "a list": b"[]",
    "a path": {"architecture": "../../x.py:run", "pretrained_cfg": {}},
    "code": {"architecture": "own.py:net", "num_classes": 3, "pretrained_cfg": {}},
    "a file to open": {
        "architecture": "test_resnet",
        "num_classes": 3,
        "model_args": {"checkpoint_path": "/etc/passwd"},
    },
    "no numbers": {"architecture": "test_resnet", "pretrained_cfg": {"input_size": "x", "mean": None, "std": 3}},
    "no size": {"architecture": "test_resnet", "pretrained_cfg": {"input_size": [3, 0, 0], "crop_pct": 0}},
    "deep": b"[" * 100_000,
}


@pytest.mark.parametrize("name", list(CONFIGS))
def test_a_bad_config_names_nothing(name: str, cache: Path, tmp_path: Path) -> None:
    save_file({"a.weight": torch.zeros(3, 3)}, tmp_path / "x.safetensors")
    config = CONFIGS[name]
    if isinstance(config, dict):
        inner = {"input_size": [3, 64, 64], "crop_pct": 0.8, "mean": [0.1] * 3, "std": [0.5] * 3}
        config = json.dumps({**config, "pretrained_cfg": {**inner, **config.get("pretrained_cfg", {})}}).encode()
    keep(cache, "x/y", {"model.safetensors": (tmp_path / "x.safetensors").read_bytes(), "config.json": config})
    with pytest.raises(ExciteError, match=r"hf-hub:x/y") as caught:
        excite.load("hf-hub:x/y")
    assert len(str(caught.value).splitlines()) == 1


def test_code_in_a_repository_is_not_run(cache: Path, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple:
            return (print, ("fired",))

    torch.save({"state_dict": {"a.b": torch.zeros(1)}, "x": Trap()}, tmp_path / "x.bin")
    keep(cache, "x/trap", {"pytorch_model.bin": (tmp_path / "x.bin").read_bytes()})
    with pytest.raises(ExciteError, match="print to be run"):
        excite.load("hf-hub:x/trap")


def test_without_a_network_one_line_says_what_to_do(cache: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(ExciteError, match=r"hf-hub:x/none is not on this machine.*go online once") as caught:
        excite.load("hf-hub:x/none")
    assert str(cache) in str(caught.value)
    assert main(["predict", "hf-hub:x/none", __file__]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    for name in ("hf-hub:", "hf-hub:x", "hf-hub:a/b/c", "hf-hub:../..", "hf-hub:a b/c"):
        with pytest.raises(UsageError, match="no repository"):
            excite.load(name)
    with pytest.raises(UsageError, match=r"excite\.load"):
        excite.create_model("hf-hub:x/y")


# What is uploaded.


class Hub:
    """Stands where the library talks to the hub: keeps what it is asked for."""

    def __init__(self) -> None:
        self.made: list[tuple[str, dict]] = []
        self.commits: list[tuple[str, dict[str, bytes], str]] = []

    def __call__(self, **_: object) -> "Hub":
        return self

    def create_repo(self, name: str, **settings: object) -> None:
        self.made.append((name, settings))

    def create_commit(self, name: str, operations: list, *, commit_message: str) -> Any:
        files = {operation.path_in_repo: operation.path_or_fileobj for operation in operations}
        self.commits.append((name, files, commit_message))
        return type("Done", (), {"repo_url": f"https://huggingface.co/{name}"})


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    stand_in = Hub()
    monkeypatch.setattr(huggingface_hub, "HfApi", stand_in)
    return stand_in


def front_of(page: str) -> dict[str, Any]:
    _, front, _ = page.split("---\n", 2)
    return yaml.safe_load(front)


def test_push_uploads_weights_card_and_page(
    hub: Hub, network: torch.nn.Module, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    save_bundle(tmp_path / "own.safetensors", network)
    words = ["push", str(tmp_path / "own.safetensors"), "me/small", "--private", "--license", "mit", "--json"]
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["to"] == "https://huggingface.co/me/small"
    assert hub.made == [("me/small", {"private": True, "exist_ok": True, "repo_type": "model"})]
    ((name, files, _),) = hub.commits
    assert name == "me/small"
    assert set(files) == {"model.safetensors", "config.json", "README.md"}
    (tmp_path / "back.safetensors").write_bytes(files["model.safetensors"])
    back = excite.load(tmp_path / "back.safetensors")
    assert spec_of(back) == spec_of(network)
    assert all(torch.equal(v, network.state_dict()[k]) for k, v in back.state_dict().items())
    config = json.loads(files["config.json"])
    assert config["architecture"] == "excite_eca_resnet20"
    assert config["model_args"] == {"width": 4}
    assert config["label_names"] == ["a", "b", "c"]
    page = files["README.md"].decode()
    front = front_of(page)
    assert front["license"] == "mit"
    assert "model-index" not in front
    assert 'excite.load("hf-hub:me/small")' in page
    assert "ECA-Net" in page


def test_the_page_has_the_figures_of_the_run(network: torch.nn.Module, tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    state = {f"model.{k}": v for k, v in network.state_dict().items()}
    config = {"data": "imagefolder:/home/me/secret/birds", "recipe": "/home/me/my.yaml", "seed": 7, "epochs": 9}
    card = spec_of(network).to_dict()
    torch.save({"excite": card, "state_dict": state, "excite_config": config}, run / "checkpoints" / "best.ckpt")
    scores = {"best_top1": 0.9125, "best_top5": 0.99, "last_top1": 0.9, "last_top5": 0.98}
    summary = {"val_images": 200, "split": "test", "selects": False, "epochs": 9, **scores}
    (run / "summary.json").write_text(json.dumps(summary))
    assert b"## Score" not in files_of(run, "me/birds")["README.md"]  # the best of nine on the test split
    (run / "summary.json").write_text(json.dumps({**summary, "split": "val", "selects": True}))
    files = files_of(run, "me/birds")
    page = files["README.md"].decode()
    assert "top-1 91.25 %, top-5 99.00 % on 200 images (validation) of imagefolder:birds" in page
    assert front_of(page)["model-index"][0]["results"][0]["metrics"][0]["value"] == 91.25
    assert all(b"/home/me" not in content for content in files.values())
    # What is known of the training travels with the weights, and is told again.
    (tmp_path / "x.safetensors").write_bytes(files["model.safetensors"])
    assert "top-1 91.25 %" in files_of(tmp_path / "x.safetensors", "you/birds")["README.md"].decode()
    with safe_open(tmp_path / "x.safetensors", framework="pt") as content:
        assert json.loads(content.metadata()["excite"])["trained"]["seed"] == 7


def test_names_of_strangers_are_no_markup(network: torch.nn.Module, tmp_path: Path) -> None:
    describe(network, class_names=["<script>alert(1)</script>", "| a |\n---\n# b", "![x](http://x)"])
    save_bundle(tmp_path / "x.safetensors", network)
    page = files_of(tmp_path / "x.safetensors", "me/x")["README.md"].decode()
    assert "<script>" not in page
    assert "\n# b" not in page
    assert "![x](" not in page
    assert front_of(page)["library_name"] == "excite"


def test_push_writes_a_folder_and_refuses_without_a_network(
    network: torch.nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    save_bundle(tmp_path / "own.safetensors", network)
    assert main(["push", str(tmp_path / "own.safetensors"), "me/x"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "nothing was shared" in lines[0]
    assert main(["push", str(tmp_path / "own.safetensors"), "me/x", "--out", str(tmp_path / "page")]) == 0
    assert sorted(p.name for p in (tmp_path / "page").iterdir()) == ["README.md", "config.json", "model.safetensors"]
    assert torch.equal(excite.load(tmp_path / "page").fc.weight, network.fc.weight)
    assert main(["push", str(tmp_path / "own.safetensors"), "me/x", "--out", str(tmp_path / "page")]) == 2
    assert main(["push", str(tmp_path / "own.safetensors"), "x"]) == 2
    assert main(["push", str(tmp_path / "none.safetensors"), "me/x"]) == 2


BUILDERS: dict[str, Callable[[], torch.nn.Module]] = {
    "plain": trained,
    "EMCA with options": lambda: trained("emca_eca_resnet20", stages="all", blocks=1),
    "placement and channels": lambda: _other("se_resnet20", num_classes=3, in_channels=1, placement="last", width=4),
    "attached": lambda: _other("resnet20", num_classes=3, attach="se", attach_options={"reduction": 4}, width=4),
    "timm's own": lambda: _other("timm/test_resnet", num_classes=3),
}


def _other(name: str, **options: Any) -> torch.nn.Module:
    torch.manual_seed(0)
    network = excite.create_model(name, **options)
    channels = getattr(network, CARD).in_channels
    describe(network, preprocess={**HOW, "mean": [0.5] * channels, "std": [0.25] * channels})
    return network.eval()


@pytest.mark.parametrize("name", list(BUILDERS))
def test_timm_takes_what_was_shared(name: str, cache: Path, tmp_path: Path) -> None:
    import timm

    import excite.timm  # noqa: F401

    network = BUILDERS[name]()
    save_bundle(tmp_path / "x.safetensors", network)
    files = files_of(tmp_path / "x.safetensors", "me/x")
    keep(cache, "me/x", files)
    theirs = timm.create_model("hf-hub:me/x", pretrained=True).eval()
    channels = spec_of(network).in_channels
    x = torch.randn(2, channels, 32, 32)
    assert torch.equal(theirs(x), network(x))
    config = timm.data.resolve_data_config({}, model=theirs)
    assert tuple(config["input_size"]) == (channels, 24, 24)
    assert config["crop_pct"] == pytest.approx(0.8)
    assert tuple(config["mean"]) == tuple(spec_of(network).preprocess["mean"])
    fewer = timm.create_model("hf-hub:me/x", pretrained=True, num_classes=7).eval()
    assert fewer(x).shape == (2, 7)
    first = next(key for key in network.state_dict() if key.endswith("weight"))
    assert torch.equal(fewer.state_dict()[first], network.state_dict()[first])
    if name == "plain":
        (tmp_path / "folder").mkdir()
        for file, content in files.items():
            (tmp_path / "folder" / file).write_bytes(content)
        local = timm.create_model(f"local-dir:{tmp_path / 'folder'}", pretrained=True).eval()
        assert torch.equal(local(x), network(x))
        maps = timm.create_model("hf-hub:me/x", pretrained=True, features_only=True).eval()(x)
        assert len(maps) == 4
        untrained = timm.create_model("hf-hub:me/x")
        assert untrained.num_classes == 3


def test_networks_that_timm_does_not_know_have_no_config(tmp_path: Path) -> None:
    network = excite.create_model("torchvision/squeezenet1_1", num_classes=3)
    save_bundle(tmp_path / "x.safetensors", network)
    files = files_of(tmp_path / "x.safetensors", "me/x")
    assert set(files) == {"model.safetensors", "README.md"}
    assert "timm" not in files["README.md"].decode()


@pytest.mark.parametrize("tag", [f"{name}.{data}" for data, names in bundled().items() for name in names])
def test_the_page_beside_bundled_weights_is_their_card(tag: str) -> None:
    """Written by benchmarks/bundle_weights.py."""
    file = bundled_file(tag)
    assert file is not None
    page = file.with_suffix(".md").read_text()
    assert page == page_of(tag)
    front = yaml.safe_load(page.split("---")[1])
    metrics = front["model-index"][0]["results"][0]["metrics"]
    assert metrics[0]["value"] > 80  # per cent of CIFAR-10's test images
    assert f'excite.load("{tag}")' in page
    assert "hf-hub" not in page
