"""Questions asked of a trace: where branches join, what everything must pass through, what a block is."""

import heapq
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from torch import nn

from excite.errors import ExciteError, UsageError
from excite.inspect.attention import attention_paths, convolves
from excite.inspect.trace import (
    WEIGHTED,
    LayerCall,
    Node,
    Trace,
    run_example,
    run_on_fakes,
    run_on_meta,
    run_on_zeros,
    tensors_in,
)

Kind = Literal["residual", "concat", "block", "stage-end", "attention", "conv", "named"]
JOINS = {"add", "cat"}
NORM_OPS = {
    "native_batch_norm", "cudnn_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training",
    "native_group_norm", "native_layer_norm", "_fused_rms_norm",
}  # fmt: skip
ACTIVATIONS = {
    "relu", "gelu", "silu", "hardswish", "leaky_relu", "hardtanh", "elu", "mish", "prelu", "tanh", "sigmoid",
    "hardsigmoid", "softplus",
}  # fmt: skip
SLICES = {"split", "split_with_sizes", "slice", "select", "narrow", "unbind", "chunk"}
# Methods by which a module folds its own parts into one convolution; what its parts carry is lost then.
FOLDING = ("fuse", "reparameterize", "switch_to_deploy", "forward_fuse")
POOLS = {"max_pool1d", "max_pool2d_with_indices", "max_pool3d_with_indices", "avg_pool2d", "avg_pool3d", "mean"}
# Input sizes to try, by the number of space axes.
SIZES = {
    1: ((1024,), (256,), (64,)),
    2: ((224, 224), (32, 32), (28, 28), (299, 299)),
    3: ((32, 112, 112), (16, 64, 64)),
}
SQUEEZES = {"mean", "sum", "avg_pool2d", "amax", "adaptive_max_pool2d", "_adaptive_avg_pool2d", "_adaptive_avg_pool3d"}
CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


class Join(NamedTuple):
    """An addition (or concatenation) of a residual branch and a shortcut that start at the same map.

    node: the join; branch: the node that the branch ends in; inside: the branch's own nodes; bare: whether nothing lies
    on the shortcut; owner: path of the module whose forward joins them.
    """

    node: int
    branch: int
    inside: frozenset[int]
    bare: bool
    owner: str
    kind: Kind


class Fork(NamedTuple):
    """Where several tensors come from together.

    start: the last node on the way to all of them; sides: for each, the nodes after `start` that lead to it and to none
    of the others; lines: the same with the nodes that they share; closed: whether no other feature map enters between.
    """

    start: int
    sides: tuple[frozenset[int], ...]
    lines: tuple[frozenset[int], ...]
    closed: bool


@dataclass
class Graph:
    """A traced network, ready for questions.

    example: what was given to it, where that was not made from a size. named: classes that are attention by the user's
    word, beside those that are recognised.
    """

    model: nn.Module
    trace: Trace
    example: object = None
    named: tuple[str, ...] = ()

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
        return tuple(path for path in attention_paths(self.model, self.named) if self.calls.get(path))

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
    def _events(self) -> dict[int, list[int]]:
        """The nodes that each operation made."""
        events: dict[int, list[int]] = {}
        for node in self.trace.nodes:
            events.setdefault(node.event, []).append(node.index)
        return events

    @cached_property
    def spine(self) -> list[int]:
        """The nodes that everything from the input to the (last) output passes through, in order."""
        if not self.trace.results:
            return []
        above: list[int] = []
        depth: list[int] = []
        for node in self.trace.nodes:
            parent = node.inputs[0] if node.inputs else -1
            for other in node.inputs[1:]:
                parent = self._meet(above, depth, parent, other)
            above.append(parent)
            depth.append(depth[parent] + 1 if parent >= 0 else 0)
        chain = [max(self.trace.results)]
        while above[chain[-1]] >= 0:
            chain.append(above[chain[-1]])
        return chain[::-1]

    @staticmethod
    def _meet(above: list[int], depth: list[int], a: int, b: int) -> int:
        """Return the last node before both, or -1 where they come from different inputs."""
        while a != b and min(a, b) >= 0:
            a, b = (above[a], b) if depth[a] >= depth[b] else (a, above[b])
        return min(a, b)

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
        """All joins of a residual branch with its shortcut, in order.

        Of nested ones the inner count where one of them has a bare shortcut (a branch that holds residual blocks is no
        block), else the outer.
        """
        found = [j for node in self.trace.nodes if (j := self._join(node)) is not None]
        inner = {j.node: [k for k in found if k.node in j.inside] for j in found}
        nests = {j.node for j in found if any(k.bare for k in inner[j.node])}
        hidden = {k.node for j in found if j.node not in nests for k in inner[j.node]}
        return [j for j in found if j.node not in nests | hidden]

    @cached_property
    def merges(self) -> list[Node]:
        """All additions and concatenations of two or more maps, residual or not."""
        return [n for n in self.trace.nodes if n.op in JOINS and self._merges(n)]

    @cached_property
    def merging(self) -> tuple[str, ...]:
        """Paths of the modules whose own forward merges maps, without those that enlarge one to do so."""
        larger = {path for n in self.trace.nodes if self.enlarges(n) for path in n.stack}
        owners = dict.fromkeys(self._merger(n) for n in self.merges if n.stack)
        return tuple(o for o in owners if o and o not in larger)

    def _merger(self, node: Node) -> str:
        """Return the module that merges maps in a node: where a sequence only collects them, the block around it.

        In VoVNet a sequence concatenates what its members made, and the next convolution of the block joins it. A block
        is one of several of its class.
        """
        owner = node.stack[-1]
        around = owner.rpartition(".")[0]
        readers = [self.trace.nodes[i] for i in self.users[node.index]]
        if not around or not isinstance(self.modules[owner], nn.Sequential) or len(readers) != 1:
            return owner
        kind = type(self.modules[around])
        joined = readers[0].op == "convolution" and around in readers[0].stack
        several = sum(type(m) is kind for m in self.modules.values()) > 1
        return around if joined and several and not issubclass(kind, CONTAINERS) else owner

    def _merges(self, node: Node) -> bool:
        maps = [i for i in node.inputs if self.trace.is_map(i)]
        return len(set(maps)) >= 2 and self.trace.is_map(node.index) and not self.hidden(node)

    def _join(self, node: Node) -> Join | None:
        if node.op not in JOINS or len(node.inputs) != 2 or not self._merges(node):
            return None
        nodes = self.trace.nodes
        ends = node.inputs
        if nodes[ends[0]].shape != nodes[ends[1]].shape or (node.op == "cat" and not self._shuffles(node)):
            return None
        fork = self._fork(ends)
        if fork is None or not fork.closed:
            return None
        weights = [[nodes[i] for i in side if self._weighted(nodes[i])] for side in fork.sides]
        b = 0 if len(weights[0]) > len(weights[1]) else 1
        branch, shortcut = fork.sides[b], fork.sides[1 - b]
        # A shortcut is the identity or a projection: one convolution, before it perhaps a depthwise one.
        depthwise = sum(map(self._depthwise, weights[1 - b]))
        if len(weights[0]) == len(weights[1]) or depthwise > 1 or len(weights[1 - b]) - depthwise > 1:
            return None
        if any(self.enlarges(nodes[i]) for i in branch):
            return None
        if node.op == "add" and (self._parallel(node) or self._slices(fork)):
            return None
        owner = next((p for p in reversed(node.stack) if not self.hidden(node)), "")
        if any(owner == f or owner.startswith(f + ".") for f in self.folds):
            return None
        return Join(node.index, ends[b], branch, not shortcut, owner, "residual" if node.op == "add" else "concat")

    def _shuffles(self, node: Node) -> bool:
        """True if the channels of a concatenation are shuffled next: the halves take turns in being the shortcut."""
        ops: list[str] = []
        while len(ops) < 3 and len(self.users[node.index]) == 1:
            node = self.trace.nodes[self.users[node.index][0]]
            ops.append(node.op)
        return len(ops) == 3 and ops[1] in ("transpose", "permute") and {"view", "_unsafe_view", "reshape"} >= {ops[0]}

    def _parallel(self, node: Node) -> bool:
        """True if a sum is one convolution in parallel branches, as in RepVGG.

        Each of its terms holds one convolution at most, and two of them one, or the one without holds a norm.
        """
        nodes = self.trace.nodes
        fork = self._fork(self._terms(node))
        if fork is None:
            return False
        counts = [sum(self._weighted(nodes[i]) for i in line) for line in fork.lines]
        normed = any(
            not count and any(nodes[i].op in NORM_OPS for i in line)
            for count, line in zip(counts, fork.lines, strict=True)
        )
        return max(counts) <= 1 and (counts.count(1) > 1 or normed)

    def _terms(self, node: Node) -> tuple[int, ...]:
        """Return the terms of the whole sum to which an addition belongs, in the same call of the same module."""

        def sums(other: Node) -> bool:
            return other.op == "add" and other.stack == node.stack and self._merges(other)

        root = node
        while len(readers := self.users[root.index]) == 1 and sums(self.trace.nodes[readers[0]]):
            root = self.trace.nodes[readers[0]]
        terms: list[int] = []
        queue = list(root.inputs)
        while queue:
            i = queue.pop()
            inner = self.trace.nodes[i]
            if sums(inner) and len(self.users[i]) == 1:
                queue += inner.inputs
            else:
                terms.append(i)
        return tuple(sorted(set(terms)))

    def _slices(self, fork: Fork) -> bool:
        """True if both sides start with a slice of the channels: no side is a shortcut of the other (Res2Net)."""
        nodes = self.trace.nodes
        return all(any(nodes[i].op in SLICES and fork.start in nodes[i].inputs for i in side) for side in fork.sides)

    def _depthwise(self, node: Node) -> bool:
        module = self.modules.get(node.stack[-1] if node.stack else "")
        groups, channels = getattr(module, "groups", 1), getattr(module, "in_channels", 0)
        return node.op == "convolution" and 1 < groups == channels

    def enlarges(self, node: Node) -> bool:
        """True if an operation makes a map larger, other than weights that a map is multiplied by."""
        grows = "upsample" in node.op or node.op in ("convolution_transpose", "grid_sampler_2d", "pixel_shuffle")
        readers = self.users[node.index]
        return grows and not (len(readers) == 1 and self.trace.nodes[readers[0]].op == "mul")

    def _fork(self, ends: Sequence[int]) -> Fork | None:
        """Walk back from several nodes until all of them meet, or return None where they never do."""
        every = (1 << len(ends)) - 1
        marks: dict[int, int] = {}
        for bit, end in enumerate(ends):
            marks[end] = marks.get(end, 0) | 1 << bit
        queue = [-end for end in marks]
        heapq.heapify(queue)
        while queue:
            i = -heapq.heappop(queue)
            if marks[i] == every:
                own = {k: v for k, v in marks.items() if k > i}
                bits = [1 << bit for bit in range(len(ends))]
                sides = tuple(frozenset(k for k, v in own.items() if v == bit) for bit in bits)
                lines = tuple(frozenset(k for k, v in own.items() if v & bit) for bit in bits)
                return Fork(i, sides, lines, not any(self._enters(-k) for k in queue))
            for source in self.trace.nodes[i].inputs:
                if source not in marks:
                    heapq.heappush(queue, -source)
                marks[source] = marks.get(source, 0) | marks[i]
        return None

    def _enters(self, node: int) -> bool:
        """True if a node is a feature map of several channels (no mask)."""
        return self.trace.is_map(node) and self.trace.nodes[node].shape[1] > 1

    @cached_property
    def folds(self) -> frozenset[str]:
        """Paths of the modules that can fold their parts into one convolution: no activation between their weights."""
        paths = [p for p, m in self.modules.items() if p and any(callable(getattr(m, name, None)) for name in FOLDING)]
        bent: dict[str, bool] = dict.fromkeys(paths, False)
        folding: set[str] = set()
        for node in self.trace.nodes:
            for path in node.stack:
                if path not in bent or self.hidden(node):
                    continue
                if node.op in ACTIVATIONS:
                    bent[path] = True
                elif node.op in WEIGHTED and bent[path]:
                    folding.discard(path)
                    bent.pop(path)
                elif node.op in WEIGHTED:
                    folding.add(path)
        return frozenset(folding)

    def folded(self, path: str) -> str | None:
        """Return the module that can fold away the one at `path`, or None."""
        return next((f for f in sorted(self.folds, key=len) if path.startswith(f + ".")), None)

    @cached_property
    def repeated(self) -> tuple[str, ...]:
        """Paths of the outermost modules with tensors (weights, norms) that run several times in a pass."""
        several = [p for p, calls in self.calls.items() if p and len(calls) > 1 and _has_tensors(self.modules[p])]
        return outermost(several)

    @cached_property
    def idle(self) -> tuple[str, ...]:
        """Paths of the outermost modules with weights that did not run, as blocks for training only."""
        idle = []
        for path, module in self.modules.items():
            ran = any(p == path or p.startswith(path + ".") for p in self.calls)
            if path and not ran and has_weights(module) and type(module).forward is not nn.Module.forward:
                idle.append(path)
        return outermost(idle)

    @cached_property
    def unknown(self) -> tuple[str, ...]:
        """Paths of modules that weigh the channels of a map by what they pooled of it, unknown as attention."""
        nodes = self.trace.nodes
        pooled: set[int] = set()  # tensors without space that come from a map by pooling
        owners: dict[str, None] = {}
        for node in nodes:
            flat = node.shape[:1] == self.trace.input_shape[:1] and math.prod(node.space) == 1
            sources = node.inputs
            if flat and any(i in pooled or (node.op in SQUEEZES and self.trace.is_map(i)) for i in sources):
                pooled.add(node.index)
            if node.op != "mul" or self.hidden(node) or not node.stack or not node.stack[-1]:
                continue
            weights = [i for i in sources if i in pooled and len(nodes[i].shape) == len(node.shape)]
            if weights and self.trace.is_map(node.index) and nodes[weights[0]].shape[1] == node.shape[1]:
                owners[node.stack[-1]] = None
        return tuple(owners)

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
        owners = [j.owner for j in self.joins] or list(self.merging)
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
        if self.decodes:
            more = {path: self.output(path) for path in self.merging}
            found |= {path: node for path, node in more.items() if node is not None}
        return found

    def _within_attention(self, path: str) -> bool:
        return any(path == a or path.startswith(a + ".") for a in self.attention)

    @cached_property
    def longest(self) -> list[int]:
        """The way from an input to an output that passes most convolutions, in order: round every skip."""
        if not self.trace.results:
            return []
        depth: list[int] = []
        before: list[int] = []
        for node in self.trace.nodes:
            sources = [i for i in node.inputs if self.trace.is_map(i)] or list(node.inputs)
            best = max(sources, key=lambda i: depth[i], default=None)
            before.append(node.index if best is None else best)
            depth.append((0 if best is None else depth[best]) + self._weighted(node))
        way = [max(self.trace.results, key=lambda i: depth[i])]
        while before[way[-1]] != way[-1]:
            way.append(before[way[-1]])
        return way[::-1]

    @cached_property
    def decodes(self) -> bool:
        """True for an encoder-decoder: a map that was made larger joins an earlier one.

        Its longest way shrinks, grows, and may shrink once more (a detector's neck). Networks that keep several sizes
        side by side (HRNet) change more often and do not count.
        """
        large: set[int] = set()
        for node in self.trace.nodes:
            grows = self.enlarges(node) and any(self.trace.is_map(i) for i in node.inputs)
            if grows or any(i in large and self.trace.nodes[i].space == node.space for i in node.inputs):
                large.add(node.index)
        if not any(0 < sum(i in large for i in n.inputs) < len(n.inputs) for n in self.merges):
            return False
        sizes = [math.prod(self.trace.nodes[i].space) for i in self.longest if self._is_picture(i)]
        steps = [b > a for a, b in pairwise(sizes) if a != b]
        return True in steps and sum(a != b for a, b in pairwise(steps)) <= 2

    def _is_picture(self, node: int) -> bool:
        """True for a map of about the input's proportions (a detector's head also makes maps of boxes)."""
        if not self.trace.is_map(node):
            return False
        ratios = [b / a for a, b in zip(self.trace.nodes[node].space, self.trace.input_shape[2:], strict=True)]
        return max(ratios) <= 1.5 * min(ratios)

    @cached_property
    def way(self) -> list[int]:
        """The nodes of the main path: what all must pass through.

        In encoder-decoders, and where the output comes from several inputs, the longest way.
        """
        several = bool(self.spine) and bool(self.trace.nodes[self.spine[0]].inputs)
        return self.longest if self.decodes or several else self.spine

    @cached_property
    def units(self) -> list[int]:
        """The end of each convolution with its norm and activation on the main path, without the output layer."""
        ends: list[int] = []
        current: int | None = None
        for i in self.way:
            node = self.trace.nodes[i]
            if self._weighted(node):
                ends += [current] if current is not None else []
                current = i if self.trace.is_map(i) else None
            elif current is not None:
                last = self.trace.nodes[current]
                if node.shape == last.shape and node.op not in POOLS | JOINS and node.inputs[0] == current:
                    current = i
                else:
                    ends.append(current)
                    current = None
        ends += [current] if current is not None else []
        return [i for i in ends if not self.is_output(i)]

    def is_output(self, node: int) -> bool:
        """True for the output layer: a convolution without a norm, after which nothing has weights.

        A map that is given out behind an activation counts as features; one that is pooled to as many numbers as it has
        channels does not.
        """
        nodes = self.trace.nodes
        results = self._reached(node)
        if results is None or not results:
            return False
        bare = self._raw(node)
        pooled = all(len(nodes[r].shape) == 2 and nodes[r].shape[1] == nodes[node].shape[1] for r in results)
        return bare or (pooled and not self._normed(node))

    def _raw(self, node: int) -> bool:
        """True if a map is what convolutions return, or their sum, possibly enlarged."""
        made = self.trace.nodes[node]
        through = made.op in JOINS or self.enlarges(made)
        return made.op in WEIGHTED or (through and bool(made.inputs) and all(self._raw(i) for i in made.inputs))

    def _normed(self, node: int) -> bool:
        while self.trace.nodes[node].op not in WEIGHTED and self.trace.nodes[node].inputs:
            if self.trace.nodes[node].op in NORM_OPS:
                return True
            node = self.trace.nodes[node].inputs[0]
        return False

    def _reached(self, node: int) -> set[int] | None:
        """Return the results that come from a node, or None where something with weights comes after it."""
        seen, queue = {node}, [node]
        while queue:
            for reader in self.users[queue.pop()]:
                user = self.trace.nodes[reader]
                if user.op in WEIGHTED:
                    return None
                fresh = [i for i in self._events[user.event] if i not in seen]
                seen.update(fresh)
                queue += fresh
        return seen & set(self.trace.results)


def outermost(paths: Sequence[str]) -> tuple[str, ...]:
    """Return the paths that lie in none of the others."""
    every = set(paths)
    return tuple(p for p in paths if not any(p[:i] in every for i, c in enumerate(p) if c == "."))


def has_weights(module: nn.Module) -> bool:
    """Tell whether a module holds a layer, not only the numbers per channel of a norm."""
    return any(p.dim() > 1 for p in module.parameters())


def _has_tensors(module: nn.Module) -> bool:
    return any(True for _ in module.parameters()) or any(True for _ in module.buffers())


def follow(
    model: nn.Module,
    input_size: Sequence[int] | str | None = None,
    example: object = None,
    named: Sequence[str] = (),
) -> Graph:
    """Follow one sample of `input_size` (channels, then space), or `example`, through `model`, mostly without data.

    Without either the network's first convolution and, for timm, its configuration say what to try. example: a tensor,
    a tuple of arguments or a dict of keyword arguments. named: classes that are attention by the user's word.
    Raises UsageError where the network has no convolution, ExciteError where no size passes through it.
    """
    ways: list[tuple[str, Callable[[], Trace]]] = []
    if example is not None:
        if input_size is not None:
            raise UsageError("example and input_size say the same twice; leave one out")
        args, kwargs = _arguments(example)
        ways = [("example", partial(run_example, model, args, kwargs, data)) for data in (False, True)]
    else:
        like = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
        for size in [_sizes(input_size)] if input_size is not None else _guesses(model):
            shape = (1, *size)
            ways.append((f"{size}", partial(run_on_meta, model, shape, like.dtype)))
            ways.append((f"{size}", partial(run_on_fakes, model, shape, like)))
            if math.prod(size) <= 3 * 64 * 64:  # quickest first; data only where it is cheap
                ways.append((f"{size}", partial(run_on_zeros, model, shape, like)))
    failures = []
    for name, way in ways:
        try:
            return Graph(model, way(), example, tuple(named))
        except ExciteError as error:
            cause = error.__cause__ or error
            failures.append(f"{name}: {type(cause).__name__}: {(str(cause).splitlines() or [''])[0]}")
    tried = "; ".join(dict.fromkeys(f[:160] for f in failures))
    if example is not None:
        raise ExciteError(f"cannot follow {type(model).__name__}: its forward pass failed on the example ({tried})")
    raise ExciteError(
        f"cannot follow {type(model).__name__}: its forward pass failed for every input size tried ({tried}); "
        "name one with input_size=(channels, height, width), or give what it takes: example=x, a tuple of arguments or "
        "a dict of keyword arguments; or pass the part that maps an image to features"
    )


def _arguments(example: object) -> tuple[tuple[object, ...], dict[str, object]]:
    """Return an example as positional and keyword arguments. Raises UsageError where it holds no feature map."""
    args: tuple[object, ...] = ()
    kwargs: dict[str, object] = {}
    if isinstance(example, torch.Tensor):
        args = (example,)
    elif isinstance(example, dict):
        kwargs = example
    elif isinstance(example, tuple | list):
        args = tuple(example)
    else:
        raise UsageError(
            f"example is a tensor, a tuple of arguments or a dict of keyword arguments, got {type(example).__name__}"
        )
    if not any(tensor.dim() > 2 for tensor in tensors_in((args, kwargs))):
        raise UsageError("example holds no tensor [n c *space]")
    return args, kwargs


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
