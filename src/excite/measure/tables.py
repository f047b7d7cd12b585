"""Published beside computed: every cell's value from our own networks, what it discriminates, and the verdict."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import nn

from excite.common.options import parse_pairs
from excite.errors import ExciteError
from excite.inspect.attention import attention_parameters, attention_paths
from excite.inspect.trace import Trace, trace_model
from excite.measure.conventions import CONVENTIONS, Skip, count, pooling_of_attention, seen_parameters
from excite.measure.detection import Detector, trace_detector
from excite.measure.names import parse_size
from excite.measure.originals import Original, find_original
from excite.measure.profile import build_on_meta, input_shape
from excite.measure.published import UNITS, Cell
from excite.measure.records import Record, find_record
from excite.measure.variants import COUNTING, attend_only, plain_cell, stride_first

# Any: options of the published networks.

SEEN = "params seen by "
REDUCTION = "reduction of "
DetectorFactory = Callable[..., nn.Module]


@dataclass(frozen=True)
class Exact:
    """What attention adds to a network, in parameters: ours, and those that the original code uses."""

    ours: int
    original: Original

    @property
    def equal(self) -> bool:
        """Whether both are the same number."""
        return self.ours == self.original.used

    @property
    def text(self) -> str:
        """The comparison in words."""
        unused = f" ({self.original.unused} more are never used)" if self.original.unused else ""
        if self.equal:
            return f"attention's {self.ours:,} parameters are those of the original code{unused}"
        return f"attention has {self.ours:,} parameters, {self.original.used:,} in the original code{unused}"


@dataclass(frozen=True)
class Verdict:
    """A cell with its computed value in the printed unit (None where there is none) and what follows from it.

    state: "reproduced", "rounded twice" (the digits come out only so), "off", "not reproducible", "as published" (needs
    training or timing, no run of ours), "measured" (a recorded run of ours stands beside it). text: the verdict in
    words. record: that run. plain: the value of the same network without attention, None for a network that has none.
    exact: parameters of attention beside the original code's, where that is known.
    """

    cell: Cell
    computed: float | None
    state: str
    text: str
    record: Record | None = None
    plain: float | None = None
    exact: Exact | None = None

    @property
    def discriminates(self) -> bool:
        """Whether the printed digits tell this network from the same one without attention."""
        return self.plain is None or not same_digits(self.plain, self.cell)


@dataclass(frozen=True)
class Network:
    """A network on the meta device; what it does in one forward pass is recorded when somebody asks."""

    model: nn.Module
    run: Callable[[], Trace]

    @cached_property
    def trace(self) -> Trace:
        """One forward pass."""
        return self.run()


class Calculator:
    """Computes cells; every network is built once, and run once where something is counted.

    detector: `excite.create_detector` or a function like it; without it the detection rows say so.
    """

    def __init__(self, detector: DetectorFactory | None = None) -> None:
        self.detector = detector
        self.built: dict[tuple[str, str], Network] = {}
        self.computed: dict[tuple[str, str, str], float] = {}

    def network(self, model: str, options: str) -> Network:
        """Return the network of a cell, built on the meta device."""
        given = parse_pairs(options.split())
        own = {k: v for k, v in given.items() if k not in ("pooling", "against")}
        key = (model, repr(sorted(own.items(), key=lambda kv: kv[0])))
        if key not in self.built:
            self.built[key] = self._build(model, own)
        return self.built[key]

    def _build(self, model: str, given: dict[str, Any]) -> Network:
        options = {k: v for k, v in given.items() if k not in COUNTING}
        shape = input_shape(parse_size(str(given.get("input", 224))))

        def build() -> nn.Module:
            if "kind" not in options:
                from excite.models import create_model

                return create_model(model, **options)
            if self.detector is None:
                raise ExciteError("detectors are not available here")
            return self.detector(backbone=model, **options)

        network = build_on_meta(build, model)
        if "at" in given:
            attend_only(network, str(given["at"]).split(",") if isinstance(given["at"], str) else given["at"])
        if given.get("stride") == "first":
            stride_first(network)
        if "kind" not in options:
            return Network(network, lambda: trace_model(network, shape))
        rois = {k: int(given.get(k, 0)) for k in ("rois", "mask_rois")}
        return Network(network, lambda: trace_detector(Detector(network, options["kind"]), shape, **rois))

    def value(self, cell: Cell) -> float:
        """Return the computed number, not yet divided by the unit."""
        key = (cell.model, cell.options, cell.convention)
        if key not in self.computed:
            self.computed[key] = self._value(cell)
        return self.computed[key]

    def _value(self, cell: Cell) -> float:
        given = parse_pairs(cell.options.split())
        network = self.network(cell.model, cell.options)
        skip: Skip = pooling_of_attention(network.model) if given.get("pooling") == "functional" else ()
        if cell.convention.startswith(REDUCTION):
            inner = cell.convention.removeprefix(REDUCTION)
            base = self.network(str(given["against"]), cell.options)
            return 100 * (1 - quantity(network, inner, skip) / quantity(base, inner))
        return quantity(network, cell.convention, skip)

    def verdict(self, cell: Cell) -> Verdict:
        """Judge a cell that is computed: its digits, the plain network's, and attention's parameters."""
        unit = UNITS[cell.unit]
        verdict = judge(cell, self.value(cell) / unit)
        plain = plain_cell(cell)
        if plain is None:
            return verdict
        verdict = replace(verdict, plain=self.value(plain) / unit)
        original = find_original(cell.model, cell.options)
        if original is not None:
            added = self.value(replace(cell, convention="params")) - self.value(replace(plain, convention="params"))
            verdict = replace(verdict, exact=Exact(int(added), original))
        return discriminate(verdict)


def quantity(network: Network, name: str, skip: Skip = ()) -> float:
    """Return one number of a network: "params", "trainable params", "attention params", "attention macs", ... ."""
    model = network.model
    if name == "params":
        return sum(p.numel() for p in model.parameters())
    if name == "trainable params":
        return sum(p.numel() for p in model.parameters() if p.requires_grad)
    if name.startswith(SEEN):
        return seen_parameters(network.trace, name.removeprefix(SEEN))
    if name in CONVENTIONS:
        return sum(count(network.trace, name, skip).values())
    attention = attention_paths(model)
    if name == "attention params":
        return sum(p.numel() for p in attention_parameters(model).values())
    if name == "attention macs":
        below = tuple(path + "." for path in attention)
        return sum(n for path, n in count(network.trace, "macs").items() if path in attention or path.startswith(below))
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
        once = _half_up(computed, cell.digits + 1)
        text = f"rounded twice, {computed:.{cell.digits + 2}f} as {once:.{cell.digits + 1}f}{because}"
        return Verdict(cell, computed, "rounded twice", text)
    scale = 10**cell.digits
    if math.floor(computed * scale + 1e-6) == round(cell.value * scale):
        because = because or ": cut off instead of rounded"
    return Verdict(cell, computed, "off", f"off by {computed - cell.value:+.{max(cell.digits + 1, 2)}f}{because}")


def discriminate(verdict: Verdict) -> Verdict:
    """Say what the digits do not tell; where they agree and the exact count does not, the cell is off."""
    if verdict.state != "reproduced" or verdict.discriminates:
        return verdict
    text = f"{verdict.text}; a network without attention gives these digits too"
    if verdict.exact is None:
        return replace(verdict, text=text)
    return replace(verdict, state="reproduced" if verdict.exact.equal else "off", text=f"{text}; {verdict.exact.text}")


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
        return calculator.verdict(cell)
    except ExciteError as error:
        return Verdict(cell, None, "not reproducible", f"not computed: {error}")
