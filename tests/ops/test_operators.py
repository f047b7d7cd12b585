"""The tail's operators in compiled programs: what a compiler wants of them, and the same numbers as the modules."""

import copy
from typing import Any

import pytest
import torch
from tails import attention, difference, example
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from excite import ops
from excite.models import create_model
from excite.ops.tail import operators
from excite.types import FeatureMap

Graphs = list[torch.fx.GraphModule]


class Block(nn.Module):
    """The end of a residual block behind a convolution."""

    def __init__(self, method: str, channels: int = 8, norm: nn.Module | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(channels, channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels) if norm is None else norm
        self.attention = attention(method, channels)

    def forward(self, x: FeatureMap) -> FeatureMap:
        return ops.residual_tail(self.conv(x), self.norm, self.attention, x, F.relu)


def used(graphs: Graphs) -> list[str]:
    """The operators of excite in the graphs."""
    return [str(n.target).split(".")[1] for g in graphs for n in g.graph.nodes if str(n.target).startswith("excite.")]


def compiled(module: nn.Module, graphs: Graphs, **options: Any) -> Any:
    torch.compiler.reset()

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        from torch._dynamo.backends.debugging import aot_eager

        graphs.append(graph)
        return aot_eager(graph, inputs)

    return torch.compile(module, fullgraph=True, backend=backend, **options)


def step(module: nn.Module, call: Any, x: FeatureMap, mode: str = "fused") -> list[torch.Tensor | None]:
    """Output, gradients and buffers after one step."""
    leaf = x.clone().requires_grad_()
    with ops.use(mode):
        out = call(leaf)
    torch.manual_seed(7)
    out.backward(torch.randn(out.shape).to(out))
    return [out.detach(), leaf.grad, *(p.grad for p in module.parameters()), *(b.clone() for b in module.buffers())]


@pytest.mark.parametrize(
    ("method", "last"), [("eca", False), ("eca", True), ("srm", True), ("se", False), ("gct", False)]
)
def test_one_graph_with_the_numbers_of_the_modules(method: str, last: bool) -> None:
    module = Block(method).double()
    x = torch.randn(3, 8, 5, 4, dtype=torch.float64)
    x = x.contiguous(memory_format=torch.channels_last) if last else x
    graphs: Graphs = []
    twin = copy.deepcopy(module)
    found = step(module, compiled(module, graphs), x)
    assert used(graphs) == ["standardise", "tail"]
    assert difference(found, step(twin, twin, x, "reference")) <= 1e-10


def arguments(dtype: torch.dtype, second: bool, affine: bool, last: bool) -> tuple[Any, ...]:
    z = torch.randn(2, 4, 3, 5).to(dtype)
    z = (z.contiguous(memory_format=torch.channels_last) if last else z).requires_grad_()
    gamma, beta = (torch.randn(4, requires_grad=True) if affine else None for _ in range(2))
    return z, gamma, beta, 1e-5, second


@pytest.mark.parametrize(
    ("dtype", "second", "affine", "last"),
    [(torch.float32, False, True, True), (torch.float64, True, False, False), (torch.bfloat16, True, True, True)],
)
def test_standardise_is_an_operator(dtype: torch.dtype, second: bool, affine: bool, last: bool) -> None:
    torch.library.opcheck(operators.standardise, arguments(dtype, second, affine, last))


@pytest.mark.parametrize("weighed", [True, False])
@pytest.mark.parametrize("rectified", [True, False])
def test_tail_is_an_operator(weighed: bool, rectified: bool) -> None:
    z, gamma, beta, eps, second = arguments(torch.float32, False, True, True)
    carrier, carrier_a, scale, bias, mu, *_ = (x.detach() for x in operators.standardise(z, gamma, beta, eps, second))
    weights = torch.rand(2, 4, requires_grad=True) if weighed else None
    r = torch.randn_like(z).requires_grad_()
    given = (z, carrier, carrier_a, scale.requires_grad_(), bias.requires_grad_(), mu, weights, r, rectified)
    torch.library.opcheck(operators.tail, given)
    out = operators.tail(*given).detach() if rectified else None
    backward = (torch.randn_like(z).detach(), out, z.detach(), scale.detach(), bias.detach(), mu, weights)
    torch.library.opcheck(operators.tail_backward, backward, test_utils=("test_schema", "test_faketensor"))


def test_batches_and_sides_of_any_size_are_one_graph() -> None:
    module, graphs = Block("eca").double(), list[torch.fx.GraphModule]()
    call = compiled(module, graphs, dynamic=True)
    seen = 0  # a compiler may begin anew while it makes its first graph
    for shape in ((2, 8, 5, 4), (3, 8, 6, 7)):
        x = torch.randn(shape, dtype=torch.float64)
        twin = copy.deepcopy(module)
        module.zero_grad()
        twin.zero_grad()
        found = step(module, call, x)
        seen = seen or len(graphs)
        assert len(graphs) == seen
        assert difference(found, step(twin, twin, x, "reference")) <= 1e-10


def test_the_plain_average_of_the_statistics_needs_no_number() -> None:
    module, graphs = Block("eca", norm=nn.BatchNorm2d(8, momentum=None)).double(), list[torch.fx.GraphModule]()
    call, twin = compiled(module, graphs), copy.deepcopy(module)
    for _ in range(3):
        x = torch.randn(3, 8, 4, 4, dtype=torch.float64)
        module.zero_grad()
        twin.zero_grad()
        assert difference(step(module, call, x), step(twin, twin, x, "reference")) <= 1e-10
    assert len(graphs) == 1
    assert used(graphs) == ["standardise", "tail"]


def test_recomputed_blocks_give_the_same_gradients() -> None:
    module = Block("eca").double()
    graphs: Graphs = []

    class Recomputed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = copy.deepcopy(module)

        def forward(self, x: FeatureMap) -> FeatureMap:
            out: FeatureMap = checkpoint(self.inner, x, use_reentrant=False)
            return out

    wrapped, x = Recomputed(), torch.randn(3, 8, 5, 4, dtype=torch.float64)
    torch.compiler.reset()
    # Both compiled: a compiler's recomputation, with the operators and without.
    found = step(wrapped, compiled(wrapped, graphs), x)
    twin = Recomputed()
    expected = step(twin, twin, x, "reference")
    gradients = 2 + len(list(module.parameters()))
    assert difference(found[:gradients], expected[:gradients]) <= 1e-10


def test_under_autocast_maps_are_narrow_and_numbers_wide() -> None:
    module, graphs = Block("eca"), list[torch.fx.GraphModule]()
    x = torch.randn(4, 8, 9, 7)
    twin = copy.deepcopy(module)
    results = []
    for m, mode in ((module, "fused"), (twin, "reference")):
        call = compiled(m, graphs if mode == "fused" else [])
        leaf = x.clone().to(torch.bfloat16).requires_grad_()
        with ops.use(mode), torch.autocast("cpu", torch.bfloat16):
            out = call(leaf)
        out.backward(torch.ones_like(out))
        results.append([out.detach(), leaf.grad, m.norm.weight.grad, m.norm.running_var])
    assert used(graphs) == ["standardise", "tail"]
    assert results[0][0].dtype == torch.bfloat16
    assert difference(*results) <= 3e-2


@pytest.mark.parametrize(
    ("mode", "training", "grad"),
    [("auto", True, True), ("reference", True, True), ("fused", False, True), ("fused", True, False)],
)
def test_elsewhere_programs_hold_plain_operations(mode: str, training: bool, grad: bool) -> None:
    module, graphs = Block("eca").train(training), list[torch.fx.GraphModule]()
    with ops.use(mode), torch.set_grad_enabled(grad):
        compiled(module, graphs)(torch.randn(2, 8, 4, 4))
    assert graphs
    assert used(graphs) == []


def test_an_exported_training_step_holds_plain_operations() -> None:
    with ops.use("fused"):
        program = torch.export.export(Block("eca").train(), (torch.randn(2, 8, 4, 4),))
    assert used([program.graph_module]) == []


@pytest.mark.slow
def test_a_network_uses_them_in_every_block_and_no_gradient_is_lost() -> None:
    torch.manual_seed(0)
    module, graphs = create_model("emca_eca_resnet20", num_classes=4).double(), list[torch.fx.GraphModule]()
    x, twin = torch.randn(2, 3, 16, 16, dtype=torch.float64), copy.deepcopy(module)
    found = step(module, compiled(module, graphs), x)
    attended = sum(getattr(m, "attention", None) is not None for m in module.modules())
    assert used(graphs).count("tail") == used(graphs).count("standardise") >= attended > 0
    assert difference(found, step(twin, twin, x, "reference")) <= 1e-9


def test_eager_averages_do_not_wait_on_a_device() -> None:
    # On the meta device every conversion to a number is an error, as every wait is in a CUDA graph.
    from excite.ops.tail.moments import settings_of

    norm = nn.BatchNorm2d(4, momentum=None, device="meta")
    state = settings_of(norm, None, torch.empty(2, 4, 3, 3, device="meta"))
    assert isinstance(state.momentum, torch.Tensor)


@pytest.mark.parametrize("method", ["eca"])
def test_eager_operators_are_differentiated_like_the_modules(method: str) -> None:
    module, z, r = example(method, torch.float64)
    twin = copy.deepcopy(module)
    results = []
    for m, fused in ((module, True), (twin, False)):
        leaf, shortcut = z.clone().requires_grad_(), r.clone().requires_grad_()
        if fused:
            ends = operators.standardise(leaf, m[0].weight, m[0].bias, m[0].eps, False)
            weights = m[1].weights_of(m[1].squeeze.from_statistics(ends[8], None, 63))
            out = operators.tail(leaf, *ends[:2], *ends[2:5], weights, shortcut, True)
        else:
            out = F.relu(m[1](m[0](leaf)) + shortcut)
        out.square().sum().backward()
        results.append([out.detach(), leaf.grad, shortcut.grad, *(p.grad for p in m.parameters())])
    assert difference(*results) <= 1e-10


def one_of_two(rank: int, folder: str) -> None:
    """Train a step in one of two processes, with the operators and with the modules, and compare."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.manual_seed(rank)
    x = torch.randn(3, 8, 5, 4, dtype=torch.float64)
    results = []
    for mode in ("fused", "reference"):
        graphs: Graphs = []
        inner = Block("eca").double()
        module = nn.parallel.DistributedDataParallel(compiled(inner, graphs) if mode == "fused" else inner)
        results.append(step(module, module, x, mode))
        assert used(graphs) == (["standardise", "tail"] if mode == "fused" else [])
    assert difference(*results) <= 1e-10
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes(tmp_path: Any) -> None:
    torch.multiprocessing.spawn(one_of_two, (str(tmp_path),), nprocs=2)


@pytest.mark.slow
@pytest.mark.parametrize("last", [False, True])
def test_what_a_compiler_makes_of_it(last: bool) -> None:
    module = Block("eca", 16)
    x = torch.randn(3, 16, 9, 8)
    x = x.contiguous(memory_format=torch.channels_last) if last else x
    torch.compiler.reset()
    twin = copy.deepcopy(module)
    found = step(module, torch.compile(module, fullgraph=True), x)
    assert difference(found, step(twin, twin, x, "reference")) <= 1e-4
