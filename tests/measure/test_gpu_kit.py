"""The GPU kit, tried on the CPU with small networks: it resumes, judges, writes, and says what went wrong."""

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

NOT_COMPILED = "^((?!compiled).)*$"
BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def kit() -> Any:
    before = list(sys.path)
    sys.path.insert(0, str(BENCHMARKS))
    yield importlib.import_module("gpu")
    sys.path[:] = before


def call(kit: ModuleType, out: Path, *more: str) -> int:
    return int(kit.main(["--device", "cpu", "--tiny", "--out", str(out), *more]))


@pytest.fixture(scope="module")
def finished(kit: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kit's result file: a first call has time for one cell, the second does the rest."""
    out = tmp_path_factory.mktemp("kit") / "gpu.json"
    assert call(kit, out, "--minutes", "0") == 0
    (first, *others) = json.loads(out.read_text())["tables"]["cells"]["rows"]
    assert first[:2] == ["checks", "done"]
    assert not others
    assert call(kit, out, "--minutes", "60", "--only", NOT_COMPILED) == 0
    return out


def test_every_table_is_filled_and_every_word_is_met(finished: Path) -> None:
    tables = {name: t["rows"] for name, t in json.loads(finished.read_text())["tables"].items()}
    assert {row[1] for row in tables["cells"]} == {"done"}
    assert {row[-1] for row in tables["checks"]} == {"right"}
    names = " ".join(row[0] for row in tables["networks"])
    for word in ("training", "inference", "bf16", "tf32", "NHWC", "NCHW", "eager"):
        assert word in names
    for variant in ("none, modules", "none, ours", "eca, ours", "se, ours", "srm, ours", "emca_eca, ours"):
        assert f": {variant}" in names
    for row in tables["networks"]:
        value, low, high = row[3]
        assert 0 < low <= value <= high
    assert {row[0].split(": ")[1] for row in tables["tails"]} == {
        "moments",
        "affine",
        "grad_sums",
        "grad_input",
        "tail",
    }
    assert tables["cifar10"][0][1] == 2
    text = finished.with_suffix(".md").read_text()
    assert all(f"## {name.capitalize()}" in text for name in tables)


def test_what_is_done_is_not_done_again_unless_asked(
    kit: ModuleType, finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[str] = []
    monkeypatch.setattr(kit.cells, "tails", lambda *a: ran.append("tails") or [])
    monkeypatch.setattr(kit.cells, "checks", lambda *a: ran.append("checks") or [])
    assert call(kit, finished, "--only", NOT_COMPILED) == 0
    assert ran == []
    assert "0 of" in capsys.readouterr().out
    assert call(kit, finished, "--only", NOT_COMPILED, "--again", "^tail, bf16, NHWC") == 0
    assert ran == ["tails"]


def cell(kit: ModuleType, run: Any, name: str = "one", whole: bool = True) -> Any:
    return kit.Cell(name, "cifar10", 1.0, run, whole)


def test_a_cell_that_fails_or_never_ends_does_not_stop_the_others(kit: ModuleType, tmp_path: Path) -> None:
    def broken(until: float) -> Any:
        raise RuntimeError("no such\nkernel")

    def killed(until: float) -> Any:
        raise KeyboardInterrupt

    results = kit.Results(tmp_path / "gpu.json", "cpu", kit.TINY)
    row = ["net", 1, 1.0, 1.0, 1.0, None]
    cells = [cell(kit, broken, "broken"), cell(kit, killed, "killed"), cell(kit, lambda _: ([row], True), "good")]
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            kit.work(cells, results, 1)
    results = kit.Results(tmp_path / "gpu.json", "cpu", kit.TINY)
    assert kit.work(cells, results, 1) == 0
    states = {name: r[1] for name, r in results.tables["cells"].items()}
    assert states["broken"] == "failed: RuntimeError: no such kernel"
    assert states["killed"].startswith("failed: two calls")
    assert states["good"] == "done"
    assert results.tables["cifar10"]["net"] == row


def test_a_training_goes_on_where_it_stopped(kit: ModuleType, tmp_path: Path) -> None:
    photos = kit.cells.open_photos("", True)

    def training(name: str) -> Any:
        return kit.cells.Training("cpu", kit.TINY, "none, modules", photos, tmp_path / name)

    whole = training("whole.pt")
    whole.epoch()
    whole.epoch()
    part = training("part.pt")
    part.epoch()
    part.keep()
    rest = training("part.pt")
    assert [s for s, _ in rest.scores] == [s for s, _ in part.scores]
    rest.epoch()
    assert rest.done
    for a, b in zip(whole.network.state_dict().values(), rest.network.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_binary_files_of_cifar_are_read(kit: ModuleType, tmp_path: Path) -> None:
    for name, label in (("data_batch_1", 3), ("data_batch_2", 4), ("test_batch", 5)):
        (tmp_path / f"{name}.bin").write_bytes(bytes([label]) + bytes(range(256)) * 12)
    photos = kit.cells.open_photos(str(tmp_path), False)
    assert photos.train_labels.tolist() == [3, 4]
    assert photos.test_labels.tolist() == [5]
    assert photos.train.shape == (2, 3, 32, 32)
    assert photos.test[0, 0, 0, :4].tolist() == [0, 1, 2, 3]


def test_the_recipe_is_the_packages(kit: ModuleType) -> None:
    options = kit.cells.recipe()
    assert (options["epochs"], options["batch_size"], options["weight_decay"]) == (200, 120, 5e-4)
    assert options["schedule"] == "cosine"


def test_another_device_or_version_is_refused(
    kit: ModuleType, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = json.loads(finished.read_text())
    other = tmp_path / "other.json"
    other.write_text(json.dumps({**content, "machine": "NVIDIA X"}))
    assert call(kit, other) == 2
    assert "holds results of NVIDIA X, this is CPU, tiny settings; name another --out" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        kit.main(["--device", "cpu"])
    assert stop.value.code == 2


@pytest.mark.parametrize(
    ("interval", "limit", "least", "word"),
    [
        ([0.98, 0.97, 0.99], 1.0, False, "met"),
        ([1.03, 1.01, 1.05], 1.0, False, "missed"),
        ([1.0, 0.99, 1.01], 1.0, False, "undecided"),
        ([0.9, 0.85, 0.95], 0.8, True, "met"),
        ([0.7, 0.65, 0.75], 0.8, True, "missed"),
        ([0.8, 0.75, 0.85], 0.8, True, "undecided"),
        (None, 1.0, False, "not measured"),
    ],
)
def test_targets_are_judged_by_their_intervals(
    kit: ModuleType, interval: list[float] | None, limit: float, least: bool, word: str
) -> None:
    assert kit.judged(interval, limit, least).startswith(word)


def test_targets_are_read_from_the_rows_they_name(kit: ModuleType) -> None:
    step = "training, resnet50, bf16, NHWC"
    ratio = [0.99, 0.98, 0.995]
    row = [f"{step}, eager, eca: eca, ours", 256, 90.0, ratio, "none, timm", 2800.0, [0.8, 0.79, 0.81], 9.0, 1.01]
    tables: dict[str, Any] = {name: {} for name in kit.COLUMNS}
    tables["networks"] = {row[0]: row}
    verdicts = {r[0]: r[3] for r in kit.targets(tables)}
    assert list(verdicts.values()) == ["met", "met", "not measured", "met"]


def test_what_is_not_installed_is_left_out_with_a_line(
    kit: ModuleType, finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    every = {"none, modules", "none, ours", "eca, modules", *(f"{m}, ours" for m in ("se", "eca", "srm", "emca_eca"))}
    theirs = {"none, torchvision", "none, timm", "eca, timm", "se, timm"}
    assert set(kit.cells.builders("resnet50")) == every | theirs
    assert set(kit.cells.builders("mobilenet_v2")) == every | {"none, torchvision", "none, timm"}
    setting = kit.Setting("training", "resnet18", "bf16", "NHWC", "eager", "eca")
    assert kit.cells.labels_of(setting) == ["none, timm", "none, ours", "eca, ours", "eca, timm"]
    for module in (kit, kit.cells):
        monkeypatch.setattr(module, "find_spec", lambda name: None)
    assert set(kit.cells.builders("resnet50")) == every
    assert kit.cells.labels_of(setting) == ["none, modules", "none, ours", "eca, ours"]
    assert call(kit, finished, "--only", NOT_COMPILED) == 0
    assert "timm is not installed: its rows are left out" in capsys.readouterr().out


def test_a_wrong_kernel_is_seen(kit: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    from excite.ops.tail import torch as plain

    class Wrong:
        def __getattr__(self, name: str) -> Any:
            return getattr(plain, name)

        @staticmethod
        def affine(z: Any, a: Any, b: Any, shortcut: Any, relu: bool) -> Any:
            return plain.affine(z, a, b, shortcut, relu) * (1 + 1e-3)

    monkeypatch.setattr(kit.cells, "passes", lambda device: Wrong())
    errors = kit.cells.kernel_errors("cpu", torch.float32, True, (2, 5, 3, 7))
    wrong = {name for name, error in errors.items() if error > kit.cells.LIMITS[torch.float32]}
    assert wrong == {"affine"}


@pytest.mark.slow
def test_compiled_cells(kit: ModuleType, tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    assert call(kit, out, "--only", "compiled") == 0
    (cell,) = json.loads(out.read_text())["tables"]["cells"]["rows"]
    assert cell[1] == "done"
