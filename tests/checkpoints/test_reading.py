"""Files that cannot be used: what is refused, and with which words."""

import argparse
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import references as ref
import torch
from safetensors.torch import save_file

import excite
from excite.checkpoints.reading import read_checkpoint
from excite.errors import ExciteError, UsageError


def real(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in state.items()}


@pytest.fixture(scope="module")
def small() -> dict[str, torch.Tensor]:
    return real(ref.small_se_resnet(3))


class Trap:
    fired = False

    def __reduce__(self) -> tuple:
        return (setattr, (Trap, "fired", True))


def test_code_in_a_file_is_never_run(tmp_path: Path, small: dict) -> None:
    path = tmp_path / "trap.pth"
    torch.save({"state_dict": small, "trap": Trap()}, path)
    with pytest.raises(ExciteError, match="setattr") as caught:
        read_checkpoint(path)
    assert not Trap.fired
    assert "save its weights alone" in str(caught.value)


def test_a_whole_pickled_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save(torch.nn.Linear(2, 2), path)
    with pytest.raises(ExciteError, match=r"torch\.nn\.modules\.linear\.Linear"):
        excite.import_checkpoint(path)


def test_arguments_and_scores_of_a_training_script_are_read(tmp_path: Path, small: dict) -> None:
    path = tmp_path / "timm.pth.tar"
    score = np.float64(93.5)
    torch.save({"state_dict": small, "args": argparse.Namespace(lr=0.1), "score": score, "n": np.int64(3)}, path)
    model, report = excite.import_checkpoint(path)
    assert report.model == "se_resnet20"
    assert torch.equal(model.state_dict()["fc.weight"], small["fc.weight"])
    assert any("left aside: args, score, n" in note for note in report.notes)


def test_arguments_that_hold_code_are_refused(tmp_path: Path, small: dict) -> None:
    path = tmp_path / "trap.pth.tar"
    torch.save({"state_dict": small, "args": argparse.Namespace(hook=Trap(), place=Path("x"))}, path)
    with pytest.raises(ExciteError, match="setattr"):
        read_checkpoint(path)
    assert not Trap.fired


@pytest.mark.parametrize("content", [b"", b"not a checkpoint at all", b"\x80\x04\x95", b"PK\x03\x04broken"])
def test_damaged_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.pth"
    path.write_bytes(content)
    with pytest.raises(ExciteError, match=r"broken\.pth"):
        excite.import_checkpoint(path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_truncated_files(tmp_path: Path, small: dict, suffix: str) -> None:
    path = tmp_path / f"cut{suffix}"
    save_file(small, path) if suffix == ".safetensors" else torch.save(small, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ExciteError, match="cut"):
        excite.import_checkpoint(path)


def test_other_archives(tmp_path: Path) -> None:
    path = tmp_path / "notes.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "hello")
    with pytest.raises(ExciteError, match="notes"):
        excite.import_checkpoint(path)
    other = tmp_path / "list.pkl"
    other.write_bytes(pickle.dumps([1, 2, 3]))
    with pytest.raises(ExciteError, match="list"):
        excite.import_checkpoint(other)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no file"):
        excite.import_checkpoint(tmp_path / "none.pth")
    with pytest.raises(UsageError, match="checkpoint"):
        excite.import_checkpoint(tmp_path)


def test_nothing_inside() -> None:
    with pytest.raises(ExciteError, match="no tensors; its keys: epoch, lr"):
        excite.import_checkpoint({"epoch": 1, "lr": 0.1})


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "net", "model_state_dict"])
@pytest.mark.parametrize("prefix", ["", "module.", "module.model.", "_orig_mod."])
def test_wrappers_and_prefixes(small: dict, wrapper: str, prefix: str) -> None:
    checkpoint = read_checkpoint({wrapper: {prefix + k: v for k, v in small.items()}, "optimizer": {"state": {}}})
    assert checkpoint.weights.keys() == small.keys()
    assert any("optimizer" in note for note in checkpoint.notes)


def test_safetensors_and_torch_files_give_the_same(tmp_path: Path, small: dict) -> None:
    save_file(small, tmp_path / "a.safetensors")
    torch.save(small, tmp_path / "b.pth")
    torch.save(small, tmp_path / "c.pth", _use_new_zipfile_serialization=False)
    for name in ("a.safetensors", "b.pth", "c.pth"):
        model, report = excite.import_checkpoint(tmp_path / name)
        assert report.model == "se_resnet20"
        assert torch.equal(model.state_dict()["fc.bias"], small["fc.bias"])


def test_half_precision_becomes_single(small: dict) -> None:
    halves = {k: v.half() if v.is_floating_point() else v for k, v in small.items()}
    model, _ = excite.import_checkpoint(halves)
    assert next(model.parameters()).dtype == torch.float32


def test_a_hole_in_a_known_family_is_named(small: dict) -> None:
    state = {k: v for k, v in small.items() if k != "layer2.1.bn1.weight"}
    with pytest.raises(ExciteError, match=r"layer2\.1\.bn1\.weight is not in the file"):
        excite.import_checkpoint(state)
    with pytest.raises(ExciteError, match="no place in the network"):
        excite.import_checkpoint({**small, "layer2.1.extra.weight": torch.zeros(3)})


def test_differing_blocks_are_named() -> None:
    state = real(ref.resnet(18, ref.eca((3, 3, 5, 7))))
    state["layer3.1.eca.conv.weight"] = torch.zeros(1, 1, 9)
    with pytest.raises(ExciteError, match="blocks of stage 3 differ"):
        excite.import_checkpoint(state)


def test_without_a_classifier() -> None:
    state = {k: v for k, v in ref.resnet(18).items() if not k.startswith("fc.")}
    with pytest.raises(ExciteError, match="load_checkpoint"):
        excite.import_checkpoint(state)
