"""EMCA on foreign networks: descriptors as explicit edges of the network's FX graph.

Every block that takes part is a port: it gets the descriptors of earlier blocks as an argument and returns its map and
its own descriptor. The network's forward is rewritten so that the descriptors flow along; keys of the host stay.
"""

from collections.abc import Mapping
from dataclasses import replace

from torch import fx, nn

from excite.backbones.emca_plan import EmcaSpec, emca_options, emca_spec
from excite.backbones.placement import Site as Position
from excite.common.options import check_names
from excite.errors import ExciteError, UsageError
from excite.ops import recalibrate
from excite.surgery.carrier import carriers, carry, drop
from excite.surgery.find import innermost, number
from excite.surgery.graph import Graph
from excite.surgery.hosted import descriptor_of, eliminate, host, trace_both
from excite.surgery.locate import locate
from excite.surgery.select import Wanted, select
from excite.surgery.site import Site
from excite.types import Descriptor, FeatureMap


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
            own: Descriptor = self.emca.squeeze(x)  # type: ignore[operator]
            return recalibrate(x, self.emca.factor(own, context)), own  # type: ignore[operator]
        y = x if self.emca is None else self.emca(x, context)
        return y, None if self.squeeze is None else self.squeeze(y)


def connect(graph: Graph, method: str, wanted: Wanted | None, options: Mapping[str, object]) -> list[Site]:
    """Put EMCA `method` into the traced network; returns the sites of the attention (not those that are only read).

    options: form, stages, blocks and where as for EMCA networks, and the gate's.
    """
    check_names(f"method {method!r}", options, emca_options(method))
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
