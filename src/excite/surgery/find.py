"""List the sites of a network."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from torch import nn

from excite.surgery.carrier import refuse
from excite.surgery.graph import Graph, follow
from excite.surgery.locate import Place, locate, usable
from excite.surgery.site import Kind, Site


def sites(model: nn.Module, input_size: Sequence[int] | None = None) -> list[Site]:
    """Return all sites of `model`, in the order of its forward pass; the model is not changed.

    The forward pass is followed once on tensors without data, in eval mode. input_size: channels, then space, of one
    sample; without it common sizes are tried. Sites of kind "attention" and "conv" serve `replace=True`.
    Raises UsageError for a wrapped or compiled model or one without convolution, ExciteError where the forward fails.
    """
    refuse(model)
    return find(follow(model, input_size))


def find(graph: Graph) -> list[Site]:
    """Return all sites of a traced network."""
    blocks = _blocks(graph)
    sizes = number([graph.trace.nodes[place.node].space for place, _ in blocks])
    ends = _stage_ends(graph)
    found: dict[tuple[str, str], Site] = {}
    for (place, kind), (stage, block, last) in zip(blocks, sizes, strict=True):
        presets = ["residual"] if kind in ("residual", "concat") else []
        presets += ["all-blocks"] + ["first-in-stage"] * (block == 0) + ["last-in-stage"] * last
        found[place.path, place.side] = _site(graph, place, kind, stage, block, presets)
    for order, place in enumerate(ends):
        presets = ["stage-ends"] + ["between-stages"] * (order < len(ends) - 1)
        known = found.get((place.path, place.side)) or _site(graph, place, "stage-end", order, 0, [])
        found[place.path, place.side] = replace(known, presets=(*known.presets, *presets))
    outputs = {s.path: graph.calls[s.path][0].output or 0 for s in found.values()}
    listed = sorted(found.values(), key=lambda s: outputs[s.path])
    return listed + _replaceable(graph, listed)


def _site(graph: Graph, place: Place, kind: Kind, stage: int, block: int, presets: Iterable[str]) -> Site:
    node = graph.trace.nodes[place.node]
    return Site(place.path, node.shape[1], kind, stage, block, node.space, place.side, tuple(presets))


def _blocks(graph: Graph) -> list[tuple[Place, Kind]]:
    """Return the ends of residual branches and of blocks without a shortcut, in order."""
    ends: list[tuple[int, Kind]] = [(j.branch, j.kind) for j in graph.joins]
    owners = {j.owner for j in graph.joins}
    block: Kind = "block"
    ends += [(node, block) for path, node in innermost(graph).items() if path not in owners]
    if not graph.blocks and not graph.joins:
        ends = [(node, "block") for node in graph.units]
    places: dict[tuple[str, str], tuple[Place, Kind]] = {}
    for node, kind in sorted(ends):
        place = locate(graph, node)
        if place is not None:
            places.setdefault((place.path, place.side), (place, kind))
    return list(places.values())


def innermost(graph: Graph) -> dict[str, int]:
    """Return path and output node of the blocks that hold no other block."""
    return {p: n for p, n in graph.blocks.items() if not any(o.startswith(p + ".") for o in graph.blocks)}


def number(spaces: Sequence[tuple[int, ...]]) -> list[tuple[int, int, bool]]:
    """Number blocks by their maps' sizes: the stage, the position there, and whether it is the stage's last."""
    numbers: list[tuple[int, int, bool]] = []
    stage, block = 0, 0
    for i, space in enumerate(spaces):
        if i and space != spaces[i - 1]:
            stage, block = stage + 1, 0
        numbers.append((stage, block, i + 1 == len(spaces) or spaces[i + 1] != space))
        block += 1
    return numbers


def _stage_ends(graph: Graph) -> list[Place]:
    """Return the last block output (or, without blocks, the last unit) of every run of one spatial size."""
    spine = set(graph.spine)
    candidates = set(graph.blocks.values()) or {_after(graph, n.index) for n in graph.merges}
    candidates = {n for n in candidates if n in spine} or set(graph.units)
    order = sorted(candidates)
    ends = []
    for i, node in enumerate(order):
        if i + 1 == len(order) or graph.trace.nodes[order[i + 1]].space != graph.trace.nodes[node].space:
            place = locate(graph, node)
            if place is not None:
                ends.append(place)
    return ends


def _after(graph: Graph, node: int) -> int:
    """Follow a join to the end of the element-wise operations behind it (its activation)."""
    while len(graph.users[node]) == 1:
        user = graph.trace.nodes[graph.users[node][0]]
        if len(user.inputs) != 1 or user.op not in ("relu", "gelu", "silu", "hardswish", "leaky_relu", "hardtanh"):
            break
        node = user.index
    return node


def _replaceable(graph: Graph, listed: Sequence[Site]) -> list[Site]:
    """Return attention that is there already, and the spatial convolutions of residual branches."""
    found: list[Site] = []
    for path in graph.replaceable:
        call = graph.calls[path][0]
        node = graph.trace.nodes[call.inputs[0]]
        if graph.once(path) and graph.trace.is_map(node.index):
            found.append(Site(path, node.shape[1], "attention", size=node.space, place="instead"))
    for join in graph.joins:
        conv = next((p for i in sorted(join.inside) if (p := _spatial(graph, i)) is not None), None)
        if conv is not None:
            size = graph.trace.nodes[graph.calls[conv][0].output or 0].space
            found.append(Site(conv, graph.modules[conv].in_channels, "conv", size=size, place="instead"))  # type: ignore[arg-type]
    runs: dict[str, list[Site]] = {"attention": [], "conv": []}
    for site in found:
        runs[site.kind].append(site)
    return [s for run in runs.values() for s in _numbered(run)]


def _numbered(run: Sequence[Site]) -> list[Site]:
    out: list[Site] = []
    for site, (stage, block, last) in zip(run, number([s.size for s in run]), strict=True):
        presets = ["residual", "all-blocks", *["first-in-stage"] * (block == 0), *["last-in-stage"] * last]
        out.append(replace(site, stage=stage, block=block, presets=tuple(presets)))
    return out


def _spatial(graph: Graph, node: int) -> str | None:
    """Return the path of an undilated k x k convolution (no depthwise one) that made a node."""
    made = graph.trace.nodes[node]
    path = made.stack[-1] if made.stack else ""
    module = graph.modules[path]
    if made.op != "convolution" or not isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d) or not usable(graph, path):
        return None
    depthwise = 1 < module.groups == module.in_channels
    plain = all(k > 1 for k in module.kernel_size) and all(d == 1 for d in module.dilation)
    return path if plain and not depthwise else None
