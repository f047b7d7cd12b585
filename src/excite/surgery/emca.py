"""EMCA on foreign networks: descriptors as explicit edges of the network's FX graph.

Every block that takes part is a port: it gets the descriptors of earlier blocks as an argument and returns its map and
its own descriptor. The network's forward is rewritten so that the descriptors flow along; keys of the host stay.
"""

import operator
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, wraps
from inspect import Parameter, signature
from typing import Any

from torch import fx, nn
from torch.fx.graph_module import _format_import_block
from torch.package.importer import sys_importer

from excite.backbones.emca_plan import EmcaSpec, emca_options, emca_spec
from excite.backbones.names import split_name
from excite.backbones.network import Network
from excite.backbones.placement import Site as Position
from excite.common.options import check_names
from excite.errors import ExciteError, UsageError
from excite.ops import recalibrate
from excite.surgery.carrier import carriers, carry, drop
from excite.surgery.find import Site, Wanted, innermost, locate, number, select
from excite.surgery.graph import Graph
from excite.types import Descriptor, FeatureMap

# Any: what passes through a host's graph is of the host's own kinds.


class Port(nn.Module):
    """A block's place in an EMCA network: `(x [n c *space], context) -> (y, descriptor [n c k])`.

    emca: the attention, or None where the block only describes itself; squeeze: makes the descriptor where the block is
    read, else None. where: as in EmcaSpec: "block" describes the recalibrated map, "branch" the map before that.
    """

    def __init__(self, emca: nn.Module | None, squeeze: nn.Module | None, where: str) -> None:
        super().__init__()
        self.emca, self.squeeze, self.where = emca, squeeze, where

    def forward(self, x: FeatureMap, context: tuple[Descriptor, ...]) -> tuple[FeatureMap, Descriptor | None]:
        """Return the recalibrated map and the descriptor."""
        if self.where == "branch" and self.emca is not None:
            # The attention is an Emca, which the checker sees as any module.
            own: Descriptor = self.emca.squeeze(x)  # type: ignore[operator]
            return recalibrate(x, self.emca.weights_of(own, context)), own  # type: ignore[operator]
        y = x if self.emca is None else self.emca(x, context)
        return y, None if self.squeeze is None else self.squeeze(y)


def connect(graph: Graph, method: str, wanted: Wanted | None, options: Mapping[str, object]) -> list[Site]:
    """Put EMCA `method` into the traced network; returns the sites of the attention (not those that are only read).

    options: form, stages, blocks and where as for EMCA networks, and the gate's.
    """
    check_names(f"method {method!r}", options, emca_options(method))
    if isinstance(graph.model, Network):
        card: Any = getattr(graph.model, "excite_card", None)
        backbone = "<backbone>" if card is None else split_name(card.name)[1]
        raise UsageError(
            f"{method} joins the blocks of a network, which ours do themselves: build "
            f"excite.create_model('{method}_{backbone}', ...) and give it the weights with excite.load_checkpoint"
        )
    spec = emca_spec(method, options)
    blocks = _blocks(graph, wanted, spec.where)
    spec = spec.for_depths([sum(s.stage == k for s in blocks) for k in range(1 + blocks[-1].stage)])
    ports, reads, attended = _plan(graph, spec, blocks)
    names = {index: site.path for index, (site, _) in ports.items()}
    graphs = trace_both(graph.model, set(names.values()))
    for fx_graph in graphs.values():
        _rewire(fx_graph, names, reads)
    for site, port in ports.values():
        carry(graph.modules[site.path], port, f"port-{site.place}")
    try:
        host(graph.model, graphs)
    except Exception:
        for _, module in list(carriers(graph.model)):
            drop(module)
        raise
    return attended


def _blocks(graph: Graph, wanted: Wanted | None, where: str) -> list[Site]:
    """Return one site per block that takes part, stages numbered."""
    if where == "block" and wanted in (None, "residual", "all-blocks") and graph.blocks:
        places = [p for n in sorted(innermost(graph).values()) if (p := locate(graph, n)) is not None]
        nodes = [graph.trace.nodes[p.node] for p in places]
        found = [
            Site(p.path, n.shape[1], "block", size=n.space, place=p.side) for p, n in zip(places, nodes, strict=True)
        ]
    else:
        found = select(graph, "all-blocks" if wanted is None else wanted)
        order = {s.path: graph.calls[s.path][0].output or 0 for s in found}
        found.sort(key=lambda s: order[s.path])
    if len({s.path for s in found}) < 2:
        raise UsageError("EMCA needs at least two blocks; name more sites")
    numbers = number([s.size for s in found])
    return [replace(s, stage=a, block=b) for s, (a, b, _) in zip(found, numbers, strict=True)]


Ports = dict[int, tuple[Site, Port]]


def _plan(graph: Graph, spec: EmcaSpec, blocks: list[Site]) -> tuple[Ports, dict[int, tuple[int, ...]], list[Site]]:
    """Return the ports by their index in the bank (0 is the stem), what each reads, and the sites with attention."""
    used = spec.used()
    ports: Ports = {}
    reads: dict[int, tuple[int, ...]] = {}
    attended: list[Site] = []
    like = next(graph.model.parameters())

    def port(site: Site, emca: nn.Module | None, index: int) -> None:
        connected = Port(emca, spec.squeeze(index), spec.where)
        ports[index] = site, connected.to(device=like.device, dtype=like.dtype).train(graph.modules[site.path].training)

    if 0 in used:
        port(_stem(graph, blocks[0]), None, 0)
    for index, site in enumerate(blocks, 1):
        position = Position(site.channels, site.stage, site.block, spec.depths[site.stage])
        emca = spec.residual(position, len(spec.depths))
        if emca is not None or index in used:
            port(site, emca, index)
            reads[index] = spec.sources(site.stage, site.block) if emca is not None else ()
        if emca is not None:
            attended.append(site)
    return ports, reads, attended


def _stem(graph: Graph, first: Site) -> Site:
    """Return the site of the map that enters the first block."""
    holders = [p for p in graph.blocks if first.path == p or first.path.startswith(p + ".")]
    node = graph.calls[holders[0]][0].inputs[0] if holders else None
    place = locate(graph, node) if node is not None else None
    if place is None or place.node != node or place.path == first.path:
        raise ExciteError(
            f"no module returns the stem's map before {first.path!r}, which the released form reads; use form='paper'"
        )
    made = graph.trace.nodes[place.node]
    return Site(place.path, made.shape[1], "named", size=made.space, place=place.side)


def _rewire(graph: fx.Graph, names: Mapping[int, str], reads: Mapping[int, tuple[int, ...]]) -> None:
    """Add the descriptors to a network's graph as edges."""
    steps = {str(n.target): n for n in graph.nodes if n.op == "call_module"}
    bank: dict[int, fx.Node] = {}
    for index in sorted(names):
        node = steps.get(names[index])
        if node is None:
            raise ExciteError(f"{names[index]!r} is not a step of the network's FX graph, so EMCA cannot be put there")
        sources = reads.get(index, ())
        node.kwargs = {**node.kwargs, "context": tuple(bank[s] for s in sources)}
        bank[index] = descriptor_of(node)
    eliminate(graph)


class GraphHost:
    """A network that runs generated code: one text for train mode, one for eval mode."""

    hosted_base: type[nn.Module]
    hosted_texts: tuple[str, str]
    run_train: Callable[..., Any]
    run_eval: Callable[..., Any]
    training: bool

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        """Copy and pickle by the network's own class and the texts."""
        return _rebuild, (self.hosted_base, *self.hosted_texts), self.__getstate__()


def _forward(base: Any) -> Callable[..., Any]:
    """Return the hosted forward; it shows the network's own signature, which torch.export and ONNX read."""

    @wraps(base.forward)
    def forward(self: GraphHost, *args: Any, **kwargs: Any) -> Any:
        return self.run_train(*args, **kwargs) if self.training else self.run_eval(*args, **kwargs)

    return forward


@cache
def hosted_class(base: Any, train: str, evaluate: str) -> type[nn.Module]:
    """Return the subclass of `base` that runs the texts."""
    members = {
        "hosted_base": base,
        "hosted_texts": (train, evaluate),
        "forward": _forward(base),
        "run_train": _function(train),
        "run_eval": _function(evaluate),
        "__module__": base.__module__,
        "__qualname__": base.__qualname__,
        "__doc__": base.__doc__,
    }
    made: type[nn.Module] = type(base.__name__, (GraphHost, base), members)
    return made


def _function(text: str) -> Callable[..., Any]:
    scope: dict[str, Any] = {}
    exec(compile(text, "<excite.attach graph>", "exec"), scope)
    made: Callable[..., Any] = scope["forward"]
    return made


def _rebuild(base: Any, train: str, evaluate: str) -> nn.Module:
    made = hosted_class(base, train, evaluate)
    return made.__new__(made)


def host(model: nn.Module, graphs: Mapping[bool, fx.Graph]) -> None:
    """Let `model` run `graphs`: by key True in train mode, False in eval mode."""
    base: Any = type(model)
    model.__class__ = hosted_class(base, _text(graphs[True]), _text(graphs[False]))


def _text(graph: fx.Graph) -> str:
    graph.lint()
    code = graph.python_code("self")
    return _format_import_block(code.globals, sys_importer) + "\n" + code.src


class _Tracer(fx.Tracer):
    """Take every module as one step, except those on the way to the modules of interest."""

    def __init__(self, targets: set[str]) -> None:
        super().__init__()
        self.targets = targets

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Tell whether a module is one step: none of the targets lies strictly inside."""
        return not any(t.startswith(module_qualified_name + ".") for t in self.targets)


def trace_both(model: nn.Module, targets: set[str]) -> dict[bool, fx.Graph]:
    """Return the FX graphs of `model` in train (True) and eval (False) mode; flags are put back.

    Raises ExciteError where FX cannot follow: control flow that depends on the data, between the targets.
    """
    flags = [(m, m.training) for m in model.modules()]
    parameters = list(signature(model.forward).parameters.values())
    fixed = {
        p.name: p.default
        for p in parameters[1:]
        if p.default is not Parameter.empty and p.kind in (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
    }
    graphs: dict[bool, fx.Graph] = {}
    try:
        for mode in (True, False):
            model.train(mode)
            graphs[mode] = _Tracer(targets).trace(model, fixed or None)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else ""
        raise ExciteError(
            f"torch.fx cannot follow {type(model).__name__}: {type(error).__name__}: {reason}; EMCA needs a "
            "graph (no control flow that depends on the data around its blocks). Other methods need no graph"
        ) from error
    finally:
        for module, flag in flags:
            module.training = flag
    return graphs


def descriptor_of(node: fx.Node) -> fx.Node:
    """Split a step that returns (map, descriptor): its readers get the map; returns the descriptor's node."""
    graph = node.graph
    with graph.inserting_after(node):
        value = graph.call_function(operator.getitem, (node, 0))
    node.replace_all_uses_with(value, delete_user_cb=lambda user: user is not value)
    with graph.inserting_after(value):
        descriptor: fx.Node = graph.call_function(operator.getitem, (node, 1))
    return descriptor


def eliminate(graph: fx.Graph) -> None:
    """Drop the descriptors that nobody reads."""
    for node in reversed(list(graph.nodes)):
        if node.op == "call_function" and node.name.startswith("getitem") and not node.users:
            graph.erase_node(node)
