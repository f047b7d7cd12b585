"""Where the weights are in what a training script saved: the mapping that holds them, and what stands beside it."""

import re
from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

import torch

from excite.errors import ExciteError

State = dict[str, torch.Tensor]
Which = Literal["auto", "model", "ema"]
"""Which weights of a file with a running average: the model's own, the average ("ema"), or the first there is."""

# Where training scripts put the weights, in the order in which they are preferred.
WRAPPERS = (
    "state_dict", "model", "net", "model_state_dict", "model_state", "network", "params", "weights", "module",
    "backbone", "student",
)  # fmt: skip
# What wrapping modules put before every key.
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.", "backbone.", "encoder.", "student.")
# Words in the name of a running average of the weights, which the weights themselves are preferred to.
AVERAGED = re.compile(r"(?:^|[_.])(?:ema|swa|averaged|teacher)(?:[_.]|$)")
# Names of entries whose tensors are no weights: momenta of optimizers and the like.
NO_WEIGHTS = re.compile(r"optim|sched|scaler|criterion|loss|callback|sampler|rng")
# What torch's AveragedModel keeps beside the network, whose keys it puts under "module.".
COUNTER = "n_averaged"
# Where Lightning's averaging keeps the model's own weights.
CURRENT = "current_model_state"
DEEPEST = 4


class Weights(NamedTuple):
    """Tensors by the keys of their network, remarks on what was unwrapped, and what stood beside the weights."""

    state: State
    notes: list[str]
    beside: dict[str, object]


class Holder(NamedTuple):
    """A mapping with tensors inside what a file held, and the names that lead to it."""

    path: tuple[str, ...]
    content: Mapping[object, object]
    averaged: bool = False

    @property
    def dotted(self) -> int:
        """How many of its tensors have a name with a dot, as those of networks do."""
        return sum("." in key for key in tensors(self.content))

    @property
    def rank(self) -> tuple[bool, bool, int, int]:
        """The smaller, the more likely these are the weights: averages late, then by wrapper, then by size."""
        wrappers = [WRAPPERS.index(name) for name in self.path if name in WRAPPERS]
        return not self.dotted, self.averaged, min(wrappers, default=len(WRAPPERS)), -self.dotted


def tensors(content: Mapping[object, object]) -> State:
    """Return the entries that are tensors under a text."""
    return {k: v for k, v in content.items() if isinstance(k, str) and isinstance(v, torch.Tensor)}


def unwrap(content: Mapping[object, object], which: Which = "auto", source: str = "the file") -> Weights | None:
    """Return the weights inside what a file held, without common prefixes; None where there are none.

    Whatever stands beside them is left aside: scalars (tensors too), histories, arguments, optimizers, other copies.
    which: "model" or "ema" (running averages) for one of the two alone; "auto" takes averages only where there are no
    others. source: for errors. Raises ExciteError where there are none of the wanted kind.
    """
    holders = list(_holders(content, (), set()))
    if not holders:
        return None
    # A dictionary whose own keys are those of a network is the state dict, whatever else is in it.
    own = holders[0] if not holders[0].path and holders[0].dotted else None
    holder = (own if which != "ema" else None) or min(_wanted(holders, which, source), key=lambda h: h.rank)
    notes: list[str] = []
    outer = content
    for name in holder.path:
        left = [str(k) for k in outer if k != name]
        notes.append(f"weights taken from {name!r}" + (f"; left aside: {', '.join(left)}" if left else ""))
        inner = outer[name]
        assert isinstance(inner, Mapping)
        outer = inner
    state = tensors(holder.content)
    left = [str(k) for k in holder.content if k not in state]
    if left:
        notes.append(f"entries that are no tensors, left aside: {', '.join(left)}")
    averaged = holder.averaged
    others = [h for h in holders if h is not holder and h.dotted]
    own_weights = [".".join(h.path) for h in others if not h.averaged]
    averages = [".".join(h.path) for h in others if h.averaged]
    inside = set() if averaged else _averages(state)
    if inside and len(inside) < len(state):
        averaged = which == "ema"
        beginnings = sorted({key.partition(".")[0] for key in state if (key in inside) != averaged})
        (own_weights if averaged else averages).append(", ".join(beginnings[:3]))
        if averaged:
            state = {key.partition(".")[2]: value for key, value in state.items() if key in inside}
        elif which == "model":
            state = {key: value for key, value in state.items() if key not in inside}
    if averaged:
        unused = (
            f"the model's own ({', '.join(own_weights)}) were not used" if own_weights else "the file has no others"
        )
        notes.append(f"these are averaged weights; {unused}")
    elif averages:
        notes.append(
            f"the file also has averaged weights ({', '.join(averages)}), which were not used; --weights ema takes them"
        )
    taken = holder.path[:1] or tuple(state)
    beside = {str(k): v for k, v in content.items() if k not in taken}
    return Weights(_without_prefixes(state, notes), notes, beside)


def _wanted(holders: list[Holder], which: Which, source: str) -> list[Holder]:
    """Return those that may be taken. Raises ExciteError where none is of the wanted kind."""
    if which == "auto":
        return holders
    wanted = [h for h in holders if h.averaged == (which == "ema")]
    if which == "ema" and not wanted:  # within the model's own, under a prefix
        wanted = [h for h in holders if _averages(tensors(h.content))]
    if not any(h.dotted for h in wanted):
        there = "averaged weights" if which == "model" else "the model's own"
        kind = "averaged weights" if which == "ema" else "weights but averaged ones"
        raise ExciteError(f"{source} has no {kind}, it has {there}; --weights auto takes what there is")
    return wanted


def _averages(state: State) -> set[str]:
    """Return the keys that a running average has beside those of the model, as "ema.module.fc.weight"."""
    return {key for key in state if "." in key and AVERAGED.search(key.partition(".")[0])}


def _holders(
    content: Mapping[object, object], path: tuple[str, ...], met: set[int], lightning: bool = False
) -> Iterator[Holder]:
    """Yield every mapping with tensors, the outer ones first; optimizers and the like are passed over."""
    if tensors(content):
        # Lightning keeps the average as the state dict, and the model's own weights beside it.
        swapped = path == ("state_dict",) and lightning
        yield Holder(path, content, swapped or any(AVERAGED.search(name) for name in path))
    if len(path) == DEEPEST or id(content) in met:
        return
    met.add(id(content))  # mappings may hold one another, in circles
    lightning = not path and CURRENT in content
    for name, inner in content.items():
        if not isinstance(name, str) or not isinstance(inner, Mapping):
            continue
        if not NO_WEIGHTS.search(name.lower()):
            yield from _holders(inner, (*path, name), met, lightning)


def counts(key: str, tensor: torch.Tensor) -> bool:
    """Return whether an entry is a number beside the weights, as a step or a score: no dot in its name, one element."""
    return "." not in key and tensor.numel() == 1


def _without_prefixes(state: State, notes: list[str]) -> State:
    """Take what wrapping modules put before every key off."""
    if COUNTER in state and all(key.startswith("module.") for key in state if key != COUNTER):
        state = {key: value for key, value in state.items() if key != COUNTER}
        notes.append(f"a running average by torch's AveragedModel; its counter ({COUNTER}) left aside")
    inside = [key for key in state if "_orig_mod." in key]
    if inside and len(inside) < len(state):  # parts were compiled, one by one
        state = {key.replace("_orig_mod.", ""): value for key, value in state.items()}
        notes.append("'_orig_mod.' taken out of the keys of compiled parts")
    stripped = True
    while stripped and state:
        stripped = False
        for prefix in PREFIXES:
            if all(key.startswith(prefix) for key in state):
                state = {key.removeprefix(prefix): value for key, value in state.items()}
                notes.append(f"prefix {prefix!r} taken off every key")
                stripped = True
    return state
