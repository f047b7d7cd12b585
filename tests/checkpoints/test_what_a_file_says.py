"""What a file says about itself: one reader, one set of words for every verb, and no code of a stranger's."""

import json
from pathlib import Path
from typing import Any

import pytest
import references as ref
import torch
import yaml
from safetensors.torch import save_file

import excite
from excite.checkpoints.bundle import save_bundle
from excite.checkpoints.reading import read_checkpoint
from excite.cli.main import main
from excite.detect.config import DetectConfig
from excite.errors import ExciteError, UsageError
from excite.explain.networks import models_of
from excite.models import NetworkSpec, describe, spec_of
from excite.train.config import TrainConfig

HOW = {"size": 32, "resize": 32, "mean": [0.5] * 3, "std": [0.25] * 3}
VERBS = (
    ["test", "FILE", "--data", "digits"],
    ["predict", "FILE", "IMAGE"],
    ["explain", "FILE", "--data", "digits"],
    ["robustness", "FILE"],
    ["export", "FILE", "-o", "OUT.onnx"],
    ["bench", "FILE", "--size", "32"],
    ["import", "FILE"],
)


def run_file(path: Path, card: dict[str, Any], state: dict[str, torch.Tensor], entry: str = "excite") -> Path:
    prefix = {"excite": "model.", "excite_detector": "detector."}[entry]
    weights = {prefix + key: tensor for key, tensor in state.items()}
    torch.save({entry: card, "state_dict": weights, "excite_config": {"data": "digits"}}, path)
    return path


@pytest.fixture(scope="module")
def spec() -> NetworkSpec:
    return NetworkSpec("eca_resnet20", 10, options={"width": 4}, class_names=list("0123456789"), preprocess=HOW)


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """A Python file that leaves a trace when it is run."""
    file = tmp_path / "own.py"
    file.write_text(
        f"open({str(tmp_path / 'ran')!r}, 'w').close()\nfrom excite import create_model\n"
        "def net(num_classes, width=16):\n"
        "    return create_model('eca_resnet20', num_classes=num_classes, width=width)\n"
    )
    return file


def command(verb: list[str], file: Path, folder: Path) -> list[str]:
    image = folder / "image.png"
    if not image.exists():
        from PIL import Image

        Image.new("RGB", (32, 32)).save(image)
    places = {"FILE": str(file), "IMAGE": str(image), "OUT.onnx": str(folder / "out.onnx")}
    places["OUT.safetensors"] = str(folder / "out.safetensors")
    return [places.get(word, word) for word in verb]


@pytest.mark.parametrize("verb", VERBS, ids=lambda v: v[0])
@pytest.mark.parametrize("suffix", ["ckpt", "safetensors"])
def test_no_verb_runs_code_that_a_file_names(
    verb: list[str], suffix: str, trap: Path, tmp_path: Path, spec: NetworkSpec, capsys: pytest.CaptureFixture[str]
) -> None:
    network = spec.build()
    file = tmp_path / f"net.{suffix}"
    card = NetworkSpec(f"{trap}:net", 10, options={"width": 4}, preprocess=HOW)
    if suffix == "ckpt":
        run_file(file, card.to_dict(), network.state_dict())
    else:
        save_bundle(file, network, card)
    assert main(command(verb, file, tmp_path)) == 1
    said = capsys.readouterr().err
    assert "names the Python file" in said
    assert "--model FILE.py:factory" in said
    assert len(said.strip().splitlines()) == 1
    assert not (tmp_path / "ran").exists()


QUICK = {
    "test": ["--limit", "8"],
    "explain": ["--limit", "8"],
    "robustness": ["--limit", "4", "--corruptions", "contrast", "--severities", "1"],
    "bench": ["--rounds", "3", "--min-time", "0", "--task", "latency", "--no-memory"],
    "import": ["-o", "OUT.safetensors"],
}


@pytest.mark.parametrize("verb", VERBS, ids=lambda v: v[0])
def test_every_verb_takes_the_python_file_that_its_user_names(
    verb: list[str], trap: Path, tmp_path: Path, spec: NetworkSpec, monkeypatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    card = NetworkSpec("elsewhere/own.py:net", 10, options={"width": 4}, preprocess=HOW)
    file = run_file(tmp_path / "net.ckpt", card.to_dict(), spec.build().state_dict())
    words = [*command([*verb, *QUICK.get(verb[0], [])], file, tmp_path), "--json"]
    assert main([*words, "--model", f"{trap}:net"]) == 0, capsys.readouterr().err
    json.loads(capsys.readouterr().out)
    assert (tmp_path / "ran").exists()
    assert main([*words, "--model", "resnet20", *(["--overwrite"] if verb[0] in ("export", "import") else [])]) == 1
    assert "does not fit the network resnet20" in capsys.readouterr().err


def test_one_network_for_all_checkpoints_or_one_for_each() -> None:
    sources = ["a.ckpt", "random:resnet20", "b.ckpt"]
    assert models_of(sources, []) == [None, None, None]
    assert models_of(sources, ["own.py:net"]) == ["own.py:net", None, "own.py:net"]
    assert models_of(sources, ["own.py:a", "own.py:b"]) == ["own.py:a", None, "own.py:b"]
    for models in (["x"] * 3, ["x"] * 4):
        with pytest.raises(UsageError, match=r"--model names \d networks for 2 checkpoints"):
            models_of(sources, models)
    with pytest.raises(UsageError, match="--model names 1 networks for 0 checkpoints"):
        models_of(["random:resnet20"], ["x"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["bench", "resnet20", "--model", "x.py:net"], "--model x.py:net is for the weights of a checkpoint"),
        (["export", "resnet20", "--model", "x.py:net"], "--model x.py:net is for the weights of a checkpoint"),
        (["bench", "FILE", "--attach", "eca"], "--placement and --num-classes are for networks given by name"),
    ],
)
def test_options_without_an_effect_are_refused(words: list[str], message: str, tmp_path: Path, capsys) -> None:
    (tmp_path / "net.ckpt").touch()
    assert main(command(words, tmp_path / "net.ckpt", tmp_path)) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("command", "option"), [(["train"], "model"), (["detect", "train"], "backbone")])
def test_a_resumed_run_names_no_code(
    command: list[str], option: str, trap: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(yaml.safe_dump({option: f"{trap}:net", "epochs": 1}))
    assert main([*command, "--resume", str(run)]) == 1
    said = capsys.readouterr().err
    assert f"config.yaml names the Python file '{trap}:net'" in said
    assert f"--{option} FILE.py:factory" in said
    kind = TrainConfig if option == "model" else DetectConfig
    with pytest.raises(ExciteError, match="names the Python file"):
        kind.from_run(run)
    assert not (tmp_path / "ran").exists()
    assert getattr(kind.from_run(run, **{option: f"{trap}:net"}), option) == f"{trap}:net"


def test_the_keyboard_may_name_the_python_file(trap: Path, tmp_path: Path, spec: NetworkSpec) -> None:
    network = spec.build().eval()
    file = run_file(
        tmp_path / "net.ckpt",
        NetworkSpec("elsewhere/own.py:net", 10, options={"width": 4}).to_dict(),
        network.state_dict(),
    )
    again = excite.load(file, model=f"{trap}:net")
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(again(x), network(x))
    with pytest.raises(UsageError, match="no file"):
        excite.load(file, model="nowhere.py:net")


@pytest.mark.parametrize("verb", [v for v in VERBS if v[0] != "import"], ids=lambda v: v[0])
def test_every_classification_verb_names_a_detector_as_such(
    verb: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = {"kind": "faster_rcnn", "backbone": "eca_resnet20", "num_classes": 3}
    file = run_file(tmp_path / "d.ckpt", card, {"a": torch.zeros(1)}, "excite_detector")
    assert main(command(verb, file, tmp_path)) == 1
    said = capsys.readouterr().err
    assert "holds a detector (faster_rcnn on eca_resnet20)" in said
    assert "excite detect test" in said


def test_a_detector_runs_no_code_of_its_card(trap: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card = {"kind": "faster_rcnn", "backbone": f"{trap}:net", "num_classes": 3}
    file = run_file(tmp_path / "d.ckpt", card, {"a": torch.zeros(1)}, "excite_detector")
    with pytest.raises(ExciteError, match="names the Python file"):
        excite.load(file)
    assert main(["detect", "test", str(file), "--data", "shapes"]) == 1
    assert "names the Python file" in capsys.readouterr().err
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"kind": "yolo"}, "kind"),
        ({"backbone": None}, "backbone"),
        ({"num_classes": 1}, "num_classes"),
        ({"neck": "pan"}, "neck"),
        ({"class_names": ["a", "b", "c"]}, "class_names"),
        ({"options": {"min_size": 0}}, "min_size"),
        ({"options": {"min_size": [320, 100000]}}, "min_size"),
        ({"options": {"max_size": "large"}}, "max_size"),
        ({"options": {"checkpoint": "other.pth"}}, "checkpoint"),
        ({"options": {"width": torch.zeros(1)}}, "width"),
    ],
    ids=str,
)
def test_a_bad_detector_card_names_the_entry(changes: dict[str, Any], named: str, tmp_path: Path) -> None:
    card = {"kind": "faster_rcnn", "backbone": "eca_resnet20", "num_classes": 3, **changes}
    file = run_file(tmp_path / "d.ckpt", card, {"a": torch.zeros(1)}, "excite_detector")
    with pytest.raises(ExciteError) as caught:
        read_checkpoint(file)
    assert str(file) in str(caught.value)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_each_file_is(tmp_path: Path, spec: NetworkSpec) -> None:
    network = spec.build()
    save_bundle(tmp_path / "a.safetensors", network)
    run_file(tmp_path / "b.ckpt", spec.to_dict(), network.state_dict())
    for name, config in (("a.safetensors", {}), ("b.ckpt", {"data": "digits"})):
        checkpoint = read_checkpoint(tmp_path / name)
        assert (checkpoint.kind, checkpoint.card, checkpoint.config) == ("classifier", spec, config)
        assert checkpoint.weights.keys() == network.state_dict().keys()
    assert read_checkpoint(network.state_dict()).kind == "plain"
    assert read_checkpoint({"net": ref.small_se_resnet(3)}).kind == "author's"
    assert read_checkpoint({"anything": torch.zeros(2)}).kind == "plain"
    with pytest.raises(ExciteError, match="carries no card"):
        _ = read_checkpoint({"anything": torch.zeros(2)}).spec
    with pytest.raises(ExciteError, match="not a detector; use `excite test`"):
        _ = read_checkpoint(tmp_path / "b.ckpt").detector


def test_load_gives_a_network_ready_to_predict(tmp_path: Path, spec: NetworkSpec) -> None:
    network = spec.build().eval()
    x = torch.randn(2, 3, 32, 32)
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    run_file(folder / "best.ckpt", spec.to_dict(), network.state_dict())
    loaded = excite.load(tmp_path / "run")
    assert not loaded.training
    assert spec_of(loaded) == spec
    assert torch.equal(loaded(x), network(x))
    torch.save({"net": {k: v.clone() for k, v in ref.small_se_resnet(3).items()}}, tmp_path / "author.pth")
    imported = excite.load(tmp_path / "author.pth")
    assert spec_of(imported).name == "se_resnet20"
    assert not imported.training
    torch.save(network.state_dict(), tmp_path / "bare.pth")
    with pytest.raises(ExciteError, match="does not fill the network eca_resnet20"):
        excite.load(tmp_path / "bare.pth", model="eca_resnet20")
    small = NetworkSpec("resnet20", 7).build()
    torch.save(small.state_dict(), tmp_path / "small.pth")
    assert spec_of(excite.load(tmp_path / "small.pth", model="resnet20")).num_classes == 7


def test_load_gives_a_detector(tmp_path: Path) -> None:
    options = {"head_channels": 16, "neck_channels": 16, "width": 8, "min_size": 64, "max_size": 64}
    detector = excite.create_detector("faster_rcnn", "eca_resnet20", 3, class_names=["a", "b"], **options)
    file = run_file(tmp_path / "d.ckpt", detector.excite_card.to_dict(), detector.state_dict(), "excite_detector")
    loaded = excite.load(file)
    assert loaded.excite_card == detector.excite_card
    assert set(loaded([torch.zeros(3, 64, 64)])[0]) >= {"boxes", "scores", "labels"}
    bare = excite.create_model("eca_resnet20", num_classes=5, width=8)
    report = excite.load_checkpoint(bare, file)
    assert set(report.fresh) == {"fc.weight", "fc.bias"}


@pytest.mark.parametrize("metadata", ["{", "[]", "null", '{"name": 3}', json.dumps({"name": "resnet20", "options": 1})])
def test_bad_metadata_is_one_line(metadata: str, tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "m.safetensors", metadata={"excite": metadata})
    for use in (read_checkpoint, excite.load, excite.import_checkpoint):
        with pytest.raises(ExciteError, match=r"m\.safetensors.*card") as caught:
            use(tmp_path / "m.safetensors")
        assert "\n" not in str(caught.value)


def test_weights_missing_or_odd_in_a_run(tmp_path: Path, spec: NetworkSpec) -> None:
    torch.save({"excite": spec.to_dict()}, tmp_path / "a.ckpt")
    with pytest.raises(ExciteError, match="card and no weights"):
        excite.load(tmp_path / "a.ckpt")
    torch.save({"excite": spec.to_dict(), "state_dict": {}, "excite_config": 3}, tmp_path / "b.ckpt")
    with pytest.raises(ExciteError, match="configuration is int"):
        excite.load(tmp_path / "b.ckpt")
    run_file(tmp_path / "c.ckpt", {**spec.to_dict(), "name": "eca_resnet21"}, {})
    with pytest.raises(ExciteError, match=r"c\.ckpt: the network of its card cannot be built: unknown model") as caught:
        excite.load(tmp_path / "c.ckpt")
    assert not isinstance(caught.value, UsageError)


def test_torchs_advice_is_not_passed_on(tmp_path: Path) -> None:
    class Odd:
        pass

    globals()["Odd"] = Odd
    Odd.__qualname__ = "Odd"
    scripted = torch.jit.script(torch.nn.Linear(2, 2))
    torch.jit.save(scripted, tmp_path / "script.pt")
    torch.save({"a": Odd()}, tmp_path / "odd.pth")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "whole.pth")
    (tmp_path / "junk.pth").write_bytes(b"\x80\x02}q\x00.junk" * 9)
    (tmp_path / "number.pth").write_text("7\n")
    for file in tmp_path.iterdir():
        for use in (read_checkpoint, excite.load, excite.import_checkpoint):
            with pytest.raises(ExciteError) as caught:
                use(file)
            text = str(caught.value)
            assert text.startswith(f"cannot read checkpoint {file}: "), text
            assert "weights_only" not in text
            assert "\n" not in text
    del globals()["Odd"]


def test_an_exported_file_is_named_as_such(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"anything")
    with pytest.raises(ExciteError, match="exported network"):
        excite.load(tmp_path / "m.onnx")


def test_changes_to_a_network_reach_its_file(tmp_path: Path, spec: NetworkSpec) -> None:
    network = spec.build()
    describe(network, class_names=[f"class {i}" for i in range(10)])
    save_bundle(tmp_path / "a.safetensors", network)
    assert spec_of(excite.load(tmp_path / "a.safetensors")).class_names == [f"class {i}" for i in range(10)]
