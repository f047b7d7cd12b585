"""Published beside computed: every cell's value from our own networks, and the verdict."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn

from excite.common.options import parse_pairs
from excite.errors import ExciteError
from excite.inspect.attention import attention_parameters, attention_paths
from excite.inspect.trace import Trace, trace_model
from excite.measure.conventions import CONVENTIONS, Skip, count, pooling_of_attention, seen_parameters
from excite.measure.detection import Detector, trace_detector
from excite.measure.names import parse_size
from excite.measure.profile import build_on_meta, input_shape
from excite.measure.published import UNITS, Cell
from excite.measure.records import Record, find_record

SEEN = "params seen by "
REDUCTION = "reduction of "
# Options of a cell that are no options of a network.
COUNTING = ("input", "pooling", "against", "rois", "mask_rois")
DetectorFactory = Callable[..., nn.Module]


@dataclass(frozen=True)
class Verdict:
    """A cell with its computed value in the printed unit (None where there is none) and what follows from it.

    state: "reproduced", "off", "not reproducible", "as published" (needs training or timing, no run of ours),
    "measured" (a recorded run of ours stands beside it). text: the verdict in words. record: that run.
    """

    cell: Cell
    computed: float | None
    state: str
    text: str
    record: Record | None = None


class Network(NamedTuple):
    """A network on the meta device and what it did in one forward pass."""

    model: nn.Module
    trace: Trace


class Calculator:
    """Computes cells; every network is built and run once.

    detector: `excite.create_detector` or a function like it; without it the detection rows say so.
    """

    def __init__(self, detector: DetectorFactory | None = None) -> None:
        self.detector = detector
        self.built: dict[tuple[str, str], Network] = {}

    def network(self, model: str, options: str) -> Network:
        """Return the network of a cell, built on the meta device and traced."""
        given = parse_pairs(options.split())
        own = {k: v for k, v in given.items() if k not in ("pooling", "against")}
        key = (model, repr(sorted(own.items(), key=lambda kv: kv[0])))
        if key not in self.built:
            self.built[key] = self._build(model, own)
        return self.built[key]

    def _build(self, model: str, given: dict[str, Any]) -> Network:
        options = {k: v for k, v in given.items() if k not in COUNTING}
        size = parse_size(str(given.get("input", 224)))
        if "kind" in options:
            if self.detector is None:
                raise ExciteError("detectors are not available here")
            rois = {k: int(given.get(k, 0)) for k in ("rois", "mask_rois")}
            made = build_on_meta(lambda: self.detector(backbone=model, **options), model)  # type: ignore[misc]
            return Network(made, trace_detector(Detector(made, options["kind"]), input_shape(size), **rois))
        from excite.models import create_model

        made = build_on_meta(lambda: create_model(model, **options), model)
        return Network(made, trace_model(made, input_shape(size)))

    def value(self, cell: Cell) -> float:
        """Return the computed number, not yet divided by the unit."""
        given = parse_pairs(cell.options.split())
        network = self.network(cell.model, cell.options)
        skip: Skip = pooling_of_attention(network.model) if given.get("pooling") == "functional" else ()
        if cell.convention.startswith(REDUCTION):
            inner = cell.convention.removeprefix(REDUCTION)
            base = self.network(str(given["against"]), cell.options)
            return 100 * (1 - quantity(network, inner, skip) / quantity(base, inner))
        return quantity(network, cell.convention, skip)


def quantity(network: Network, name: str, skip: Skip = ()) -> float:
    """Return one number of a network: "params", "trainable params", "attention params", "attention macs", ... ."""
    model, trace = network
    if name == "params":
        return sum(p.numel() for p in model.parameters())
    if name == "trainable params":
        return sum(p.numel() for p in model.parameters() if p.requires_grad)
    if name.startswith(SEEN):
        return seen_parameters(trace, name.removeprefix(SEEN))
    if name in CONVENTIONS:
        return sum(count(trace, name, skip).values())
    attention = attention_paths(model)
    if name == "attention params":
        return sum(p.numel() for p in attention_parameters(model).values())
    if name == "attention macs":
        below = tuple(path + "." for path in attention)
        return sum(n for path, n in count(trace, "macs").items() if path in attention or path.startswith(below))
    raise ExciteError(f"published.csv names the convention {name!r}, which does not exist")


def judge(cell: Cell, computed: float | None, record: Record | None = None) -> Verdict:
    """Return the verdict on a cell, given the computed value in the printed unit."""
    because = f": {cell.reason}" if cell.reason else ""
    if cell.measured:
        if record is None:
            return Verdict(cell, None, "as published", f"as published{because}")
        return Verdict(cell, None, "measured", f"ours: {record.text}{because}", record)
    if computed is None:
        return Verdict(cell, None, "not reproducible", f"not reproducible{because}")
    if same_digits(computed, cell):
        return Verdict(cell, computed, "reproduced", "reproduced")
    if same_digits(_half_up(computed, cell.digits + 1), cell, half_up=True):
        return Verdict(cell, computed, "reproduced", f"reproduced, rounded twice ({computed:.{cell.digits + 2}f})")
    scale = 10**cell.digits
    if math.floor(computed * scale + 1e-6) == round(cell.value * scale):
        because = because or ": cut off instead of rounded"
    return Verdict(cell, computed, "off", f"off by {computed - cell.value:+.{max(cell.digits + 1, 2)}f}{because}")


def same_digits(computed: float, cell: Cell, *, half_up: bool = False) -> bool:
    """Tell whether `computed` rounds to the printed digits."""
    rounded = _half_up(computed, cell.digits) if half_up else round(computed, cell.digits)
    return abs(rounded - cell.value) < 0.1 * 10**-cell.digits


def _half_up(value: float, digits: int) -> float:
    return math.floor(value * 10**digits + 0.5 + 1e-9) / 10**digits


def compute(
    chosen: Sequence[Cell],
    *,
    detector: DetectorFactory | None = None,
    records: Sequence[Record] = (),
    progress: Callable[[Cell], None] | None = None,
) -> list[Verdict]:
    """Compute the cells from our networks, on the meta device, and judge each against the printed value.

    detector: builds detectors (`excite.create_detector`); records: runs of ours for what has to be trained or timed.
    A cell whose network cannot be built is "not reproducible" with the error as its reason.
    """
    calculator = Calculator(detector)
    found = []
    with torch.no_grad():
        for cell in chosen:
            if progress is not None:
                progress(cell)
            found.append(_one(calculator, cell, records))
    return found


def _one(calculator: Calculator, cell: Cell, records: Sequence[Record]) -> Verdict:
    if cell.measured:
        return judge(cell, None, find_record(records, cell.model, cell.options, cell.convention, cell.column))
    if not cell.model:
        return judge(cell, None)
    try:
        return judge(cell, calculator.value(cell) / UNITS[cell.unit])
    except ExciteError as error:
        return Verdict(cell, None, "not reproducible", f"not computed: {error}")
