"""Diagrams drawn from real modules: what an attention does step by step, and which blocks of a network have one."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import nn

from excite.backbones.network import Network
from excite.common.plotting import COLOURS
from excite.explain.gates import find_sites
from excite.explain.svg import Box, Drawing, draw_graph
from excite.inspect.trace import Node, Trace, run_on_meta

SQUEEZE, GATE, RECALIBRATE, OTHER = COLOURS[0], COLOURS[4], COLOURS[2], "#888888"
LEGEND = {"squeeze": SQUEEZE, "gate": GATE, "recalibrate": RECALIBRATE}

# Operations that only look at the same numbers in another shape or type.
VIEWS = frozenset([
    "view", "_unsafe_view", "reshape", "unsqueeze", "squeeze", "transpose", "permute", "t", "expand", "detach", "alias",
    "clone", "_to_copy", "slice", "select", "split", "split_with_sizes", "chunk", "unbind", "as_strided", "narrow",
    "contiguous", "unfold",
])  # fmt: skip
WORDS = {
    "mul": "×", "add": "+", "sub": "−", "rsub": "1 −", "div": "÷", "amax": "maximum", "mm": "matrix product",
    "bmm": "matrix product", "addmm": "matrix product", "cat": "join", "stack": "join", "pow": "power",
    "sqrt": "square root", "rsqrt": "1 / square root", "_softmax": "softmax", "hardsigmoid": "hard sigmoid",
    "var_mean": "mean, variance", "convolution": "convolution", "native_batch_norm": "batch norm",
    "native_group_norm": "group norm", "reciprocal": "1 /", "constant_pad_nd": "padding",
}  # fmt: skip

PRODUCTS = ("mul", "mm", "bmm", "addmm")


@dataclass
class _Step:
    """One box to be: the nodes of a module's call, or of one operation between modules."""

    path: str
    module: nn.Module | None
    nodes: list[Node] = field(default_factory=list)


def module_diagram(module: nn.Module, name: str, shape: Sequence[int]) -> str:
    """Return the SVG of what a module does to a map: a box per part or operation, with its shape and its parameters.

    shape: of the input, `[n c *space]`. The module runs once, without data; boxes and arrows are what was recorded.
    Raises ExciteError where it does not run.
    """
    trace = run_on_meta(module, tuple(shape))
    steps, owner = _steps(trace, module)
    edges = {
        (owner[source], owner[node.index])
        for node in trace.nodes
        for source in node.inputs
        if owner[source] != owner[node.index]
    }
    read = {i for node in trace.nodes for i in node.inputs if owner[i] != owner[node.index]} | set(trace.results)
    colours = [_colour(step, trace) for step in steps]
    boxes = [Box(_title(step), _note(step, read), colour) for step, colour in zip(steps, colours, strict=True)]
    last = owner[trace.results[0]] if trace.results else len(boxes) - 1
    edges.add((last, len(boxes)))
    boxes.append(Box("y", _size(trace.nodes[trace.results[0]].shape) if trace.results else ""))
    useful = _leading_to(len(boxes) - 1, edges)
    numbers = {old: new for new, old in enumerate(sorted(useful))}
    links = [(numbers[a], numbers[b]) for a, b in edges if a in useful and b in useful]
    boxes = [boxes[i] for i in sorted(useful)]
    drawing = Drawing(name, "; ".join(f"{box.title} {box.note}".strip() for box in boxes))
    drawing.text(
        12, 22, f"{name}  ({sum(p.numel() for p in module.parameters()):,} parameters)", bold=True, anchor="start"
    )
    drawing.legend({words: colour for words, colour in LEGEND.items() if colour in colours}, 42)
    draw_graph(drawing, boxes, links, 60)
    return drawing.source()


@dataclass(frozen=True)
class CostLine:
    """One step of a module: what it is, the shape that it gives, its parameters, its multiply-accumulates."""

    part: str
    gives: str
    params: int
    macs: int


def cost_lines(module: nn.Module, shape: Sequence[int]) -> list[CostLine]:
    """Return what each step of a module costs on one input, in the order in which they run; views cost nothing.

    shape: of the input, `[n c *space]`. Multiply-accumulates are those of convolutions and matrix products.
    """
    trace = run_on_meta(module, tuple(shape))
    steps, _ = _steps(trace, module)
    calls = Counter(step.path for step in steps)
    own = _held_beside_parts(steps, module)
    seen: set[str] = set()
    lines = []
    for step in steps[1:]:
        macs = sum(op.macs for op in trace.ops if step.module is not None and op.path == step.path) // calls[step.path]
        fresh = step.module is not None and step.path not in seen  # a part that runs twice has its parameters once
        params = sum(p.numel() for p in step.module.parameters()) if step.module is not None and fresh else 0
        params += own.get(step.path, 0)
        seen.add(step.path)
        largest = max((node for node in step.nodes if node.shape != (0,)), key=lambda node: node.index)
        lines.append(CostLine(_title(step), _size(largest.shape), params, macs))
    return lines


def _held_beside_parts(steps: Sequence[_Step], module: nn.Module) -> dict[str, int]:
    """Return the numbers of parameters that modules with parts hold themselves, by the operation that uses them.

    That is the module's first product, else its first operation.
    """
    modules = dict(module.named_modules())
    users: dict[str, _Step] = {}
    for step in steps:
        if step.module is None and "#" in step.path:
            path = step.path.partition("#")[0]
            if path not in users or (step.nodes[0].op in PRODUCTS and users[path].nodes[0].op not in PRODUCTS):
                users[path] = step
    held = {path: sum(p.numel() for p in modules[path].parameters(recurse=False)) for path in users if path in modules}
    return {users[path].path: count for path, count in held.items()}


def _steps(trace: Trace, module: nn.Module) -> tuple[list[_Step], dict[int, int]]:
    """Group the nodes: one step per call of a part without parts, one per operation elsewhere; and each node's step."""
    modules = dict(module.named_modules())
    inner = {path.rpartition(".")[0] for path in trace.outputs if path}
    steps: list[_Step] = [_Step("x", None, [trace.nodes[0]])]
    owner = {0: 0}
    for node in trace.nodes[1:]:
        parts = [path for path in node.stack if path]
        path = next((p for p in parts if p.split(".")[-1] == "squeeze" or p not in inner), "")
        if not path and node.op in VIEWS:
            owner[node.index] = owner[node.inputs[0]]
            continue
        if path and steps[-1].path == path:
            steps[-1].nodes.append(node)
        else:
            step = _Step(path or (parts[-1] if parts else ""), modules[path] if path else None, [node])
            steps.append(step)
        owner[node.index] = len(steps) - 1
        if not path:
            steps[-1].path += f"#{node.index}"  # operations are steps of their own
    return steps, owner


def _title(step: _Step) -> str:
    module = step.module
    if module is None:
        if step.path == "x":
            return "x"
        op = step.nodes[0].op
        return WORDS.get(op, op.strip("_").replace("_", " "))
    kind = type(module).__name__
    if isinstance(module, nn.Linear):
        return f"{kind} {module.in_features} → {module.out_features}"
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        size = "×".join(map(str, module.kernel_size))
        ends = (
            "" if module.in_channels == module.out_channels == 1 else f", {module.in_channels} → {module.out_channels}"
        )
        return f"{kind} {size}{ends}"
    return kind


def _note(step: _Step, read: set[int]) -> str:
    """The shapes that others read, and the parameters."""
    shapes = dict.fromkeys(_size(node.shape) for node in step.nodes if node.index in read)
    text = " and ".join(list(shapes)[:2]) or _size(step.nodes[-1].shape)
    count = sum(p.numel() for p in step.module.parameters()) if step.module is not None else 0
    return text + (f" · {count:,} parameter{'s' if count > 1 else ''}" if count else "")


def _size(shape: Sequence[int]) -> str:
    """A shape without the batch of one."""
    sizes = shape[1:] if len(shape) > 1 and shape[0] == 1 else shape
    return " × ".join(map(str, sizes)) or "1"


def _colour(step: _Step, trace: Trace) -> str:
    parts = step.path.partition("#")[0].split(".")
    if "squeeze" in parts:
        return SQUEEZE
    if "gate" in parts or "fusion" in parts:
        return GATE
    node = step.nodes[0]
    if step.module is None and node.op == "mul" and node.shape == trace.input_shape:
        return RECALIBRATE
    return OTHER


def _leading_to(end: int, edges: set[tuple[int, int]]) -> set[int]:
    """The steps from which an edge leads to `end`, and the input."""
    reached, waiting = {0, end}, [end]
    while waiting:
        target = waiting.pop()
        for a, b in edges:
            if b == target and a not in reached:
                reached.add(a)
                waiting.append(a)
    return reached


STEP, SIDE, SPACE = 44, 36, 16  # pixels: from block to block, a block, between stages


def network_diagram(model: Network, name: str) -> str:
    """Return the SVG of a network: its stem and blocks, which of them have attention, and whose descriptors they read.

    An arrow leads from a block whose descriptor is in the bank to each block that reads it (EMCA).
    """
    paths = {id(block): path for path, block in model.named_modules()}
    blocks = model.blocks()
    sites = find_sites(model)
    inside = [any(site.name.startswith(paths[id(block)] + ".") for site in sites) for block in blocks]
    after = {site.stage for site in sites if not any(site.name.startswith(paths[id(b)] + ".") for b in blocks)}
    x, stages = _positions(model.depths, after)
    bank = [i for i, squeeze in enumerate([model.stem_squeeze, *(b.squeeze for b in blocks)]) if squeeze is not None]
    links = [(bank[s], i) for i, block in enumerate(blocks, 1) for s in block.sources]
    lift = max((12 + 0.28 * (x[b] - x[a]) for a, b in links), default=0)
    top = 60 + lift
    count = sum(inside) + len(after)
    reads = f"{len(links)} earlier descriptor{'s' * (len(links) != 1)} read"
    about = f"{len(blocks)} blocks in {len(model.depths)} stages, {count} attention modules, {reads}"
    drawing = Drawing(name, about)
    drawing.text(
        12, 22, f"{name}: attention {count} times" + (f", {reads}" if links else ""), bold=True, anchor="start"
    )
    legend = {"block": "#dddddd", "with attention": GATE} | ({"its descriptor is read": SQUEEZE} if links else {})
    drawing.legend(legend, 42)
    for i, at in enumerate(x):
        fill = GATE if i and inside[i - 1] else "#dddddd"
        drawing.rectangle(at - SIDE / 2, top, SIDE, SIDE, fill, "#999999")
        drawing.text(at, top + 23, "stem" if i == 0 else str(i), size=12)
        if i in bank:
            drawing.rectangle(at - 5, top - 5, 10, 10, SQUEEZE)
    for a, b in sorted(links):
        peak = top - 1.3 * (12 + 0.28 * (x[b] - x[a]))
        curve = f"M{x[a]:.0f} {top - 5:.0f} C{x[a]:.0f} {peak:.0f} {x[b]:.0f} {peak:.0f} {x[b]:.0f} {top - 2:.0f}"
        drawing.path(curve, SQUEEZE)
    for stage, (first, last) in enumerate(stages, 1):
        drawing.path(f"M{first - SIDE / 2:.0f} {top + SIDE + 8:.0f} H{last + SIDE / 2:.0f}", "#999999", arrow=False)
        drawing.text((first + last) / 2, top + SIDE + 24, f"stage {stage}" if last > first else str(stage), size=12)
        if stage in after:
            drawing.rectangle(last + SIDE / 2 + 6, top - 4, 10, SIDE + 8, GATE, "#999999")
    return drawing.source()


def _positions(depths: Sequence[int], after: set[int]) -> tuple[list[float], list[tuple[float, float]]]:
    """The middle of the stem and of each block, and the first and last of each stage."""
    x, stages = [12.0 + SIDE / 2], []
    for stage, depth in enumerate(depths, 1):
        start = x[-1] + STEP + SPACE * (1 + (stage - 1 in after))
        x += [start + STEP * i for i in range(depth)]
        stages.append((start, x[-1]))
    return x, stages
