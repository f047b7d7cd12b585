"""Questions asked of a trace: where branches join, what everything must pass through, what a block is."""

import heapq
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import torch
from torch import nn

from excite.errors import ExciteError, UsageError
from excite.inspect.attention import attention_paths, convolves
from excite.inspect.trace import WEIGHTED, LayerCall, Node, Trace, run_on_fakes, run_on_meta, run_on_zeros

Kind = Literal["residual", "concat", "block", "stage-end", "attention", "conv", "named"]
JOINS = {"add", "cat"}
POOLS = {"max_pool1d", "max_pool2d_with_indices", "max_pool3d_with_indices", "avg_pool2d", "avg_pool3d", "mean"}
# Input sizes to try, by the number of space axes.
SIZES = {
    1: ((1024,), (256,), (64,)),
    2: ((224, 224), (32, 32), (28, 28), (299, 299)),
    3: ((32, 112, 112), (16, 64, 64)),
}
CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


class Join(NamedTuple):
    """An addition (or concatenation) of a residual branch and a shortcut that start at the same map.

    node: the join; branch: the node that the branch ends in; inside: the branch's own nodes; owner: path of the module
    whose forward joins them.
    """

    node: int
    branch: int
    inside: frozenset[int]
    owner: str
    kind: Kind


@dataclass
class Graph:
    """A traced network, ready for questions."""

    model: nn.Module
    trace: Trace

    @property
    def input_size(self) -> tuple[int, ...]:
        """Channels, then space, of the sample that was followed."""
        return self.trace.input_shape[1:]

    @cached_property
    def calls(self) -> dict[str, list[LayerCall]]:
        """The calls of each module that ran, by path."""
        return self.trace.calls

    @cached_property
    def modules(self) -> dict[str, nn.Module]:
        """Every module by path."""
        return dict(self.model.named_modules())

    @cached_property
    def attention(self) -> tuple[str, ...]:
        """Paths of the attention modules that the network came with and that ran."""
        return tuple(path for path in attention_paths(self.model) if self.calls.get(path))

    @cached_property
    def replaceable(self) -> tuple[str, ...]:
        """The attention that another could stand in for: it turns one map into one alike and holds no convolution."""
        paths = (path for path in self.attention if not convolves(self.modules[path]))
        return tuple(path for path in paths if all(map(self._keeps_shape, self.calls[path])))

    def _keeps_shape(self, call: LayerCall) -> bool:
        nodes = self.trace.nodes
        return bool(call.inputs) and call.output is not None and nodes[call.inputs[0]].shape == nodes[call.output].shape

    @cached_property
    def users(self) -> list[list[int]]:
        """For each node the operations that read it, each by the first node that it made."""
        users: list[dict[int, int]] = [{} for _ in self.trace.nodes]
        for node in self.trace.nodes:
            for source in node.inputs:
                users[source].setdefault(node.event, node.index)
        return [list(u.values()) for u in users]

    @cached_property
    def spine(self) -> list[int]:
        """The nodes that everything from the input to the (last) output passes through, in order."""
        if not self.trace.results:
            return []
        above: list[int] = []
        depth: list[int] = []
        for node in self.trace.nodes:
            parent = node.inputs[0] if node.inputs else node.index
            for other in node.inputs[1:]:
                parent = self._meet(above, depth, parent, other)
            above.append(parent)
            depth.append(depth[parent] + 1 if node.inputs else 0)
        chain = [max(self.trace.results)]
        while above[chain[-1]] != chain[-1]:
            chain.append(above[chain[-1]])
        return chain[::-1]

    @staticmethod
    def _meet(above: list[int], depth: list[int], a: int, b: int) -> int:
        while a != b:
            a, b = (above[a], b) if depth[a] >= depth[b] else (a, above[b])
        return a

    def hidden(self, node: Node) -> bool:
        """True if a node was made inside an attention module of the network."""
        return not self._attention_set.isdisjoint(node.stack)

    @cached_property
    def _attention_set(self) -> frozenset[str]:
        return frozenset(self.attention)

    def _weighted(self, node: Node) -> bool:
        """True for a convolution or matrix product of the network itself, not of a gate."""
        gates = (path for path in node.stack if path in self._attention_set and not convolves(self.modules[path]))
        return node.op in WEIGHTED and next(gates, None) is None

    @cached_property
    def joins(self) -> list[Join]:
        """All joins of a residual branch with its shortcut, in order; of nested ones in one module, the outer."""
        found = [j for node in self.trace.nodes if (j := self._join(node)) is not None]
        return [j for j in found if not any(j.node in k.inside and j.owner == k.owner for k in found)]

    @cached_property
    def merges(self) -> list[Node]:
        """All additions and concatenations of two or more maps, residual or not."""
        return [n for n in self.trace.nodes if n.op in JOINS and self._merges(n)]

    def _merges(self, node: Node) -> bool:
        maps = [i for i in node.inputs if self.trace.is_map(i)]
        return len(set(maps)) >= 2 and self.trace.is_map(node.index) and not self.hidden(node)

    def _join(self, node: Node) -> Join | None:
        if node.op not in JOINS or len(node.inputs) != 2 or not self._merges(node):
            return None
        a, b = node.inputs
        nodes = self.trace.nodes
        if nodes[a].shape != nodes[b].shape or (node.op == "cat" and node.shape[1] != 2 * nodes[a].shape[1]):
            return None
        sides = self._sides(a, b)
        if sides is None:
            return None
        counts = [sum(self._weighted(nodes[i]) for i in side) for side in sides]
        branch, inside = (a, sides[0]) if counts[0] > counts[1] else (b, sides[1])
        # A shortcut is the identity or a projection: one convolution; ShuffleNet's has a depthwise one before it.
        most = 1 if node.op == "add" else 2
        if counts[0] == counts[1] or min(counts) > most or any(self._resamples(nodes[i]) for i in inside):
            return None
        owner = next((p for p in reversed(node.stack) if not self.hidden(node)), "")
        return Join(node.index, branch, inside, owner, "residual" if node.op == "add" else "concat")

    @staticmethod
    def _resamples(node: Node) -> bool:
        return "upsample" in node.op or node.op in ("convolution_transpose", "grid_sampler_2d", "pixel_shuffle")

    def _sides(self, a: int, b: int) -> tuple[frozenset[int], frozenset[int]] | None:
        """Walk back from both until they meet; return what lies on the way from each, or None where they never do."""
        marks = {a: 1, b: 2}
        queue = [-a, -b]
        heapq.heapify(queue)
        while queue:
            i = -heapq.heappop(queue)
            if marks[i] == 3:
                own = {k: v for k, v in marks.items() if k > i}
                return frozenset(k for k, v in own.items() if v == 1), frozenset(k for k, v in own.items() if v == 2)
            for source in self.trace.nodes[i].inputs:
                if source not in marks:
                    heapq.heappush(queue, -source)
                marks[source] = marks.get(source, 0) | marks[i]
        return None

    def once(self, path: str) -> bool:
        """Tell whether a module ran exactly once."""
        return len(self.calls.get(path, ())) == 1

    def output(self, path: str) -> int | None:
        """Return the node that a module returned, or None where it ran more than once or returned no single map."""
        if not self.once(path):
            return None
        node = self.calls[path][0].output
        return node if node is not None and self.trace.is_map(node) else None

    @cached_property
    def blocks(self) -> dict[str, int]:
        """Path -> output node of every block: a module that joins branches, and its like without a join."""
        owners = [j.owner for j in self.joins] or [n.stack[-1] for n in self.merges if n.stack]
        owners = [o for o in dict.fromkeys(owners) if o]
        types = {type(self.modules[o]) for o in owners if not isinstance(self.modules[o], CONTAINERS)}
        shapes = {re.sub(r"\d+", "#", o) for o in owners}
        shapes = {s for s in shapes if s.count("#") >= 2}
        found = {}
        for path, module in self.modules.items():
            alike = type(module) in types or (any(module.children()) and re.sub(r"\d+", "#", path) in shapes)
            if path and (path in owners or alike) and not self._within_attention(path):
                node = self.output(path)
                if node is not None:
                    found[path] = node
        return found

    def _within_attention(self, path: str) -> bool:
        return any(path == a or path.startswith(a + ".") for a in self.attention)

    @cached_property
    def units(self) -> list[int]:
        """For networks without branches: the end of each convolution with its norm and activation, on the spine."""
        ends: list[int] = []
        current: int | None = None
        for i in self.spine:
            node = self.trace.nodes[i]
            if node.op in WEIGHTED:
                ends += [current] if current is not None else []
                current = i if self.trace.is_map(i) else None
            elif current is not None:
                last = self.trace.nodes[current]
                if node.shape == last.shape and node.op not in POOLS and node.inputs[0] == current:
                    current = i
                else:
                    ends.append(current)
                    current = None
        return ends + ([current] if current is not None else [])


def follow(model: nn.Module, input_size: Sequence[int] | str | None = None) -> Graph:
    """Follow one sample of `input_size` (channels, then space) through `model`, mostly without data.

    Without `input_size` the network's first convolution and, for timm, its configuration say what to try.
    Raises UsageError where the network has no convolution, ExciteError where no size passes through it.
    """
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    failures = []
    for size in [_sizes(input_size)] if input_size is not None else _guesses(model):
        shape = (1, *size)
        ways = [lambda: run_on_meta(model, shape, like.dtype), lambda: run_on_fakes(model, shape, like)]  # noqa: B023
        if math.prod(size) <= 3 * 64 * 64:  # quickest first; data only where it is cheap
            ways.append(lambda: run_on_zeros(model, shape, like))  # noqa: B023
        for way in ways:
            try:
                return Graph(model, way())
            except ExciteError as error:
                cause = error.__cause__ or error
                failures.append(f"{size}: {type(cause).__name__}: {(str(cause).splitlines() or [''])[0]}")
    tried = "; ".join(dict.fromkeys(f[:160] for f in failures))
    raise ExciteError(
        f"cannot follow {type(model).__name__}: its forward pass failed for every input size tried ({tried}); "
        "name one with input_size=(channels, height, width), or pass the part that maps an image to features"
    )


def _sizes(given: Sequence[int] | str) -> tuple[int, ...]:
    """Read channels and space, also from text as a command line gives it ("3,224,224" or "3x224x224")."""
    parts = re.split(r"[x,]", given) if isinstance(given, str) else given
    try:
        sizes = tuple(int(p) for p in parts)
    except (TypeError, ValueError):
        sizes = ()
    if not 2 <= len(sizes) <= 4 or min(sizes) < 1:
        raise UsageError(f"input_size={given!r} is not (channels, height, width), (channels, length) or 3-D alike")
    return sizes


def _guesses(model: nn.Module) -> Iterable[tuple[int, ...]]:
    """Yield input sizes that the network may accept, likeliest first."""
    conv = next((m for m in model.modules() if isinstance(m, nn.Conv1d | nn.Conv2d | nn.Conv3d)), None)
    if conv is None:
        raise UsageError(f"{type(model).__name__} has no convolution, so it has no channels to weigh")
    config = getattr(model, "pretrained_cfg", None) or getattr(model, "default_cfg", None) or {}
    known = config.get("input_size") if isinstance(config, dict) else None
    if known:
        yield (conv.in_channels, *known[1:])
    for space in SIZES[len(conv.kernel_size)]:
        yield (conv.in_channels, *space)
