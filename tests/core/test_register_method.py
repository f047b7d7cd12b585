"""Methods of a user's own: registered in Python, named by a file, named by the environment; and what is refused."""

import functools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import excite
from excite import registry
from excite.attention import ChannelAttention
from excite.checkpoints.bundle import save_bundle
from excite.cli.main import main
from excite.common.checks import Positive
from excite.comparison.plan import make_plan
from excite.comparison.variants import parse
from excite.errors import ExciteError, UsageError
from excite.gates import Bottleneck
from excite.inspect.attention import attention_paths, channel_weights
from excite.models import NetworkSpec
from excite.squeezes import Mean

FILE = '''
"""A file of somebody's own."""
import torch
from torch import nn


class Contrast(nn.Module):
    """A channel is worth as much as its values differ."""

    def __init__(self, channels: int, *, start: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), start))

    def forward(self, x):
        return x * torch.sigmoid(self.weight * x.flatten(2).std(dim=2, correction=0))[..., None, None]


number = 3
'''


class Halved(nn.Module):
    """Half of everything, and no more."""

    def __init__(self, channels: int, factor: float = 0.5) -> None:
        super().__init__()
        self.factor, self.scale = factor, nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor * self.scale.view(-1, *(1,) * (x.dim() - 2))


def gated(channels: int, *, hidden: Positive = 4) -> ChannelAttention:
    return ChannelAttention(Mean(), Bottleneck(channels, hidden), channels)


@pytest.fixture(autouse=True)
def table(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leave the table of methods as it was."""
    before = dict(registry.METHODS)
    monkeypatch.setenv(registry.VARIABLE, "")
    yield
    registry.METHODS.clear()
    registry.METHODS.update(before)


def test_it_is_a_method_like_all_others() -> None:
    excite.register_method("halved", Halved, paper="Nobody: Half of it, ICLR 2030", dims=(1, 2, 3))
    assert "halved" in excite.list_methods()
    assert registry.METHODS["halved"].summary == "Half of everything, and no more"
    assert excite.create_attention("halved", 8, factor=0.25)(torch.ones(1, 8, 5)).unique().item() == 0.25
    model = excite.create_model("halved_resnet20", num_classes=3, factor=0.25, placement="last")
    paths = attention_paths(model)
    assert paths == [f"layer{i}.2.attention" for i in (1, 2, 3)]
    assert {type(model.get_submodule(path)) for path in paths} == {Halved}
    report = excite.attach(plain := excite.create_model("resnet20", num_classes=3), "halved", init="identity")
    assert (report.method, len(report.sites)) == ("halved", 9)
    assert len(attention_paths(plain)) == 9
    assert "halved_resnet20" in excite.list_models("*_resnet20")


def test_weights_are_seen_and_options_checked() -> None:
    excite.register_method("gated", gated, dims=(1, 2, 3))
    model = excite.create_model("gated_resnet20", num_classes=3, hidden=2).eval()
    assert {w.shape[1] for w in channel_weights(model, torch.zeros(1, 3, 32, 32)).values()} == {16, 32, 64}
    with pytest.raises(UsageError, match="gated: hidden=0; it must be a positive integer"):
        excite.create_attention("gated", 8, hidden=0)
    with pytest.raises(UsageError, match="method 'gated' has no option 'hiden'; did you mean 'hidden'"):
        excite.create_attention("gated", 8, hiden=1)
    excite.register_method("halved", functools.partial(Halved, factor=0.1))
    with pytest.raises(UsageError, match="halved: factor='x'; it must be a number"):
        excite.create_attention("halved", 8, factor="x")


def test_registering_draws_no_random_numbers() -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    excite.register_method("gated", gated)
    assert torch.equal(torch.rand(1), expected)


def test_a_cell_that_runs_again_replaces_it_and_no_other_may() -> None:
    excite.register_method("mine", Halved, summary="first")
    excite.register_method("mine", Halved, summary="second")
    assert registry.METHODS["mine"].summary == "second"
    with pytest.raises(
        UsageError, match=r"method name 'mine' is taken: .*test_register_method\.Halved; choose another"
    ):
        excite.register_method("mine", gated)
    with pytest.raises(UsageError, match=r"method name 'eca' is taken: mean, 1-D convolution.*choose another"):
        excite.register_method("eca", Halved)


class Takes(nn.Module):
    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()


class Pools(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


class Twice(Pools):
    def forward(self, x: Tensor) -> Any:
        return x, x


class Flat(Pools):
    def forward(self, x: Tensor) -> Tensor:
        _, _, _, _ = x.shape
        return x


def unknown_word(channels: int, *, a: "Nowhere" = 1) -> nn.Module:  # type: ignore[name-defined]
    return nn.Identity()


@pytest.mark.parametrize(
    ("name", "build", "options", "words"),
    [
        ("My Gate", Halved, {}, "expected lower-case letters, digits and underscores"),
        ("mine", Takes, {}, "needs groups; give this option a default"),
        ("mine", lambda *, channels=1: nn.Identity(channels), {}, "takes no channels"),
        ("mine", lambda channels: 3, {}, "builds int, not a torch.nn.Module"),
        ("mine", lambda channels: 1 / 0, {}, "cannot be built over 64 channels: ZeroDivisionError: division by zero"),
        ("mine", unknown_word, {}, "cannot be read: name 'Nowhere' is not defined"),
        ("mine", Pools, {}, r"makes \[2, 64\] of a map \[2, 64, 8, 8\]; it must return that shape"),
        ("mine", Twice, {}, r"makes tuple of a map \[2, 64, 8, 8\]"),
        ("mine", Flat, {"dims": (2, 3)}, r"fails on a map \[2, 64, 8, 8, 8\]: ValueError.*dims=\(2, 3\) says"),
        ("mine", Halved, {"dims": (4,)}, "dims"),
        ("mine", Halved, {"role": "network"}, "role='network'; it must be 'residual', 'between-stages' or 'conv'"),
        ("mine", Halved, {"role": "conv"}, "takes no out_channels, which role='conv' gives it"),
    ],
)
def test_what_is_refused(name: str, build: Any, options: dict[str, Any], words: str) -> None:
    before = dict(registry.METHODS)
    with pytest.raises(UsageError, match=words):
        excite.register_method(name, build, **options)
    assert before == registry.METHODS


def test_a_convolution_of_ones_own() -> None:
    def build(channels: int, *, out_channels: int, stride: int, width: int = 3) -> nn.Module:
        return nn.Conv2d(channels, out_channels, width, stride, width // 2)

    excite.register_method("mine", build, role="conv")
    model = excite.create_model("mine_resnet20", num_classes=3)
    assert model(torch.zeros(2, 3, 16, 16)).shape == (2, 3)
    assert len(attention_paths(model)) == 9


def test_a_file_names_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my.py").write_text(FILE)
    plan = make_plan("none,eca,my.py:Contrast,my.py:Contrast:start=0.5@last")
    assert plan.names == ["none", "eca", "contrast", "contrast:start=0.5@last"]
    assert [plan.config(v, 0, tmp_path).model for v in plan.variants][2] == "contrast_resnet20"
    plan.check()
    model = excite.create_model("resnet20", attach="my.py:Contrast", num_classes=2)
    assert model.excite_card.attach == "contrast"
    assert main(["show", "my.py:Contrast"]) == 0
    assert "contrast: A channel is worth as much as its values differ\n" in capsys.readouterr().out
    assert os.environ[registry.VARIABLE] == f"{tmp_path / 'my.py'}:Contrast"  # for what is started from here


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("my.py:Contrst", "unknown factory in my.py: 'Contrst'; did you mean 'Contrast'"),
        ("my.py:number", "number is int, not a function"),
        ("none.py:Contrast", "method 'none.py:Contrast': no file 'none.py'"),
        ("broken.py:Contrast", "broken.py failed on import: ZeroDivisionError"),
    ],
)
def test_a_file_that_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str, words: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my.py").write_text(FILE)
    Path("broken.py").write_text("1 / 0\n")
    with pytest.raises(ExciteError, match=words):
        excite.attach(excite.create_model("resnet20"), word)


def test_the_environment_lists_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("one.py").write_text(FILE)
    Path("two.py").write_text(FILE + "\nimport excite\nexcite.register_method('spread', Contrast)\n")
    monkeypatch.setenv(registry.VARIABLE, "one.py:Contrast, two.py,")
    registry.load_listed()
    assert {"contrast", "spread"} <= set(excite.list_methods())
    assert os.environ[registry.VARIABLE] == f"{tmp_path / 'one.py'}:Contrast,{tmp_path / 'two.py'}"
    monkeypatch.setenv(registry.VARIABLE, "three.py")
    with pytest.raises(UsageError, match=r"EXCITE_METHODS=three\.py': no file 'three\.py'"):
        registry.load_listed()


def test_a_new_process_runs_them_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own.py").write_text("print('ran')\n")
    monkeypatch.setenv(registry.VARIABLE, str(tmp_path / "own.py"))
    code = "import sys; from excite.registry import METHODS; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["ran", "False"]


def test_a_file_that_registers_by_itself(tmp_path: Path) -> None:
    file = tmp_path / "two.py"
    file.write_text(FILE + "\nimport excite\nexcite.register_method('spread', Contrast, equation='w = s(a std)')\n")
    assert registry.resolve_method(f"{file}:spread") == "spread"
    assert registry.resolve_method(f"{file}:Contrast") == "spread"
    assert registry.get_method("spread").equation == "w = s(a std)"


def saved(folder: Path, **spec: Any) -> Path:
    """Weights of a network with a method of somebody's own, on a machine that does not know it."""
    excite.register_method("halved", Halved)
    model = excite.create_model(num_classes=2, **spec)
    save_bundle(folder / "own.safetensors", model)
    del registry.METHODS["halved"]
    return folder / "own.safetensors"


@pytest.mark.parametrize("spec", [{"name": "halved_resnet20"}, {"name": "resnet20", "attach": "halved"}])
def test_a_checkpoint_says_what_to_register(tmp_path: Path, spec: dict[str, Any]) -> None:
    file = saved(tmp_path, **spec)
    with pytest.raises(ExciteError, match=r"own\.safetensors holds.*'halved', which is not known.*register_method"):
        excite.load(file)
    excite.register_method("halved", Halved)
    assert len(attention_paths(excite.load(file))) == 9


def test_what_a_file_says_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("evil.py").write_text("open('ran', 'w').close()\n" + FILE)
    card = {"name": "resnet20", "attach": {"method": "evil.py:Contrast"}}
    with pytest.raises(ExciteError, match=r"names the Python file 'evil\.py:Contrast' as its method"):
        NetworkSpec.from_dict(card, "a.safetensors").renamed("resnet20").build()
    Path("c.yaml").write_text("attach: evil.py:Contrast\n")
    assert main(["train", "resnet20", "--config", "c.yaml"]) == 1
    Path("c.yaml").write_text("methods: none,evil.py:Contrast\n")
    assert main(["compare", "--config", "c.yaml"]) == 1
    for methods in (["none", "evil.py:Contrast"], "none,evil.py:Contrast", ["none", {"method": "evil.py:Contrast"}]):
        Path("plan.yaml").write_text(json.dumps({"methods": methods}))
        assert main(["compare", "plan.yaml"]) == 1
    assert parse("evil.py:Contrast", "resnet20").method == "evil.py:Contrast"
    with pytest.raises(UsageError, match="unknown method"):
        excite.create_attention("evil.py:Contrast", 8)
    excite_timm = pytest.importorskip("excite.timm")
    with pytest.raises(ExciteError, match="code that a file names is not run"):
        excite_timm.build("resnet20", attach="evil.py:Contrast")
    assert not Path("ran").exists()
