"""What papers say that a variant gains over another one, beside the same difference in comparisons of ours.

claims.csv names, per claim, two variants as `excite compare` writes them, and the two published rows whose difference
is the effect; `{}` stands for each depth that the table has.
"""

import csv
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from excite.common.checks import Number, fits, shown
from excite.common.tables import csv_text, markdown_cell, markdown_row, printable
from excite.comparison.plan import looks_at, read_values
from excite.comparison.statistics import Gain, corrected, p_in_words, paired_gain
from excite.comparison.variants import Variant, from_entry, parse
from excite.errors import ExciteError, UsageError
from excite.measure.published import SOURCES, cells

# Any: entries of a JSON file, each checked where it is read.

DEPTHS = ("R-18", "R-34", "R-50")
DATA = {"imagenet": "ImageNet", "cifar10": "CIFAR-10"}
HEADS = ("claim", "published", "ours", "p, Holm", "what our runs say")
NO_RUN = "no run of ours"


@dataclass(frozen=True)
class Claim:
    """A published effect: top-1 of `variant` minus that of `against`, in points, for each network that was published.

    effects: by the network's name; digits: those printed; source, data: where it is printed, and on what images.
    """

    text: str
    variant: str
    against: str
    effects: dict[str, float]
    digits: int
    source: str
    data: str

    @property
    def direction(self) -> int:
        """1 where every published effect is a gain, -1 where every one is a loss, 0 where they disagree."""
        signs = {(value > 0) - (value < 0) for value in self.effects.values()}
        return signs.pop() if len(signs) == 1 else 0

    @property
    def printed(self) -> str:
        """The effects in words."""
        parts = [f"{value:+.{self.digits}f} ({network})" for network, value in self.effects.items()]
        return f"{', '.join(parts)}, {DATA[self.data]}"


@cache
def claims() -> tuple[Claim, ...]:
    """Return every claim, in the order of the file."""
    text = (files("excite.comparison") / "claims.csv").read_text(encoding="utf-8")
    return tuple(_claim(row) for row in csv.DictReader(text.splitlines()))


def _claim(entry: Mapping[str, str]) -> Claim:
    top1 = {cell.row: cell for cell in cells() if (cell.table, cell.column) == (entry["table"], "Top-1")}
    depths = DEPTHS if "{}" in entry["row"] else ("",)
    pairs = {d: (top1[entry["row"].format(d)], top1[entry["other"].format(d)]) for d in depths}
    effects = {d or _network(other.model): round(cell.value - other.value, 4) for d, (cell, other) in pairs.items()}
    cell, _ = next(iter(pairs.values()))
    words = entry["claim"], entry["variant"], entry["against"]
    return Claim(*words, effects, cell.digits, cell.source, cell.convention)


def _network(model: str) -> str:
    """`se_resnet50_cifar` -> `ResNet-50`."""
    digits = "".join(c for c in model.rpartition("resnet")[2] if c.isdigit())
    return f"ResNet-{digits}"


@dataclass(frozen=True)
class Measured:
    """A comparison of ours that a result file holds: top-1 (a share) by seed of each of its variants.

    judged: how often the table was looked at as it grew.
    """

    file: str
    title: str
    top1: tuple[tuple[Variant, Mapping[int, float]], ...]
    judged: int = 1


@dataclass(frozen=True)
class Finding:
    """A claim, and where a comparison of ours has both variants: their gain (a share), and what follows."""

    claim: Claim
    measured: Measured | None = None
    backbone: str = ""
    gain: Gain | None = None

    @property
    def verdict(self) -> str:
        """Return what our runs say of the claim, in words."""
        gain, direction = self.gain, self.claim.direction
        if gain is None or gain.mean is None:
            return NO_RUN
        if gain.low is None or gain.high is None:
            return gain.reason
        sizes = self.claim.effects.values()
        within = [100 * gain.low <= size <= 100 * gain.high for size in sizes]
        fits_in = "fits" if all(within) else "fits in part" if any(within) else "does not fit"
        size = f"the published size {fits_in} our interval"
        if not gain.clear:
            if all(within) and gain.low <= 0 <= gain.high:
                size = "our interval holds the published size and zero alike"
            return f"not shown at our scale; {size}"
        ours = "gain" if gain.mean > 0 else "loss"
        if direction == 0:
            return f"a {ours}; the published networks disagree with each other"
        if direction != (1 if gain.mean > 0 else -1):
            return f"the opposite: a {ours}"
        return f"shown: a {ours} as published; {size}"

    @property
    def ours(self) -> str:
        """Return our difference with its interval, in points."""
        if self.gain is None or self.gain.mean is None:
            return "-"
        text = f"{100 * self.gain.mean:+.2f}"
        if self.gain.low is None or self.gain.high is None:
            return text
        return f"{text} [{100 * self.gain.low:+.2f}, {100 * self.gain.high:+.2f}] (n={self.gain.pairs})"

    @property
    def cells(self) -> tuple[str, ...]:
        """Return the finding as a table's line."""
        p = None if self.gain is None else self.gain.p_holm
        return (self.claim.text, self.claim.printed, self.ours, "-" if p is None else p_in_words(p), self.verdict)


def load(folder: Path) -> list[Measured]:
    """Return the comparisons in a folder's JSON files (`comparison`, as benchmarks/comparison_table.py writes them).

    A folder that is not there has none. Raises ExciteError for a file that is broken.
    """
    found = []
    for file in sorted(folder.glob("*.json")) if folder.is_dir() else []:
        values = read_values(file)
        if "comparison" in values:
            found.append(_measured(file, values))
    return found


def _measured(file: Path, values: Mapping[str, Any]) -> Measured:
    comparison, plan = values["comparison"], values.get("plan")
    rows = comparison.get("rows") if isinstance(comparison, dict) else None
    if not isinstance(rows, list) or not isinstance(plan, dict) or not isinstance(plan.get("changes", {}), dict):
        raise ExciteError(f"{file} is broken: it has no rows of a comparison, or no plan")
    top1 = []
    for row in rows:
        if not isinstance(row, dict) or not _by_seed(row.get("top1")):
            raise ExciteError(f"{file} is broken: {shown(row)} is no row of a comparison")
        try:
            variant = from_entry(row.get("variant"), "resnet20", str(file))
        except UsageError as error:
            raise ExciteError(f"{file} is broken: {error}") from None
        top1.append((variant, {int(seed): float(value) for seed, value in row["top1"].items()}))
    changed = "".join(f", {key}={value}" for key, value in plan.get("changes", {}).items())
    seeds, looks = plan.get("seeds"), plan.get("looks", [])
    if not isinstance(seeds, int) or not fits(looks, Sequence[int]):
        raise ExciteError(f"{file} is broken: seeds are {shown(seeds)}, looks {shown(looks)}")
    title = f"{plan.get('data')}, recipe {plan.get('recipe')}{changed}, {seeds} seeds"
    return Measured(file.stem, printable(title), tuple(top1), looks_at(seeds, looks))


def _by_seed(values: object) -> bool:
    return isinstance(values, dict) and all(str(k).isdecimal() and fits(v, Number) for k, v in values.items())


def find(measured: Sequence[Measured]) -> list[Finding]:
    """Return every claim that a comparison can be asked about, comparison by comparison; then those that none can.

    The verdicts are corrected for the pairs that one comparison is asked about on one backbone (Holm).
    """
    findings = [finding for one in measured for finding in _asked(one)]
    seen = [finding.claim for finding in findings]
    return findings + [Finding(claim) for claim in claims() if claim not in seen]


def _asked(measured: Measured) -> Iterator[Finding]:
    for backbone in dict.fromkeys(variant.backbone for variant, _ in measured.top1):
        rows = {_key(v): top1 for v, top1 in measured.top1 if v.backbone == backbone}
        pairs = [(claim, rows.get(_read(claim.variant)), rows.get(_read(claim.against))) for claim in claims()]
        asked = [(claim, one, other) for claim, one, other in pairs if one and other]
        # a pair that two works published is one question to our runs: it counts once in the correction
        runs = {(claim.variant, claim.against): (one, other) for claim, one, other in asked}
        gains = [
            paired_gain([one[s] for s in seeds], [other[s] for s in seeds])
            for one, other in runs.values()
            for seeds in [sorted(set(one) & set(other))]
        ]
        of_pair = dict(zip(runs, corrected(gains, measured.judged), strict=True))
        for claim, _, _ in asked:
            yield Finding(claim, measured, backbone, of_pair[claim.variant, claim.against])


def _key(variant: Variant) -> tuple[str, ...]:
    options = sorted(f"{name}={value}" for name, value in variant.options.items())
    return variant.method, variant.placement, variant.sites or "", *options


@cache
def _read(text: str) -> tuple[str, ...]:
    return _key(parse(text, "resnet20"))


INTRODUCTION = (
    "Made by `excite tables ablations --format markdown`. A claim is the difference of two published top-1, in points; "
    "ours is the mean difference over the seeds with its own 95 % interval (paired Student t). Our runs are judged by "
    "p, corrected for all pairs that one comparison is asked about (Holm; a pair that two works published counts "
    "once) and for the looks at a comparison that grew: *shown* and *the opposite* are wrong somewhere in at most 5 % "
    "of comparisons. *Not shown* does not mean that there is no effect: our networks, images and epochs are smaller "
    "than the papers'."
)


def sections(findings: Sequence[Finding]) -> list[tuple[str, list[Finding]]]:
    """Return the findings under titles: a comparison and its backbone; the claims without a run of ours last."""

    def title(finding: Finding) -> str:
        if finding.measured is None:
            return "No run of ours"
        return f"{finding.measured.file}: {finding.backbone} on {finding.measured.title}"

    return [(name, list(group)) for name, group in itertools.groupby(findings, key=title)]


def summary(findings: Sequence[Finding]) -> str:
    """Return how many claims were shown, in a sentence."""
    words = [finding.verdict for finding in findings if finding.measured is not None]
    counts = [sum(word.startswith(start) for word in words) for start in ("shown", "the opposite", "not shown")]
    without = sum(finding.measured is None for finding in findings)
    return (
        f"{len(words)} claims beside runs of ours: {counts[0]} shown, {counts[1]} the opposite, {counts[2]} not shown "
        f"at our scale; {without} without a run of ours."
    )


def to_markdown(findings: Sequence[Finding]) -> str:
    """Return Markdown: a page with a section per comparison."""
    lines = ["# Published ablations beside ours", "", INTRODUCTION, "", summary(findings), ""]
    for title, group in sections(findings):
        printed = "; ".join(dict.fromkeys(SOURCES[finding.claim.source] for finding in group))
        lines += [f"## {markdown_cell(title)}", "", f"Printed in: {printed}.", ""]
        lines += ["| " + " | ".join(HEADS) + " |", "|---|---|---|---:|---|"]
        lines += [markdown_row(finding.cells) for finding in group]
        lines.append("")
    return "\n".join(lines)


def to_text(findings: Sequence[Finding]) -> str:
    """Return the same for a terminal."""
    lines = []
    for title, group in sections(findings):
        lines += [printable(title)]
        for finding in group:
            lines += [f"  {finding.claim.text}", f"    published {finding.claim.printed}"]
            lines += [f"    ours {finding.ours}: {finding.verdict}"] if finding.measured is not None else []
        lines.append("")
    return "\n".join([*lines, summary(findings)])


def to_rows(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """Return the findings as plain values; gains in points."""
    rows = []
    for finding in findings:
        gain, measured = finding.gain, finding.measured
        values = asdict(finding.claim) | {
            "source": SOURCES[finding.claim.source],
            "effects": dict(finding.claim.effects),
        }
        values |= {"file": None if measured is None else measured.file, "backbone": finding.backbone or None}
        for name in ("mean", "low", "high"):
            value = None if gain is None else getattr(gain, name)
            values[name] = None if value is None else round(100 * value, 6)
        values |= {"n": 0 if gain is None else gain.pairs, "p_holm": None if gain is None else gain.p_holm}
        rows.append(values | {"verdict": finding.verdict})
    return rows


def to_csv(findings: Sequence[Finding]) -> str:
    """Return CSV, one line per finding."""
    rows = [{**row, "effects": finding.claim.printed} for row, finding in zip(to_rows(findings), findings, strict=True)]
    return csv_text(rows)
