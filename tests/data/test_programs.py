"""`--data my.py:factory`: data that a function in a Python file gives."""

import json
from pathlib import Path

import pytest
import yaml

import layouts as made
from excite.cli.main import main
from excite.data import open_data
from excite.errors import ExciteError, UsageError
from excite.train import TrainConfig

HEAD = """
from dataclasses import dataclass
from PIL import Image
import beside

@dataclass
class Squares:
    n: int
    classes = ("dark", "bright")

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        if index >= self.n:
            raise IndexError(index)
        return Image.new("L", (96, 80), 40 + 160 * (index % 2)), index % 2
"""
TRAIN = ["--epochs", "1", "--batch-size", "8", "--device", "cpu", "--logger", "none", "--size", "16"]


def program(root: Path, body: str, name: str = "my.py") -> str:
    (root / name).write_text(f"{HEAD}\n{body}\n")
    (root / "beside.py").write_text("COUNT = 20\n")
    return f"{root / name}:give"


def give(root: Path, what: str) -> str:
    return program(root, f"def give():\n    return {what}")


@pytest.mark.parametrize(
    ("what", "counts"),
    [
        ("Squares(beside.COUNT)", (16, 4, 4)),
        ("Squares(20), Squares(6)", (20, 6, 6)),
        ("[Squares(20), Squares(6), Squares(4)]", (20, 6, 4)),
        ("{'train': Squares(20), 'test': Squares(6)}", (20, 6, 6)),
        ("__import__('excite.data').data.open_data('digits')", (1437, 360, 360)),
        ("'digits'", (1437, 360, 360)),
        ("'digits@val=0.1'", (1295, 142, 360)),
        ("__import__('pathlib').Path('PLACE')", (10, 2, 2)),
    ],
)
def test_what_a_factory_may_give(tmp_path: Path, what: str, counts: tuple[int, int, int]) -> None:
    spec = give(tmp_path, what.replace("PLACE", made.flat(tmp_path)))
    bundle = open_data(spec)
    assert bundle.spec == spec
    assert (len(bundle.train), len(bundle.val), len(bundle.test)) == counts
    few = open_data(spec, limit_train=4, limit_val=2)
    assert (len(few.train), len(few.val)) == (4, 2)


def test_shares_are_held_out_of_what_a_factory_gives(tmp_path: Path) -> None:
    bundle = open_data(give(tmp_path, "Squares(20)") + "@val=0.1,test=0.2")
    assert (len(bundle.train), len(bundle.val), len(bundle.test)) == (14, 2, 4)
    assert len(open_data(give(tmp_path, "'digits'") + "@val=0.2").val) == 287
    with pytest.raises(UsageError, match="there is a val split already"):
        open_data(give(tmp_path, "Squares(20), Squares(6)") + "@val=0.1")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("def give(): return None", "gives None; does it end with `return`"),
        ("def give(): Squares(3)", "gives None"),
        ("def give(): return 3", "data (int) has no length or no [index]"),
        ("def give(): return iter([])", "has no length or no [index]"),
        ("def give(): return (i for i in [])", "has no length"),
        ("def give(): return Squares(0)", "the train set is empty"),
        ("def give(): return Squares(8), None", "the val set (NoneType) has no length"),
        ("def give(): return (Squares(8),) * 5", "data is 5 data sets"),
        ("def give(): return {'a': Squares(8)}", "data has the key 'a'"),
        ("def give(): return 'digts'", "did you mean 'digits'"),
        ("def give(): return '/nowhere/photos'", "there is no folder /nowhere"),
        ("def give(): return __file__ + ':give'", "a program again"),
        ("def give(root): return 3", "the factory takes root; it is called without arguments"),
        ("def give(): raise ValueError('no disk')", "the factory failed: ValueError: no disk"),
        ("def give(): import sys; sys.exit(3)", "the factory failed: SystemExit"),
        ("def give(): return __import__('torch').utils.data.DataLoader(Squares(4))", "is a DataLoader"),
        ("def give(): return [('a.jpg', 'cat')]", "has the label 'cat'; a whole number is needed"),
        ("def give(): return ['a.jpg', 'b.jpg']", "the train set is str"),
        ("give = 3", "give is int, not a function"),
        ("def gives(): return 3", "did you mean 'gives'"),
        ("import nowhere", "failed on import: ModuleNotFoundError: No module named 'nowhere'"),
        ("def give(:", "failed on import: SyntaxError"),
        ("raise SystemExit(2)", "failed on import: SystemExit"),
    ],
)
def test_what_a_factory_may_not_give(tmp_path: Path, body: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "resnet20", "--data", program(tmp_path, body), "--out", str(tmp_path / "run"), "--quiet"]
    assert main(words) in (1, 2)
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "run").exists()
    with pytest.raises(UsageError, match="no file"):
        open_data(f"{tmp_path}/other.py:give")


def test_a_run_on_what_a_factory_gives(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec, run = give(tmp_path, "Squares(20)"), str(tmp_path / "run")
    words = ["resnet20", "--data", spec, "--options.width", "4", "--workers", "1", "--out", run]
    assert main(["train", *words, *TRAIN]) == 0
    out = capsys.readouterr().out
    assert "held out 4 of 20 training images as the val split" in out
    assert f"  excite train --resume {run} --data {spec} --epochs 2" in out.splitlines()
    for command in (["test", run], ["train", "--resume", run, "--epochs", "2"], ["explain", run]):
        assert main(command) == 1, command
        error = capsys.readouterr().err
        assert "names the Python file" in error
        assert "--data FILE.py:factory" in error
        assert len(error.splitlines()) == 1
    assert main(["test", run, "--data", spec, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 4
    assert main(["train", "--resume", run, "--data", spec, "--epochs", "2", "--quiet"]) == 0


def test_no_file_may_name_a_program(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(yaml.safe_dump({"data": give(tmp_path, "Squares(20)"), "epochs": 1}))
    for words in (["train", "--config", str(file)], ["train", "--recipe", str(file)]):
        assert main([*words, "--out", str(tmp_path / "run"), "--quiet"]) == 1
        assert "names the Python file" in capsys.readouterr().err
    with pytest.raises(ExciteError, match="names the Python file"):
        TrainConfig.from_recipe("resnet20", str(file))
    assert TrainConfig.from_recipe("resnet20", str(file), data="digits").data == "digits"
