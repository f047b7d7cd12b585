"""Runs end to end: train, resume, test, predict; the command line; what is refused."""

import csv
import json
import multiprocessing

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from captured import capture_compiled
from excite.cli.main import main
from excite.detect import data
from excite.detect.checkpoint import load_detector
from excite.detect.config import DetectConfig
from excite.detect.evaluate import detect
from excite.detect.fit import fit, result_of
from excite.engine.history import History
from excite.errors import ExciteError, UsageError

TINY = {
    "stem": "imagenet", "shortcut": "projection", "width": 8, "neck_channels": 16, "head_channels": 16,
    "mask_channels": 8, "anchor_sizes": [8, 16, 32, 64], "rpn_post_nms_top_n_train": 20,
    "rpn_post_nms_top_n_test": 20, "box_batch_size_per_image": 16, "box_score_thresh": 0.01,
}  # fmt: skip


def config(out, **changes):
    values = {
        "kind": "mask_rcnn", "data": "shapes:size=64,train=8,val=4", "options": TINY, "min_size": [64], "max_size": 64,
        "epochs": 2, "batch_size": 4, "lr": 0.002, "optimizer": "adamw", "schedule": "cosine", "warmup_steps": 0,
        "workers": 0, "device": "cpu", "quiet": True, "pictures": 1, "out": str(out), **changes,
    }  # fmt: skip
    return DetectConfig(**values)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return fit(config(tmp_path_factory.mktemp("runs") / "whole"))


def weights(path):
    return torch.load(path, weights_only=True)["state_dict"]


def test_a_run_leaves_everything(run):
    for name in ("config.yaml", "summary.json", "curves.png", "results_val.json", "metrics_val.json", "pr_val.png"):
        assert (run.run / name).stat().st_size > 0, name
    rows = list(csv.DictReader((run.run / "metrics.csv").open()))
    assert [r["epoch"] for r in rows] == ["1", "2"]
    assert {"loss", "mask", "classifier", "box_reg", "objectness", "box_AP50", "mask_AP50"} <= set(rows[0])
    assert float(rows[1]["loss"]) < float(rows[0]["loss"])
    assert (run.run / "pictures" / "val_00000.jpg").is_file()
    summary = json.loads((run.run / "summary.json").read_text())
    assert summary["metrics"]["mask"]["AP"] >= 0
    assert summary["result"] == "best epoch on the validation split: optimistic; another split measures it"
    assert run.run / summary["checkpoint"] == run.best
    assert summary["train_images"] == 8
    for result in json.loads((run.run / "results_val.json").read_text())[:3]:
        assert {"image_id", "category_id", "bbox", "score", "segmentation"} == set(result)


@pytest.mark.parametrize(
    ("split", "scores", "which", "best", "words"),
    [
        ("val", [0.1, 0.3, 0.2], "best", 2, "best epoch on the validation split: optimistic"),
        ("val2017", [0.1, None, 0.05], "best", 1, "best epoch on the val2017 split: optimistic"),
        ("test", [0.1, 0.3, 0.2], "last", 2, "last epoch on the test split"),
        ("test2007", [0.1, 0.3, 0.2], "last", 2, "last epoch on the test2007 split"),
        ("none", [None, None, None], "last", None, "last epoch"),
    ],
)
def test_the_result_is_not_chosen_on_the_images_it_is_measured_on(split, scores, which, best, words):
    rows = [{"epoch": i + 1, **({} if s is None else {"box_AP": s})} for i, s in enumerate(scores)]
    outcome = result_of(config("unused", val_split=split), rows, lambda row: row.get("box_AP"))
    assert outcome["checkpoint"] == f"checkpoints/{which}.ckpt"
    assert outcome["best_epoch"] == best
    assert outcome["selects"] == (which == "best")
    assert outcome["result"].startswith(words)
    assert ("optimistic" in outcome["result"]) == (which == "best")


def test_an_interrupted_run_goes_on_to_the_same_weights(run, tmp_path, monkeypatch):
    class StopError(Exception):
        pass

    def stop(self, trainer, module):
        original(self, trainer, module)
        if trainer.current_epoch == 1:
            raise StopError

    out = tmp_path / "cut"
    original = History.on_train_epoch_start
    monkeypatch.setattr(History, "on_train_epoch_start", stop)
    with pytest.raises(StopError):
        fit(config(out))
    monkeypatch.undo()
    fit(config(None, resume=str(out)))
    whole, cut = (weights(path / "checkpoints" / "last.ckpt") for path in (run.run, out))
    assert whole.keys() == cut.keys()
    for key, value in whole.items():
        assert torch.equal(value, cut[key]), key
    assert len(list(csv.DictReader((out / "metrics.csv").open()))) == 2


def test_the_checkpoint_holds_the_detector(run):
    detector, values = load_detector(run.run)
    assert detector.excite_card.class_names == ["disc", "square", "triangle", "ring"]
    assert values["kind"] == "mask_rcnn"
    state = weights(run.best)
    assert all(torch.equal(v, state[f"detector.{k}"]) for k, v in detector.state_dict().items())
    assert not detector.training


def test_testing_repeats_the_figures_of_the_run(run, tmp_path, capsys):
    assert main(["detect", "test", str(run.run), "--out", str(tmp_path), "--pictures", "0", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["box"]["AP"] == pytest.approx(run.metrics["box"]["AP"], abs=1e-9)
    assert report["images"] == 4
    file = tmp_path / "results_val.json"
    spec = "shapes:size=64,train=8,val=4"
    call = ["detect", "test", "--results", str(file), "--data", spec, "--masks", "--pictures", "0"]
    assert main([*call, "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["mask"] == report["mask"]
    assert main(call) == 0
    assert "voc AP50" in capsys.readouterr().out


def test_predict_draws_files_and_folders(run, tmp_path, capsys):
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    for name in ("a.png", "sub/a.png"):
        Image.fromarray(pixels).save(folder / name)
    out = tmp_path / "out"
    call = ["detect", "predict", str(run.run), str(folder), "--threshold", "0.0", "--out", str(out), "--json"]
    assert main(call) == 0
    report = json.loads(capsys.readouterr().out)
    rows = report["predictions"]
    assert (report["images"], report["out"], len(report["files"])) == (2, str(out), 3)
    assert [r["image"] for r in rows] == [str(folder / "a.png"), str(folder / "sub" / "a.png")]
    assert {p.name for p in out.glob("*.jpg")} == {"a.jpg", "a-2.jpg"}
    assert rows[0]["objects"]
    assert rows[0]["objects"][0]["name"] in ("disc", "square", "triangle", "ring")
    assert "mask" in rows[0]["objects"][0]
    assert json.loads((out / "predictions.json").read_text()) == rows
    (folder / "broken.jpg").write_bytes(b"x")
    assert main(["detect", "predict", str(run.run), str(folder / "broken.jpg"), "--out", str(out)]) == 1
    assert "broken.jpg cannot be read" in capsys.readouterr().err
    assert main(["detect", "predict", str(run.run), str(folder / "none.jpg")]) == 2


def test_a_backbone_can_be_held_at_first(tmp_path):
    result = fit(config(tmp_path / "a", kind="faster_rcnn", epochs=1, freeze_backbone_epochs=1, val_split="none"))
    torch.manual_seed(0)
    import lightning as L

    from excite.detect.fit import build

    L.seed_everything(0, verbose=False)
    fresh = build(config(tmp_path / "b", kind="faster_rcnn"), ["disc", "square", "triangle", "ring"]).state_dict()
    trained = load_detector(result.run)[0].state_dict()
    same = {k for k in fresh if torch.equal(fresh[k], trained[k])}
    assert {k for k in fresh if k.startswith("backbone.body.")} <= same
    assert "backbone.fpn.inner_blocks.0.0.weight" not in same


def test_ema_multi_scale_and_init(run, tmp_path):
    changes = {"init": str(run.run), "epochs": 1, "ema": 0.9, "min_size": [48, 64], "colour": 0.2, "vertical_flip": 0.5}
    result = fit(config(tmp_path / "a", val_every=1, clip=5.0, lr=1e-9, **changes))
    start, end = weights(run.best), weights(result.best)
    key = "detector.backbone.fpn.inner_blocks.0.0.weight"
    torch.testing.assert_close(start[key], end[key], atol=1e-5, rtol=0)


def test_recipes_read_and_say_their_command():
    from excite.recipes import detection as recipes

    assert recipes.names() == ["ecanet-coco-1x", "emanet-voc", "shapes", "small"]
    for name in recipes.names():
        DetectConfig.from_recipe(name).check()
        assert "# command:  excite detect train" in recipes.text(name)
        assert "# expected:" in recipes.text(name)
    one = DetectConfig.from_recipe("ecanet-coco-1x")
    assert (one.lr, one.batch_size, one.epochs, one.milestones) == (0.01, 8, 12, [8, 11])
    assert (one.min_size, one.max_size, one.frozen_stages) == ([800], 1333, 1)
    voc = DetectConfig.from_recipe("emanet-voc")
    assert (voc.neck, voc.min_size, voc.optimizer, voc.lr) == ("c4", [600], "adam", 1e-4)
    assert (voc.epochs, voc.freeze_backbone_epochs, voc.schedule) == (100, 50, "cosine")


@pytest.mark.parametrize("name", ["ecanet-coco-1x", "emanet-voc", "shapes", "small"])
def test_recipes_build_their_detector(name):
    from excite.detect.fit import build

    with torch.device("meta"):
        model = build(DetectConfig.from_recipe(name), ["a", "b"])
    assert model.excite_card.num_classes == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "0"], "--epochs must be at least 1"),
        (["--lr", "0"], "--lr must be more than 0"),
        (["--flip", "2"], "--flip must be in [0, 1]"),
        (["--ema", "1"], "--ema must be in [0, 1)"),
        (["--min-size", "100", "--max-size", "50"], "is more than --max-size"),
        (["--recipe", "shape"], "did you mean 'shapes'"),
        (["--kind", "yolo"], "yolo"),
        (["--data", "coco:/nowhere"], "no folder"),
        (["--precision", "fp16", "--device", "cpu"], "needs a GPU"),
        (["--resume", "/nowhere"], "not a run directory"),
        (["--init", "/nowhere/x.ckpt"], "no checkpoint"),
        (["--kind", "mask_rcnn", "--neck", "c4"], "needs neck='fpn'"),
        (["--train-split", "tests"], "unknown split"),
        (["--options", '{"box_score_thres": 0.1}'], "box_score_thresh"),
        (["--epoch", "3"], "did you mean --epochs"),
    ],
)
def test_wrong_usage_exits_with_two(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["detect", "train", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.ckpt"))


def test_a_used_directory_is_not_overwritten(run, capsys):
    assert main(["detect", "train", "--out", str(run.run)]) == 2
    assert "is not empty" in capsys.readouterr().err


def voc_folder(path, names):
    for folder in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (path / folder).mkdir(parents=True, exist_ok=True)
    things = "".join(
        f"<object><name>{n}</name><bndbox><xmin>{5 + i}</xmin><ymin>5</ymin><xmax>30</xmax><ymax>30</ymax></bndbox>"
        "</object>"
        for i, n in enumerate(names)
    )
    size = "<size><width>64</width><height>64</height></size>"
    (path / "Annotations" / "one.xml").write_text(f"<annotation>{size}{things}</annotation>")
    (path / "ImageSets" / "Main" / "val.txt").write_text("one\n")
    (path / "ImageSets" / "Main" / "train.txt").write_text("one\n")
    Image.new("RGB", (64, 64)).save(path / "JPEGImages" / "one.jpg")
    return f"voc:{path}"


def test_categories_must_agree_with_the_checkpoint(tmp_path, capsys):
    first = voc_folder(tmp_path / "first", ["cat", "dog"])
    result = fit(config(tmp_path / "run", kind="faster_rcnn", data=first, epochs=1, batch_size=1))
    more = voc_folder(tmp_path / "more", ["cat", "dog", "emu"])
    assert main(["detect", "test", str(result.run), "--data", more]) == 2
    assert "has 2 categories (cat, dog)" in capsys.readouterr().err
    other = voc_folder(tmp_path / "other", ["cat", "cow"])
    assert main(["detect", "test", str(result.run), "--data", other]) == 2
    assert "calls a category 'dog'" in capsys.readouterr().err
    with pytest.raises(UsageError, match="they must agree"):
        fit(config(tmp_path / "next", kind="faster_rcnn", data=more, init=str(result.run)))


def test_files_that_are_no_detector(tmp_path, capsys):
    torch.save({"excite": {"name": "resnet20"}, "state_dict": {}}, tmp_path / "classifier.ckpt")
    with pytest.raises(ExciteError, match="holds a classifier"):
        load_detector(tmp_path / "classifier.ckpt")
    (tmp_path / "broken.ckpt").write_bytes(b"PK broken")
    with pytest.raises(ExciteError, match="cannot read checkpoint"):
        load_detector(tmp_path / "broken.ckpt")
    assert main(["detect", "test"]) == 2
    assert main(["detect", "test", "--results", "x.json"]) == 2
    assert "--results needs --data" in capsys.readouterr().err


def test_a_split_without_objects_cannot_be_learned(tmp_path):
    spec = voc_folder(tmp_path / "data", ["cat"])
    (tmp_path / "data" / "Annotations" / "two.xml").write_text(
        "<annotation><size><width>64</width><height>64</height></size></annotation>"
    )
    Image.new("RGB", (64, 64)).save(tmp_path / "data" / "JPEGImages" / "two.jpg")
    (tmp_path / "data" / "ImageSets" / "Main" / "train.txt").write_text("two\n")
    with pytest.raises(UsageError, match="no object to learn"):
        fit(config(tmp_path / "run", kind="faster_rcnn", data=spec))


def test_a_loss_that_explodes_is_named(tmp_path):
    with pytest.raises(ExciteError, match=r"not finite at step \d \(epoch"):
        fit(config(tmp_path / "a", kind="faster_rcnn", lr=1e20, optimizer="sgd", epochs=3))


def test_coco_tiny_end_to_end(shared_data, tmp_path, capsys):
    root = shared_data / "coco_tiny"
    values = config(tmp_path / "run", data=f"coco:{root}", limit_train=2, limit_val=3, epochs=1, batch_size=2)
    result = fit(values)
    assert result.summary["val_images"] == 3
    assert {"box", "mask", "voc"} == set(result.metrics)
    assert (
        main(
            [
                "detect",
                "predict",
                str(result.run),
                str(root / "val2017" / "000000005001.jpg"),
                "--out",
                str(tmp_path / "p"),
                "--threshold",
                "0.0",
            ]
        )
        == 0
    )
    assert (tmp_path / "p" / "000000005001.jpg").is_file()


def test_the_configuration_of_a_run_repeats_it(run):
    values = yaml.safe_load((run.run / "config.yaml").read_text())
    assert "out" not in values
    assert DetectConfig(**values).options == TINY


@pytest.mark.parametrize(
    "changes",
    [
        {"accumulate": 2},
        {"limit_batches": 1},
        {"nesterov": True, "optimizer": "sgd"},
        {"schedule": "exponential", "step_epochs": 0.5, "gamma": 0.5},
        {"warmup_epochs": 1.0},
        {"channels_last": True},
        {"deterministic": True},
    ],
    ids=lambda c: next(iter(c)),
)
def test_switches_change_the_run(tmp_path, changes):
    """What classification runs can be told, detection runs can be told too."""
    common = {"kind": "faster_rcnn", "val_split": "none", "epochs": 2 if "schedule" in changes else 1, "seed": 3}
    if "nesterov" in changes:
        common["optimizer"] = "sgd"
    base, changed = (fit(config(tmp_path / n, **common | c)).rows[-1] for n, c in (("a", {}), ("b", changes)))
    if next(iter(changes)) in ("channels_last", "deterministic"):
        assert changed["loss"] == pytest.approx(base["loss"], rel=1e-3)
    else:
        assert changed["loss"] != base["loss"] or changed["lr"] != base["lr"]
        key = "detector.backbone.fpn.inner_blocks.0.0.weight"
        assert not torch.equal(*(weights(tmp_path / n / "checkpoints/last.ckpt")[key] for n in ("a", "b")))


def test_a_compiled_run_is_the_same_run(tmp_path, monkeypatch):
    """Its backbone runs as graphs, and its weights keep their names."""
    short = {"kind": "faster_rcnn", "val_split": "none", "epochs": 1, "limit_batches": 2}
    plain = fit(config(tmp_path / "plain", **short))
    captured = capture_compiled(monkeypatch)
    result = fit(config(tmp_path / "a", compile=True, **short))
    assert any("conv2d" in name for name in captured.operations())
    assert captured.runs >= 2
    assert result.rows[0]["loss"] == pytest.approx(plain.rows[0]["loss"], rel=1e-3)
    files = [tmp_path / name / "checkpoints/last.ckpt" for name in ("plain", "a")]
    assert weights(files[0]).keys() == weights(files[1]).keys()
    load_detector(result.run)


def test_unreadable_images_are_named_or_left_out(tmp_path):
    spec = voc_folder(tmp_path / "data", ["cat"])
    root = tmp_path / "data"
    (root / "Annotations" / "two.xml").write_text((root / "Annotations" / "one.xml").read_text())
    (root / "JPEGImages" / "two.jpg").write_bytes(b"broken")
    (root / "ImageSets" / "Main" / "train.txt").write_text("one\ntwo\n")
    values = {"kind": "faster_rcnn", "data": spec, "epochs": 1, "batch_size": 1, "val_split": "none"}
    for workers in (0, 1):
        with pytest.raises(ExciteError, match=r"^image .*two\.jpg cannot be read.*--skip-unreadable$"):
            fit(config(tmp_path / f"a{workers}", **values | {"workers": workers}))
        assert not multiprocessing.active_children()
    result = fit(config(tmp_path / "b", **values, skip_unreadable=True))
    assert (result.summary["train_images"], result.summary["skipped"]) == (1, 1)
    assert "two.jpg" in (tmp_path / "b" / "skipped.txt").read_text()


def test_reading_processes_name_an_image_that_cannot_be_read(tmp_path):
    spec = voc_folder(tmp_path / "data", ["cat"])
    (tmp_path / "data" / "JPEGImages" / "one.jpg").write_bytes(b"broken")
    for workers in (0, 1):
        with pytest.raises(ExciteError, match=r"^image [^\n]*one\.jpg cannot be read[^\n]*$"):
            detect(torch.nn.Identity(), data.open_split(spec, "train"), workers=workers)
        assert not multiprocessing.active_children()
