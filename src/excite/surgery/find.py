"""The sites of a network: what there is, where a tensor can be got at, and which ones a user means."""

import difflib
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from torch import nn
from torch.nn.modules.instancenorm import _InstanceNorm

from excite.errors import UsageError, near
from excite.inspect.trace import WEIGHTED
from excite.surgery.carrier import refuse
from excite.surgery.graph import CONTAINERS, NORM_OPS, Graph, Kind, follow, has_weights

PRESETS = (
    "residual", "stage-ends", "between-stages", "all-blocks", "first-in-stage", "last-in-stage",
    "yolo-backbone", "yolo-neck",
)  # fmt: skip


@dataclass(frozen=True)
class Site:
    """One place for attention.

    path: the module there. channels: of the map that attention will weigh. kind: "residual" (end of a residual branch,
    before the addition), "concat" (the same, before a concatenation with the shortcut), "block" (end of a block without
    a shortcut), "stage-end", "attention" (attention that the network came with), "conv" (the k x k convolution of a
    residual branch) or "named" (asked for by path). stage, block: position counted from 0; a stage is a run of blocks
    of one spatial size. size: spatial size of the map when it was found. place: attention goes "after" the
    module, "before" it (where the module hands its input through, such as drop path) or "instead" of it.
    presets: names under which `attach` selects the site.
    """

    path: str
    channels: int
    kind: Kind
    stage: int = 0
    block: int = 0
    size: tuple[int, ...] = ()
    place: Literal["after", "before", "instead"] = "after"
    presets: tuple[str, ...] = ()


STEPS = 4


class Place(NamedTuple):
    """A module, and the side of it on which the tensor is."""

    path: str
    side: Literal["after", "before"]
    node: int


def locate(graph: Graph, node: int) -> Place | None:
    """Return the place of a tensor, or None where no module can carry attention for it.

    Best is the innermost module that made the tensor, then one that hands it through (drop path, identity), then its
    only reader; where all fail, the same is asked of the tensor one element-wise operation earlier (layer scale). Never
    before a norm, be it a module that runs twice or written out: what a map is scaled by there, the norm takes away.
    """
    for _ in range(STEPS):
        for search in (_maker, _conduit, _reader):
            path = search(graph, node)
            if path is not None:
                return Place(path, "after" if search is _maker else "before", node)
        made = graph.trace.nodes[node]
        maps = [i for i in made.inputs if graph.trace.nodes[i].shape == made.shape]
        rest = [graph.trace.nodes[i] for i in made.inputs if i not in maps]
        weighs = made.op == "mul" and all(o.shape[:2] == made.shape[:2] and math.prod(o.space) == 1 for o in rest)
        barrier = made.op in WEIGHTED or made.op in NORM_OPS or (rest and not weighs)
        if len(maps) != 1 or barrier or not graph.trace.is_map(maps[0]):
            return None
        node = maps[0]
    return None


def usable(graph: Graph, path: str) -> bool:
    """Tell whether a module may carry attention.

    It ran once, is no mere container, and lies neither inside attention nor inside what folds into one convolution.
    """
    if not path or not graph.once(path) or graph.folded(path) is not None:
        return False
    container = isinstance(graph.modules[path], CONTAINERS) and path not in graph.folds
    return not container and not any(path.startswith(a + ".") for a in graph.attention)


# What leaves a channel's numbers as they are, or changes all of them alike.
ALIKE = {
    "mul",
    "div",
    "add",
    "sub",
    "view",
    "_unsafe_view",
    "reshape",
    "clone",
    "dropout",
    "native_dropout",
    "_to_copy",
}


def behind_instance_norm(graph: Graph, site: Site) -> bool:
    """Tell whether a site's map comes from an instance norm: each channel's mean and deviation are its parameters."""
    call = graph.calls[site.path][0]
    node = call.output if site.place == "after" else next(iter(call.inputs), None)
    while node is not None:
        made = graph.trace.nodes[node]
        norm = graph.modules[made.stack[-1]] if made.stack else None
        if isinstance(norm, _InstanceNorm) or (isinstance(norm, nn.GroupNorm) and norm.num_groups == norm.num_channels):
            return True
        node = made.inputs[0] if made.op in ALIKE and len(made.inputs) == 1 else None
    return False


def _maker(graph: Graph, node: int) -> str | None:
    stack = graph.trace.nodes[node].stack
    for path in reversed(stack):
        if usable(graph, path) and graph.output(path) == node:
            return path
    return None


def _conduit(graph: Graph, node: int) -> str | None:
    for path, calls in graph.calls.items():
        if usable(graph, path) and calls[0].output == node and calls[0].inputs[:1] == (node,):
            return path
    return None


def _reader(graph: Graph, node: int) -> str | None:
    if len(graph.users[node]) != 1 or node in graph.trace.results:
        return None
    user = graph.trace.nodes[graph.users[node][0]]
    for path in reversed(user.stack):
        if usable(graph, path) and graph.calls[path][0].inputs[:1] == (node,):
            return path
    return None


def sites(model: nn.Module, input_size: Sequence[int] | None = None, *, example: object = None) -> list[Site]:
    """Return all sites of `model`, in the order of its forward pass; the model is not changed.

    The forward pass is followed once on tensors without data, in eval mode. input_size: channels, then space, of one
    sample; without it common sizes are tried. example: what the network takes instead: a tensor, a tuple of arguments
    or a dict of keyword arguments. Sites of kind "attention" and "conv" serve `replace=True`.
    Raises UsageError for a wrapped or compiled model or one without convolution, ExciteError where the forward fails.
    """
    refuse(model)
    return find(follow(model, input_size, example))


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
    for preset, places in zip(("yolo-backbone", "yolo-neck"), _layers(graph), strict=True):
        for place in places:
            known = found.get((place.path, place.side)) or _site(graph, place, "block", 0, 0, [])
            found[place.path, place.side] = replace(known, presets=(*known.presets, preset))
    outputs = {s.path: graph.calls[s.path][0].output or 0 for s in found.values()}
    listed = sorted(found.values(), key=lambda s: outputs[s.path])
    return listed + _replaceable(graph, listed)


def _site(graph: Graph, place: Place, kind: Kind, stage: int, block: int, presets: Iterable[str]) -> Site:
    node = graph.trace.nodes[place.node]
    return Site(place.path, node.shape[1], kind, stage, block, node.space, place.side, tuple(presets))


def _blocks(graph: Graph) -> list[tuple[Place, Kind]]:
    """Return the ends of residual branches and of blocks without a shortcut, in order."""
    joins = [j for j in graph.joins if locate(graph, j.branch) is not None]
    ends: list[tuple[int, Kind]] = [(j.branch, j.kind) for j in joins]
    owners = {j.owner for j in joins}
    block: Kind = "block"
    ends += [(node, block) for path, node in innermost(graph).items() if path not in owners]
    if graph.decodes or not ends:
        ends += [(node, block) for node in _free_units(graph)]
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


def _layers(graph: Graph) -> tuple[list[Place], list[Place]]:
    """Return the outputs of the merging layers of a detector's backbone and of its neck.

    Layers are the children of the innermost module that holds the whole detector. The neck starts where a map is made
    larger; a merging layer has weights (a bare concatenation has none) and is no head (which returns several tensors).
    """
    nodes = graph.trace.nodes
    grows = [n for n in nodes if graph.enlarges(n) and graph.trace.is_map(n.inputs[0])]
    if not graph.decodes or not grows:
        return [], []
    root = _body(graph)
    merging = {f"{root}{path.removeprefix(root).split('.')[0]}" for path in graph.merging if path.startswith(root)}
    weighted = {path for n in nodes if n.op in WEIGHTED for path in n.stack}
    ends = sorted(node for path in merging & weighted if (node := graph.output(path)) is not None)
    places = [p for node in ends if not graph.is_output(node) and (p := locate(graph, node)) is not None]
    start = grows[0].index
    return [p for p in places if p.node < start], [p for p in places if p.node > start]


def _body(graph: Graph) -> str:
    """Return the path, with its dot, of the innermost module in which all others ran."""
    prefix = ""
    while True:
        children = {path.removeprefix(prefix).split(".")[0] for path in graph.calls if path.startswith(prefix) and path}
        if len(children) != 1:
            return prefix
        prefix += children.pop() + "."


def _free_units(graph: Graph) -> list[int]:
    """Return the units on the main path that lie in no block."""
    nodes = graph.trace.nodes
    return [i for i in graph.units if not any(path in graph.blocks for path in nodes[i].stack)]


def _stage_ends(graph: Graph) -> list[Place]:
    """Return the last candidate of every run of one spatial size on the main path.

    Candidates are outputs of blocks and of modules that join maps; in encoder-decoders and where there is none, units.
    """
    way = set(graph.way)
    candidates = set(graph.blocks.values())
    for node in graph.merges:
        if any(path in graph.blocks for path in node.stack):
            continue
        output = graph.output(node.stack[-1]) if node.stack and node.stack[-1] else None
        candidates.add(_after(graph, node.index) if output is None else output)
    candidates &= way
    if graph.decodes or not candidates:
        candidates |= set(_free_units(graph))
    order = sorted(i for i in candidates if not graph.is_output(i))
    ends = []
    for i, end in enumerate(order):
        if i + 1 == len(order) or graph.trace.nodes[order[i + 1]].space != graph.trace.nodes[end].space:
            place = locate(graph, end)
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
    convs = [next((p for i in sorted(j.inside) if (p := _spatial(graph, i)) is not None), None) for j in graph.joins]
    for conv in dict.fromkeys(convs):
        if conv is not None:
            size = graph.trace.nodes[graph.calls[conv][0].output or 0].space
            channels: int = graph.modules[conv].in_channels  # type: ignore[assignment]  # a convolution's
            found.append(Site(conv, channels, "conv", size=size, place="instead"))
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


Wanted = str | Sequence[str]


def select(graph: Graph, wanted: Wanted, kind: str | None = None) -> list[Site]:
    """Return the sites that `wanted` names: a preset, a pattern (or several with commas), or a list of either.

    In a pattern `*` stands for anything but a dot, `**` for anything, `[34]` for one of these characters. kind: where
    given ("attention", "conv"), choose among what can be replaced, else among places to add to.
    Raises UsageError where nothing is found, naming what was looked for.
    """
    listed = [s for s in find(graph) if (s.kind == kind if kind else s.place != "instead")]
    names = [wanted] if isinstance(wanted, str) else list(wanted)
    names = [part.strip() for name in names for part in _split(name)]
    if not names:
        raise UsageError("sites is empty; name a preset, a pattern or a list of module paths")
    chosen: dict[tuple[str, str], Site] = {}
    for name in names:
        for site in _preset(graph, listed, name, kind) if name in PRESETS else _named(graph, listed, name, kind):
            chosen[site.path, site.place] = site
    return list(chosen.values())


def _split(name: str) -> list[str]:
    if not isinstance(name, str):
        raise UsageError(f"sites takes a preset, a pattern or a list of module paths, got {name!r}")
    return re.split(r",(?![^\[]*\])", name)


def _preset(graph: Graph, listed: Sequence[Site], name: str, kind: str | None) -> list[Site]:
    found = [s for s in listed if name in s.presets]
    if found:
        return found
    model, count = type(graph.model).__name__, len(graph.trace.nodes)
    if kind == "attention":
        raise UsageError(f"{model} has no attention to replace at {name!r} (looked for {_looked(kind)})")
    again = [p for p in graph.repeated if has_weights(graph.modules[p])]
    if again and not any(s.place != "instead" for s in listed):
        part = again[0]
        raise UsageError(
            f"no sites {name!r} in {model}: {part!r} runs {len(graph.calls[part])} times in a forward pass, so it is "
            f"not plain which map is meant; attach to the part itself: excite.attach(model.{part}, ...)"
        )
    shared = next((p for p in graph.repeated if not has_weights(graph.modules[p])), None)
    own = f"{shared!r} runs {len(graph.calls[shared])} times: give every call a module of its own; " if shared else ""
    others = {p: sum(p in s.presets for s in listed) for p in PRESETS}
    rest = ", ".join(f"{p!r} has {n}" for p, n in others.items() if n) or "the other presets have none either"
    paths = [p for p in graph.modules if p and graph.output(p) is not None and usable(graph, p)]
    example = f"; or name modules, for example sites={paths[len(paths) // 2]!r}" if paths else ""
    raise UsageError(
        f"no sites {name!r} in {model}: among its {count} operations, looked for {_looked(kind or name)}; "
        f"{own}{rest}{example}"
    )


def _looked(what: str) -> str:
    return {
        "attention": "channel attention that keeps the shape of a feature map and holds no convolution",
        "conv": "the first k x k convolution (not depthwise, not dilated) of every residual branch",
        "residual": "an addition of a branch of convolutions and a shortcut (or a shuffled concatenation of them)",
        "yolo-backbone": "layers that join maps and hold convolutions, before a map is made larger and joined",
        "yolo-neck": "layers that join maps and hold convolutions, after a map is made larger and joined",
        "stage-ends": "the last block, or convolution unit, before the map gets smaller",
    }.get(what, "blocks: modules that join branches, or convolution units on the main path")


def _named(graph: Graph, listed: Sequence[Site], name: str, kind: str | None) -> list[Site]:
    expression = re.compile(_translate(name))
    exact = [s for s in listed if expression.fullmatch(s.path)]
    if exact:
        # The same path may be matched again below as a plain module; what is known of the site is kept.
        matched = {s.path for s in exact}
    else:
        matched = set()
    if kind:
        if not exact:
            raise UsageError(f"no {kind} matches {name!r}; there are: {some([s.path for s in listed])}")
        return exact
    paths = [p for p in graph.modules if p and p not in matched and expression.fullmatch(p)]
    found = exact + [_named_site(graph, p, listed) for p in paths]
    if not found:
        close = near(name, [*graph.modules, *PRESETS]) or difflib.get_close_matches(name, PRESETS, 1)
        hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
        raise UsageError(
            f"sites={name!r} is no preset ({', '.join(PRESETS)}) and matches no module of {name_of(graph)}; "
            f"{hint}excite.sites(model) lists: {some([s.path for s in listed])}"
        )
    return found


def name_of(graph: Graph) -> str:
    """Return the class name of the network."""
    return type(graph.model).__name__


def some(paths: Sequence[str], most: int = 6) -> str:
    """Return the first few paths as text."""
    shown = ", ".join(paths[:most]) or "none"
    return shown + (f", ... ({len(paths)} in all)" if len(paths) > most else "")


def _translate(pattern: str) -> str:
    """Turn a pattern of paths into a regular expression."""
    parts = re.split(r"(\*\*|\*|\?|\[[^\]]*\])", pattern)
    special = {"**": ".*", "*": r"[^.]*", "?": r"[^.]"}
    return "".join(special.get(p) or (p if p.startswith("[") and p.endswith("]") else re.escape(p)) for p in parts)


def _named_site(graph: Graph, path: str, listed: Sequence[Site]) -> Site:
    """Return the site of a module that was named. Raises UsageError, saying why, where it cannot be one."""
    calls = graph.calls.get(path, [])
    if not calls:
        raise UsageError(f"{path!r} did not run in the forward pass, so its channels are unknown; name another module")
    if len(calls) > 1:
        raise UsageError(f"{path!r} runs {len(calls)} times in a forward pass; name a module that runs once")
    inside = next((a for a in graph.attention if path.startswith(a + ".")), None)
    if inside is not None:
        raise UsageError(f"{path!r} is inside the attention {inside!r}; name another module, or use replace=True")
    folding = graph.folded(path)
    if folding is not None:
        raise UsageError(
            f"{path!r} lies in {folding!r} ({type(graph.modules[folding]).__name__}), which can fold its parts into "
            f"one convolution and would drop the attention; name {folding!r}"
        )
    node = calls[0].output
    if node is None or not graph.trace.is_map(node):
        shape = "no single tensor" if node is None else f"a tensor of shape {graph.trace.nodes[node].shape}"
        raise UsageError(
            f"channels unknown: {path!r} returns {shape}, not a feature map [n c *space]; name another module"
        )
    place = locate(graph, node)
    if place is None or place.node != node:
        raise UsageError(f"{path!r} is a container and none of its members returns its output; name one of them")
    made = graph.trace.nodes[node]
    stage = next((s.stage for s in listed if s.size == made.space), 0)
    return Site(place.path, made.shape[1], "named", stage, size=made.space, place=place.side)
