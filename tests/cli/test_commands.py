import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from excite.cli.main import main
from imagesets import image_folder, parquet_set

TINY = ["--limit-train", "48", "--limit-val", "20", "--batch-size", "16", "--workers", "0", "--epochs", "1"]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "digits"
    assert main(["train", *TINY, "--out", str(path), "--quiet"]) == 0
    return path


def test_train_prints_epochs_and_a_summary(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "se_resnet20", *TINY, "--lr", "0.01"]) == 0
    out = capsys.readouterr().out
    for part in (
        "epoch 1/1  loss",
        "se_resnet20",
        "parameters",
        "MACs",
        "top-1 / top-5",
        "images/s",
        "waiting for data",
        "runs/se_resnet20-digits",
        "excite test runs/se_resnet20-digits",
        "excite train --resume",
    ):
        assert part in out
    assert Path("runs/se_resnet20-digits/summary.json").is_file()


def test_train_json(tmp_path, capsys):
    assert main(["train", *TINY, "--out", str(tmp_path / "r"), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["recipe"] == "digits"
    assert summary["train_images"] == 48


def test_print_config_shows_recipe_and_overrides(capsys):
    assert main(["train", "eca_resnet50_cifar", "--data", "cifar10", "--lr", "0.3", "--print_config"]) == 0
    out = capsys.readouterr().out
    for line in ("model: eca_resnet50_cifar", "recipe: emanet-cifar10", "lr: 0.3", "batch_size: 120", "padding: 4"):
        assert line in out


def test_config_file_chooses_the_recipe(tmp_path, capsys):
    file = tmp_path / "c.yaml"
    file.write_text("recipe: modern\nmodel: eca_resnet18\nepochs: 7\n")
    assert main(["train", "--config", str(file), "--print_config"]) == 0
    out = capsys.readouterr().out
    for line in ("model: eca_resnet18", "recipe: modern", "epochs: 7", "label_smoothing: 0.1", "ema: 0.9999"):
        assert line in out


def test_resume_takes_the_options_of_the_run(run, capsys):
    assert main(["train", "--resume", str(run), "--epochs", "2"]) == 0
    assert "epoch 2/2" in capsys.readouterr().out
    assert len((run / "metrics.csv").read_text().splitlines()) == 3
    assert main(["train", "--resume", "/nowhere"]) == 2
    assert "/nowhere is not a run directory" in capsys.readouterr().err


def test_test_prints_a_table_and_draws_the_confusion(run, capsys):
    (run / "confusion.png").unlink(missing_ok=True)
    assert main(["test", str(run), "--limit", "50"]) == 0
    out = capsys.readouterr().out
    assert "top-1" in out
    assert "50 images" in out
    assert out.count("%") >= 12
    assert (run / "confusion.png").read_bytes().startswith(b"\x89PNG")
    assert main(["test", str(run / "checkpoints/best.ckpt"), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["images"] == 360
    assert sum(map(sum, result["confusion"])) == 360
    right = sum(result["confusion"][i][i] for i in range(10))
    assert result["top1"] == pytest.approx(right / 360)
    assert [row["class"] for row in result["per_class"]] == list("0123456789")


def test_test_agrees_with_training(run, capsys):
    assert main(["test", str(run / "checkpoints/last.ckpt"), "--limit", "20", "--json"]) == 0
    rows = (run / "metrics.csv").read_text().splitlines()
    last = dict(zip(rows[0].split(","), rows[-1].split(","), strict=True))
    result = json.loads(capsys.readouterr().out)
    assert result["top1"] == pytest.approx(float(last["val_top1"]))
    assert result["loss"] == pytest.approx(float(last["val_loss"]), rel=1e-4)


def test_predict_files_folders_and_globs(run, capsys):
    samples = sorted((run / "samples").glob("*.png"))
    assert main(["predict", str(run), str(run / "samples"), str(samples[0]), "--top", "3"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert len(out) == len(samples)
    assert out[0].startswith(str(samples[0]))
    assert out[0].count("%") == 3
    assert main(["predict", str(run), f"{run}/samples/[0-4].png", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [Path(r["image"]).name for r in result["predictions"]] == [f"{i}.png" for i in range(5)]
    for row in result["predictions"]:
        chances = [g["probability"] for g in row["classes"]]
        assert chances == sorted(chances, reverse=True)
        assert sum(chances) <= 1.0001


def test_predict_agrees_with_the_network(run, capsys):
    from excite.checkpoints.bundle import load_bundle
    from excite.data import open_data

    assert main(["predict", str(run), f"{run}/samples/3.png", "--top", "1", "--json"]) == 0
    got = json.loads(capsys.readouterr().out)["predictions"][0]["classes"][0]
    model, card = load_bundle(run)
    val = open_data("digits", limit_val=20).val
    image = val.images[val.labels == 3][:1].float() / 255
    how = card.preprocess
    with torch.no_grad():
        best = model((image - how["mean"][0]) / how["std"][0]).softmax(1)[0]
    assert got["class"] == card.class_names[int(best.argmax())]
    assert got["probability"] == pytest.approx(float(best.max()), rel=1e-4)


def test_every_image_has_its_own_prediction(run, capsys):
    pictures = [str(path) for path in sorted((run / "samples").glob("*.png"))[:3]]
    alone = []
    for picture in pictures:
        assert main(["predict", str(run), picture, "--json"]) == 0
        alone += json.loads(capsys.readouterr().out)["predictions"]
    assert main(["predict", str(run), *pictures, "--json"]) == 0
    together = json.loads(capsys.readouterr().out)["predictions"]
    best = [[one["classes"][0]["probability"] for one in some] for some in (alone, together)]
    assert best[1] == pytest.approx(best[0], rel=1e-4)
    assert best[0][0] != pytest.approx(best[0][2], rel=1e-3)
    for one, other in zip(alone, together, strict=True):
        assert {**one, "classes": 0} == {**other, "classes": 0}


@pytest.mark.parametrize("mode", ["L", "RGBA", "I;16"])
def test_predict_takes_1_and_4_channels(run, tmp_path, capsys, mode):
    grey = Image.open(run / "samples" / "3.png").convert("L")
    image = grey.point(lambda v: v * 256, "I").convert("I;16") if mode == "I;16" else grey.convert(mode)
    grey.convert("RGB").save(tmp_path / "a.png")
    image.save(tmp_path / "b.png")
    assert main(["predict", str(run), str(tmp_path), "--json"]) == 0
    rgb, other = json.loads(capsys.readouterr().out)["predictions"]
    assert rgb["classes"][0]["class"] == other["classes"][0]["class"]
    assert rgb["classes"][0]["probability"] == pytest.approx(other["classes"][0]["probability"], rel=1e-3)


def test_predict_unreadable(run, tmp_path, capsys):
    (tmp_path / "a.png").write_text("broken")
    (run / "samples" / "3.png").read_bytes()
    (tmp_path / "b.png").write_bytes((run / "samples" / "3.png").read_bytes())
    assert main(["predict", str(run), str(tmp_path)]) == 1
    err = capsys.readouterr().err
    assert "a.png" in err
    assert "--skip-unreadable" in err
    assert main(["predict", str(run), str(tmp_path), "--skip-unreadable"]) == 0
    out = capsys.readouterr().out
    assert "1 unreadable image passed over" in out
    assert "b.png" in out


def test_unreadable_image_in_a_test_set(run, tmp_path, capsys):
    root = image_folder(tmp_path / "two")
    assert main(["train", "--data", f"imagefolder:{root}", "--size", "16", "--resize", "16", "--epochs", "1",
                 "--batch-size", "2", "--out", str(tmp_path / "r"), "--quiet", "--recipe", "digits"]) == 0  # fmt: skip
    (root / "val/dog/0.png").write_text("broken")
    capsys.readouterr()
    assert main(["test", str(tmp_path / "r")]) == 1
    assert "val/dog/0.png" in capsys.readouterr().err
    assert main(["test", str(tmp_path / "r"), "--skip-unreadable"]) == 0
    out = capsys.readouterr().out
    assert "1 unreadable image passed over" in out
    assert "5 images" in out


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["train", "eca_resnet21"], 2, ["eca_resnet20"]),
        (["train", "ecs_resnet20"], 2, ["unknown model 'ecs_resnet20'", "eca_resnet20"]),
        (["train", "--attach", "ecaa", "torchvision/resnet18"], 2, ["ecaa", "eca"]),
        (["train", "--recipe", "modem"], 2, ["unknown recipe 'modem'", "'modern'"]),
        (["train", "--data", "digts"], 2, ["'digts'", "'digits'"]),
        (["train", "--data", "imagefolder:/nowhere"], 2, ["no folder /nowhere"]),
        (["train", "--schedule", "cosin"], 2, ["cosin"]),
        (["train", "--learning-rate", "1"], 2, ["--learning-rate"]),
        (["train", "--epochs", "none"], 2, ["epochs"]),
        (["train", "timm/resnet5"], 2, ["unknown timm model", "resnet50"]),
        (["train", "nowhere.py:net"], 2, ["no file 'nowhere.py'"]),
        (["test", "/nowhere"], 2, ["no checkpoint '/nowhere'"]),
        (["test", "{run}", "--data", "digts"], 2, ["'digits'"]),
        (["test", "{run}", "--model", "se_resnet20"], 1, ["attention.gate.reduce.weight", "does not fit"]),
        (["test", "{run}", "--data", "parquet:{parquet}"], 2, ["knows 10 classes", "has 2"]),
        (["test", "{run}", "--batch-size", "0"], 2, ["--batch-size"]),
        (["predict", "{run}", "/nowhere.png"], 2, ["no image /nowhere.png"]),
        (["predict", "{run}"], 2, ["IMAGE"]),
        (["predict", "{run}", "{empty}"], 2, ["holds no images"]),
        (["list", "modells"], 2, ["modells"]),
        (["list", "methods", "zz*"], 2, ["matches 'zz*'"]),
        (["list", "modells", "eca*"], 2, ["'modells' is none of all, methods"]),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else None,
)
def test_bad_input(run, tmp_path, capsys, monkeypatch, argv, code, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    places = {"run": run, "empty": tmp_path / "empty", "parquet": tmp_path / "set"}
    if any("{parquet}" in a for a in argv):
        parquet_set(tmp_path / "set")
    assert main([a.format(**places) for a in argv]) == code
    err = capsys.readouterr().err
    assert err.startswith("excite: error: ")
    for word in words:
        assert word in err
    assert not (tmp_path / "runs").exists()


def test_existing_output_directory(run, capsys):
    assert main(["train", "--out", str(run)]) == 2
    err = capsys.readouterr().err
    for word in (str(run), "--resume", "--overwrite"):
        assert word in err


def test_non_finite_loss_exits_1(tmp_path, capsys):
    assert main(["train", *TINY, "--limit-train", "160", "--lr", "1e30", "--out", str(tmp_path / "r"), "--quiet"]) == 1
    assert "the loss is not finite at step" in capsys.readouterr().err


def test_list_looks_for_a_pattern_everywhere(capsys):
    assert main(["list", "*shape*"]) == 0
    assert "shapes  " in capsys.readouterr().out
    assert main(["list", "eca_resnet1*", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert "eca_resnet101" in found["models"]
    assert found["methods"] == []


def test_list_counts(capsys):
    from excite import recipes
    from excite.backbones.names import list_models
    from excite.registry import METHODS

    assert main(["list"]) == 0
    out = capsys.readouterr().out
    assert f"{len(METHODS)} methods" in out
    assert f"{len(recipes.names())} recipes" in out
    assert f"{len(list_models('*'))} models" in out
    assert main(["list", "models", "eca_resnet??", "--json"]) == 0
    assert "eca_resnet50" in json.loads(capsys.readouterr().out)["models"]
