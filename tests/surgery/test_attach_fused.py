"""Attention on a host's norm as one operation: as exact as the tail, and no map that someone holds is written over."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import nn
from torch.nn.utils import parametrize
from torch.optim.swa_utils import AveragedModel
from torchvision.ops import FrozenBatchNorm2d

import excite
from excite import ops
from excite.ops.tail import api
from excite.surgery.carrier import carry, convert_norms

NORMS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "1-D": (lambda: nn.BatchNorm1d(8), (4, 8, 11)),
    "2-D": (lambda: nn.BatchNorm2d(8), (4, 8, 9, 7)),
    "3-D": (lambda: nn.BatchNorm3d(8), (3, 8, 3, 4, 5)),
    "timm": (lambda: BatchNormAct2d(8, apply_act=False), (4, 8, 9, 7)),
    "no weights": (lambda: nn.BatchNorm2d(8, affine=False), (4, 8, 9, 7)),
    "no statistics": (lambda: nn.BatchNorm2d(8, track_running_stats=False), (4, 8, 9, 7)),
    "average": (lambda: nn.BatchNorm2d(8, momentum=None), (4, 8, 9, 7)),
}


class Own(nn.BatchNorm2d):
    """A class of its own, though it changes nothing."""


def untracked() -> nn.Module:
    norm = nn.BatchNorm2d(8)
    norm.track_running_stats = False
    return norm


OTHERS: dict[str, Callable[[], nn.Module]] = {
    "GroupNorm": lambda: nn.GroupNorm(2, 8),
    "InstanceNorm": lambda: nn.InstanceNorm2d(8, affine=True, track_running_stats=True),
    "LayerNorm": lambda: nn.LayerNorm([8, 9, 7]),
    "FrozenBatchNorm2d": lambda: FrozenBatchNorm2d(8),
    "activation": lambda: BatchNormAct2d(8),
    "subclass": lambda: Own(8),
    "statistics untracked": untracked,
}


def carrying(norm: nn.Module, method: str = "eca") -> nn.Module:
    """A norm with lively numbers that carries attention."""
    torch.manual_seed(0)
    for name, value in [*norm.named_parameters(), *norm.named_buffers()]:
        if value.is_floating_point():
            nn.init.uniform_(value, 0.5, 2) if "var" in name else nn.init.normal_(value)
    carry(norm, excite.create_attention(method, 8), "after")
    for p in norm.get_submodule("attention").parameters():
        nn.init.normal_(p, std=0.5)
    return norm.double()


@pytest.fixture
def fused(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Collects a word for every norm that was fused."""
    calls: list[str] = []
    tail = api.fused_tail

    def note(z: torch.Tensor, norm: Any, *args: Any) -> Any:
        if isinstance(norm, nn.Module):  # attention alone is fused as well, with a norm that changes nothing
            calls.append("fused")
        return tail(z, norm, *args)

    monkeypatch.setattr(api, "fused_tail", note)
    return calls


def passes(norm: nn.Module, x: torch.Tensor, mode: str) -> list[Any]:
    """Output, gradients and buffers of two passes in one mode."""
    norm, out = copy.deepcopy(norm), []
    with ops.use(mode):
        for i in range(2):
            leaf = (x + i).requires_grad_()
            y = norm(leaf)
            torch.manual_seed(i)
            y.backward(torch.randn_like(y))
            out += [y.detach(), leaf.grad]
    return [*out, *(p.grad for p in norm.parameters()), *(b.clone() for b in norm.buffers())]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("method", ["eca", "se", "srm", "gct"])
@pytest.mark.parametrize("kind", NORMS)
def test_equals_the_unfused_in_float64(kind: str, method: str, training: bool, fused: list[str]) -> None:
    make, shape = NORMS[kind]
    norm = carrying(make(), method).train(training)
    x = torch.randn(shape).double() * 2 + 1
    layouts = {4: [torch.channels_last], 5: [torch.channels_last_3d]}.get(x.dim(), [])
    for laid in [x, *(x.to(memory_format=layout) for layout in layouts)]:
        del fused[:]
        one, two = passes(norm, laid, "reference"), passes(norm, laid, "fused")
        assert len(fused) == 2
        for a, b in zip(one, two, strict=True):
            torch.testing.assert_close(b, a, rtol=1e-10, atol=1e-10)
        with torch.no_grad():
            plain, quick = (use(copy.deepcopy(norm), laid, mode) for mode in ("reference", "fused"))
        torch.testing.assert_close(quick, plain, rtol=1e-10, atol=1e-10)
        assert quick.is_contiguous() == plain.is_contiguous()


def use(module: nn.Module, x: torch.Tensor, mode: str) -> torch.Tensor:
    with ops.use(mode):
        return module(x)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", OTHERS)
def test_other_hosts_step_aside(kind: str, training: bool, fused: list[str]) -> None:
    norm = carrying(OTHERS[kind]()).train(training)
    x = torch.randn(4, 8, 9, 7).double()
    one, two = passes(norm, x, "reference"), passes(norm, x, "fused")
    assert not fused or (kind == "statistics untracked" and not training)
    for a, b in zip(one, two, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-10, atol=1e-10)
    with torch.no_grad():
        assert torch.equal(use(copy.deepcopy(norm), x, "reference"), use(norm, x, "auto"))


class Doubled(nn.Module):
    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return 2 * weight


def test_what_lies_on_top_of_a_norm_steps_aside(fused: list[str]) -> None:
    x = torch.randn(4, 8, 9, 7).double()
    parametrised = carrying(nn.BatchNorm2d(8))
    parametrize.register_parametrization(parametrised, "weight", Doubled())
    own = carrying(nn.BatchNorm2d(8))
    own.forward = lambda z: z * 3  # type: ignore[method-assign]
    watched = carrying(nn.BatchNorm2d(8))
    watched.get_submodule("attention").register_forward_hook(lambda *args: None)
    for norm in (parametrised, own, watched):
        expected = use(copy.deepcopy(norm) if norm is parametrised else norm, x, "reference")
        torch.testing.assert_close(use(norm, x, "fused"), expected)
    assert not fused


def test_hooks_on_the_norm_see_the_same(fused: list[str]) -> None:
    x, seen = torch.randn(4, 8, 9, 7).double(), []
    for mode in ("reference", "fused"):
        norm = carrying(nn.BatchNorm2d(8))
        leaf = x.clone().requires_grad_()
        norm.register_forward_pre_hook(lambda module, args: (args[0] * 2,))
        norm.register_forward_hook(lambda module, args, y: y + 1)
        norm.register_full_backward_hook(lambda module, into, out: (into[0] * 3,))
        y = use(norm, leaf, mode)
        y.square().sum().backward()
        seen.append((y.detach(), leaf.grad))
    assert fused
    for a, b in zip(*seen, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-10, atol=1e-10)


class Host(nn.Module):
    """Two residual blocks as people write them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.ModuleList(nn.ModuleList([nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)]) for _ in range(2))
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for conv, norm in self.blocks:
            x = torch.relu(norm(conv(x)) + x)
        return self.head(x.mean((2, 3)))


def host() -> nn.Module:
    torch.manual_seed(0)
    model = Host()
    excite.attach(model, "eca", sites="blocks.*.1")
    for p in model.parameters():
        nn.init.normal_(p, std=0.5)
    return model


def test_copies_files_and_averages_run_fused(fused: list[str]) -> None:
    model, x = host().eval(), torch.randn(2, 3, 16, 16)
    with torch.no_grad(), ops.use("fused"):
        expected = model(x)
        averaged = AveragedModel(model)
        averaged.update_parameters(model)
        other = host().eval()
        other.load_state_dict(model.state_dict())
        for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), averaged.module, other):
            assert torch.equal(twin(x), expected)
    assert len(fused) == 10
    torch.testing.assert_close(expected, use(model, x, "reference"), rtol=1e-4, atol=1e-5)
    bare = Host().eval()
    bare.load_state_dict({k: v for k, v in model.state_dict().items() if "attention" not in k})
    assert torch.equal(excite.detach(model)(x), bare(x))


def test_compiled_exported_traced_and_mixed() -> None:
    model, x = host().train(), torch.randn(2, 3, 16, 16)
    with ops.use("fused"):
        compiled = torch.compile(copy.deepcopy(model), fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(x), copy.deepcopy(model)(x), rtol=1e-4, atol=1e-5)
        model.eval()
        expected = model(x)
        program = torch.export.export(model, (x,)).module()
        torch.testing.assert_close(program(x), expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(torch.jit.trace(model, x)(x), expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(torch.func.vmap(model)(x[:, None])[:, 0], expected, rtol=1e-4, atol=1e-5)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = model(x)
    with ops.use("reference"), torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(mixed, model(x), rtol=5e-2, atol=5e-2)
    synchronised = convert_norms(copy.deepcopy(model))
    assert isinstance(synchronised.get_submodule("blocks.0.1"), nn.SyncBatchNorm)


def test_a_dispatch_mode_sees_plain_operations(fused: list[str]) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    with ops.use("fused"), FlopCounterMode(display=False):
        host()(torch.randn(2, 3, 16, 16))
    assert not fused


def overwritten(model: nn.Module, x: torch.Tensor, mode: str) -> set[str]:
    """The modules whose inputs or output, held by a hook, have other values after the network ran."""
    names = set()
    for name, module in [*model.named_modules(), ("every module", None)]:
        held: list[tuple[torch.Tensor, torch.Tensor]] = []

        def hold(owner: nn.Module, args: Any, y: Any, held: Any = held) -> None:
            held += [(t, t.clone()) for t in (*args, y) if isinstance(t, torch.Tensor)]

        register = nn.modules.module.register_module_forward_hook if module is None else module.register_forward_hook
        handle = register(hold)
        with ops.use(mode):
            model(x)
        handle.remove()
        if any(not torch.equal(now, then) for now, then in held):
            names.add(name)
    return names


@torch.no_grad()
def test_no_map_that_a_hook_holds_is_written_over() -> None:
    x = torch.randn(2, 3, 16, 16)
    ours = nn.Sequential(nn.Conv2d(3, 8, 1), excite.create_model("eca_resnet20").layer1[0], nn.MaxPool2d(2))
    ours[0] = nn.Conv2d(3, 16, 1)
    attached = copy.deepcopy(ours)
    attached[1].attention = None
    carry(attached[1].bn2, excite.create_attention("eca", 16), "after")
    for model in (host().eval(), ours.eval(), attached.eval()):
        before = x.clone()
        plain = overwritten(model, x, "reference")
        assert overwritten(model, x, "auto") <= plain
        assert overwritten(model, x, "fused") <= plain
        assert torch.equal(x, before)
    assert not overwritten(host().eval(), x, "reference")


@torch.no_grad()
def test_scaled_in_place_where_nobody_holds_it() -> None:
    norm, x = carrying(nn.GroupNorm(2, 8)), torch.randn(2, 8, 6, 6).double()
    before, attention = x.clone(), norm.get_submodule("attention")
    squeezed: list[int] = []
    own = attention.squeeze.forward  # type: ignore[union-attr]
    attention.squeeze.forward = lambda y: (squeezed.append(y.data_ptr()), own(y))[1]  # type: ignore[union-attr]
    assert norm(x).data_ptr() == squeezed[0], "the norm's own map"
    with ops.use("reference"):
        assert norm(x).data_ptr() != squeezed[1]
    assert torch.equal(x, before)
    with torch.enable_grad():
        assert norm(x).data_ptr() != squeezed[2]
    passing = carrying(nn.Sequential())
    assert passing(x).data_ptr() != x.data_ptr()
    assert torch.equal(x, before), "what a host hands through is not its own"
