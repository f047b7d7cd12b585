"""The pictures of a comparison: every word is inside, whatever the variants are called."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from excite.common import plotting
from excite.comparison import plots
from excite.comparison.plan import make_plan
from excite.comparison.results import Results, Row
from excite.comparison.statistics import paired_gain
from excite.comparison.variants import parse

pytest.importorskip("matplotlib")
COST = {
    "macs": 1_000_000, "latency_spread": (0.9, 1.1), "step_spread": (0.9, 1.1), "size": 16, "batch": 64,
    "parameters": 270_000, "latency_ratio": 1.0, "step_ratio": 1.0, "training_memory": 10_000_000,
}  # fmt: skip
NAMES = [
    "se",
    "emca_eca:stages=2;blocks=all",
    "se:reduction=8@sites=[layer1,layer2,layer3]",
    "eca on timm/mobilenetv3_small_minimal_100.lamb_in1k",
    "mine.py:MyGate:start=0.5;temperature=12;squeeze=mean;gate=sigmoid@last",
    "a label in words that goes on and on, further than anybody would have it in a table of results",
    "x" * 90,
    "$5 and a $",
    "字" * 30,
]


def comparison(names: list[str]) -> Results:
    labelled = [replace(parse("se", "resnet20"), options={"reduction": i + 2}, label=n) for i, n in enumerate(names)]
    plan = make_plan(["none", *labelled], seeds=3)
    rows = []
    for i, (name, variant) in enumerate(zip(plan.names, plan.variants, strict=True)):
        by_seed = {seed: 0.5 + 0.03 * i + 0.01 * seed * (i % 3) for seed in range(3)}
        values = list(by_seed.values())
        curves = {s: [{"epoch": e, "train_loss": 2.0 / e, "val_top1": 0.1 * e} for e in (1, 2, 3)] for s in by_seed}
        gain = paired_gain(values, [0.5, 0.5, 0.5]) if i else None
        rows.append(Row(name, variant, "none", by_seed, by_seed, values[1], 0.01, gain, COST, curves=curves))
    return Results(plan, rows, 12, 12, None)


def out_of_view(axis: Any) -> list[Any]:
    """Labels of ticks beyond the ends of an axis: matplotlib keeps them, and does not draw them."""
    low, high = sorted(axis.get_view_interval())
    return [
        t for tick in axis.get_major_ticks() if not low <= tick.get_loc() <= high for t in (tick.label1, tick.label2)
    ]


@pytest.mark.filterwarnings("ignore:Glyph")
@pytest.mark.parametrize("names", [NAMES[:1], *([name] for name in NAMES[1:]), NAMES], ids=lambda n: n[-1][:20])
def test_every_word_is_inside(names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []

    def keep(figure: Any, path: Path) -> Path:
        drawn.append(figure)
        return plotting.save(figure, path)

    monkeypatch.setattr(plots, "save", keep)
    assert [path.name for path in plots.draw(comparison(names), tmp_path)] == ["gains.png", "costs.png", "curves.png"]
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    for figure in drawn:
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        width, height = figure.get_size_inches() * figure.dpi
        unseen = {label for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) for label in out_of_view(axis)}
        texts = {t for t in figure.findobj(Text) if t.get_visible() and t.get_text()} - unseen
        assert len(texts) > 3
        for text in texts:
            box = text.get_window_extent(canvas.get_renderer())
            assert box.x0 > -1, text
            assert box.x1 < width + 1, text
            assert box.y0 > -1, text
            assert box.y1 < height + 1, text


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("se", ["se"]),
        ("", [""]),
        ("emca_eca:stages=2;blocks=all", ["emca_eca:stages=2;", "blocks=all"]),
        ("one two three four five six", ["one two three four", "five six"]),
        ("x" * 45, ["x" * 20, "x" * 20, "x" * 5]),
        ("eca@sites=[a,b]", ["eca@sites=[a,b]"]),
    ],
)
def test_names_break_at_marks(name: str, lines: list[str]) -> None:
    assert plotting.in_lines(name, 20).split("\n") == lines
