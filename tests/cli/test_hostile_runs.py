"""Run directories, recipes, configurations, comparisons and data of strangers: one line, and no code of theirs."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from excite.cli.main import main
from excite.comparison.cost import Cost
from excite.comparison.cost import read as read_costs
from excite.comparison.results import collect
from excite.data import open_data
from excite.detect.config import DetectConfig
from excite.errors import ExciteError
from excite.train.config import TrainConfig

ODD: dict[str, Any] = {
    "list": [[1]],
    "mapping": {"a": 1},
    "text": "\x1b[31mno such word",
    "nan": float("nan"),
    "infinity": float("inf"),
    "huge": 10**400,
    "negative": -(10**9),
    "date": "2020-01-01",
    "true": True,
    "none": None,
}
LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{chr(ord(name) - 1)}'] * 9)}]\n" for name in "bcdefghi"
)
BROKEN = ["", "[", "7", "- a", "a: b: c", "? [a]", "1: 2", "2020-99-99", "epochs: 2020-99-99", "\x00", "a: *b", LAUGHS,
          "!!python/object/apply:os.system [exit]", "{" * 900]  # fmt: skip


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    file = tmp_path / "own.py"
    file.write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    return file


def one_line(capsys: pytest.CaptureFixture[str], words: list[object], codes: tuple[int, ...] = (1, 2)) -> str:
    code = main([str(word) for word in words])
    captured = capsys.readouterr()
    assert code in codes, captured
    assert len(captured.err.strip().splitlines()) == 1, captured.err
    assert "\x1b" not in captured.err
    return captured.err


@pytest.mark.parametrize("kind", [TrainConfig, DetectConfig])
def test_every_option_of_a_run_may_be_anything(kind: type[TrainConfig] | type[DetectConfig], tmp_path: Path) -> None:
    refused = 0
    for name in kind().recorded():
        for odd in ODD.values():
            (tmp_path / "config.yaml").write_text(yaml.safe_dump({name: odd}))
            try:
                kind.from_run(tmp_path).check()
            except ExciteError as error:
                reason = str(error)
            else:
                continue
            refused += 1
            assert len(reason.splitlines()) == 1
            assert len(reason) < 600
    assert refused > 7 * len(kind().recorded())


@pytest.mark.parametrize("text", BROKEN, ids=range(len(BROKEN)))
def test_files_of_options_of_every_broken_kind(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.yaml").write_text(text)
    for kind in (["train"], ["detect", "train"]):
        assert "config.yaml" in one_line(capsys, [*kind, "--resume", tmp_path])
        assert "config.yaml" in one_line(capsys, [*kind, "--recipe", tmp_path / "config.yaml", "--out", tmp_path / "o"])
        assert "config.yaml" in one_line(capsys, [*kind, "--config", tmp_path / "config.yaml", "--out", tmp_path / "o"])
    (tmp_path / "config.yaml").write_bytes(b"\xff\xfe\xfd")
    one_line(capsys, ["train", "--resume", tmp_path])


def test_no_file_of_options_names_code(trap: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "options.yaml"
    code = f"{trap}:net"
    table: list[tuple[dict[str, Any], list[object]]] = [
        ({"model": code}, ["train", "--config", file]),
        ({"model": code}, ["export", "--config", file]),
        ({"model": code}, ["train", "--recipe", file]),
        ({"models": [code]}, ["profile", "--config", file]),
        ({"models": ["resnet20", code]}, ["bench", "--config", file]),
        ({"backbone": code}, ["compare", "--config", file]),
        ({"backbone": code}, ["detect", "train", "--config", file]),
        ({"backbone": code}, ["detect", "train", "--recipe", file]),
        ({"checkpoint": f"random:{code}"}, ["explain", "--config", file]),
        ({"checkpoints": [f"random:{code}"]}, ["robustness", "--config", file]),
    ]
    for values, words in table:
        file.write_text(yaml.safe_dump(values))
        if words[1] == "--recipe" and words[0] == "train":  # a network comes from the command line, or is the usual one
            words = [*words, "--epochs", 0]
        said = one_line(capsys, words)
        assert "names the Python file" in said or "at least 1" in said, words
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "change",
    [{"methods": []}, {"methods": ["../../x"]}, {"methods": [1]}, {"methods": "se"}, {"seeds": -1}, {"seeds": 10**9},
     {"seeds": True}, {"seeds": "3"}, {"backbone": 3}, {"data": None}, {"changes": [1]}, {"options": {"se": 1}},
     {"options": {"no_such": {}}}, {"more": 1}, {"recipe": {}}],
    ids=str,
)  # fmt: skip
def test_plans_of_every_broken_kind(change: dict[str, Any], tmp_path: Path) -> None:
    plan = {"methods": ["none", "se"], "backbone": "resnet20", "data": "digits", "seeds": 1}
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    assert collect(tmp_path).finished == 0
    (tmp_path / "plan.json").write_text(json.dumps(plan | change))
    with pytest.raises(ExciteError, match=r"plan\.json is broken"):
        collect(tmp_path)


def test_a_plan_runs_no_code(trap: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = {"methods": ["none", "se"], "backbone": f"{trap}:net", "data": "digits", "seeds": 1}
    folder = tmp_path / "cmp"
    folder.mkdir()
    (folder / "plan.json").write_text(json.dumps(plan))
    main(["compare", "--report", str(folder)])
    main(["compare", "--out", str(folder), "--methods", "none,se", "--seeds", "1"])
    capsys.readouterr()
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "file", ["plan.json", "cost.json", "runs/none-seed0/summary.json", "runs/none-seed0/metrics.csv"]
)
def test_files_of_a_comparison_of_every_broken_kind(
    file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "runs/none-seed0"
    run.mkdir(parents=True)
    plan = {"methods": ["none"], "backbone": "resnet20", "data": "<script>\x1b[31m", "recipe": "digits", "seeds": 1}
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    (run / "summary.json").write_text(json.dumps({"last_top1": 0.5, "last_top5": 0.9, "seconds": 1.0}))
    (run / "metrics.csv").write_text("epoch,train_loss,val_top1\n1,0.5,0.5\n")
    assert main(["compare", "--report", str(tmp_path)]) == 0
    assert "\x1b" not in capsys.readouterr().out
    assert "<script>\x1b" not in (tmp_path / "report.html").read_text()
    assert "<script>" not in (tmp_path / "report.html").read_text().replace("<script>\n", "", 1)
    for text in (
        "",
        "[",
        "[]",
        "null",
        "{}",
        '{"a": 1}',
        "\x00",
        "9" * 5000,
        "[" * 100_000,
        '{"costs": 1}',
        "epoch\n1\n",
    ):
        (tmp_path / file).write_text(text)
        assert Path(file).name in one_line(capsys, ["compare", "--report", tmp_path])


def test_costs_of_every_broken_kind(tmp_path: Path) -> None:
    cost: dict[str, Any] = dict.fromkeys(Cost.__annotations__, 1.0)
    cost |= {name: [1, 1] for name in cost if name.endswith("_spread")}
    machine = {"processor": "x", "threads": 1}
    file = tmp_path / "cost.json"
    file.write_text(json.dumps({"costs": {"none": cost}, "environment": machine}))
    known = read_costs(tmp_path)
    assert known is not None
    assert known["costs"] == {"none": cost}
    for name in cost:
        for odd in (None, "x", [1], {}, float("nan"), True, 10**400):
            file.write_text(json.dumps({"costs": {"none": cost | {name: odd}}, "environment": machine}))
            with pytest.raises(ExciteError, match=r"cost\.json is broken"):
                read_costs(tmp_path)
    for odd in (None, [], {}, {"threads": 1}):
        file.write_text(json.dumps({"costs": {"none": cost}, "environment": odd}))
        with pytest.raises(ExciteError, match=r"cost\.json is broken: its environment"):
            read_costs(tmp_path)


def png(colour: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (colour, 0, 0)).save(buffer, "png")
    return buffer.getvalue()


def shard(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def test_samples_of_shards_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    pytest.importorskip("webdataset")
    files: dict[str, bytes] = {}
    for label, folder in enumerate(("cat", "dog")):
        for i in range(3):
            files |= {f"{folder}/000{i}.png": png(40 * i + label), f"{folder}/000{i}.cls": str(label).encode()}
    for split in ("train", "val"):
        shard(tmp_path / f"{split}-0.tar", files)
    bundle = open_data(f"wds:{tmp_path}/{{train,val}}-0.tar")
    assert len(bundle.train) == 6
    assert [bundle.train[i][1] for i in range(6)] == [0, 0, 0, 1, 1, 1]
    assert len({bundle.train[i][0].getpixel((0, 0)) for i in range(6)}) == 6
    assert bundle.train.name(3).endswith(":dog/0000")


@pytest.mark.parametrize(
    ("suffix", "label"),
    [("cls", b""), ("cls", b"-1"), ("cls", b"1e3"), ("cls", b"1000000000000"), ("cls", b"9" * 5000), ("cls", b"\xff"),
     ("json", b"["), ("json", b"[]"), ("json", b'{"label": "1"}'), ("json", b'{"label": 1.5}'), ("json", b"[" * 99_999),
     ("json", b'{"label": true}'), ("json", b" " * 2**21)],
    ids=range(13),
)  # fmt: skip
def test_labels_of_shards_of_every_broken_kind(suffix: str, label: bytes, tmp_path: Path) -> None:
    pytest.importorskip("webdataset")
    for split in ("train", "val"):
        shard(tmp_path / f"{split}-0.tar", {"a.png": png(1), f"a.{suffix}": label})
    with pytest.raises(ExciteError, match="cannot read shard") as caught:
        open_data(f"wds:{tmp_path}/{{train,val}}-0.tar")
    assert len(str(caught.value)) < 500


def test_a_folder_of_save_to_disk_is_read_by_its_library(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    rows = {"image": [{"bytes": png(i), "path": None} for i in range(4)], "label": [0, 1, 0, -1]}
    split = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict({"train": split, "test": split}).save_to_disk(tmp_path / "set")
    saved = datasets.load_from_disk(tmp_path / "set")
    saved["train"].map(lambda row: {"again": 1})  # leaves a file of the library's own beside the data
    bundle = open_data(f"hfds:{tmp_path / 'set'}")
    assert len(bundle.train) == 4
    assert bundle.class_names == ["a", "b"]
    assert bundle.train[1][1] == 1
    with pytest.raises(ExciteError, match="row 3: there is no image or no label"):
        bundle.train[3]
    split.save_to_disk(tmp_path / "single")
    alone = open_data(f"hfds:{tmp_path / 'single'}")  # a single split is divided
    assert len(alone.train) + len(alone.val) == 4


@pytest.mark.parametrize("labels", [[None, 1], ["a", None], [-1, 0], [10**9, 0], [1.5, 2.0], [True, False]], ids=str)
def test_labels_of_tables_of_every_broken_kind(labels: list[Any], tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    for split in ("train", "test"):
        table = pa.table({"image": [{"bytes": png(1)}, {"bytes": png(2)}], "label": labels})
        pq.write_table(table, tmp_path / f"{split}.parquet")
    with pytest.raises(ExciteError, match="has label"):
        open_data(f"parquet:{tmp_path}")
    for column in ([1, 2], ["a", "b"], [{"path": "a"}, {"path": "b"}]):
        pq.write_table(pa.table({"image": column, "label": [0, 1]}), tmp_path / "train.parquet")
        with pytest.raises(ExciteError, match="no encoded images"):
            open_data(f"parquet:{tmp_path}")
