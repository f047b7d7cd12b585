"""Diagrams: boxes and arrows are what ran, counts are those of the modules, nothing is drawn over anything."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

import excite
from excite.cli.main import main
from excite.explain.diagram import cost_lines, module_diagram, network_diagram
from excite.explain.svg import Box, Drawing, draw_graph
from excite.inspect.trace import run_on_meta
from excite.registry import METHODS

SVG = "{http://www.w3.org/2000/svg}"


def drawn(name: str, channels: int = 64, size: int = 14, **options: object) -> ElementTree.Element:
    with torch.device("meta"):
        module = excite.create_attention(name, channels, **options)
    return ElementTree.fromstring(module_diagram(module, name, (1, channels, size, size)))


def words(picture: ElementTree.Element) -> list[str]:
    return [str(text.text) for text in picture.iter(f"{SVG}text")]


def boxes(picture: ElementTree.Element) -> list[tuple[float, float, float, float]]:
    found = [r for r in picture.iter(f"{SVG}rect") if r.get("stroke") == "#999999"]
    return [tuple(float(r.get(key, 0)) for key in ("x", "y", "width", "height")) for r in found]  # type: ignore[misc]


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_drawn_within_its_frame_and_without_overlap(name: str) -> None:
    picture = drawn(name)
    width, height = (float(picture.get(key, 0)) for key in ("width", "height"))
    places = boxes(picture)
    assert len(places) >= 2
    for x, y, w, h in places:
        assert x > 0
        assert x + w < width
        assert y > 0
        assert y + h < height
    for i, (x, y, w, h) in enumerate(places):
        for u, v, s, t in places[i + 1 :]:
            assert x + w < u or u + s < x or y + h < v or v + t < y
    assert words(picture)[-1] == "64 × 14 × 14"  # y has the shape of x


def test_the_boxes_of_se_are_its_parts_in_order() -> None:
    bold = [t.text for t in drawn("se").iter(f"{SVG}text") if t.get("font-weight")]
    assert bold == ["se  (512 parameters)", "x", "Mean", "Linear 64 → 4", "ReLU", "Linear 4 → 64", "sigmoid", "×", "y"]
    assert "4 · 256 parameters" in words(drawn("se"))
    assert "Linear 64 → 16" in words(drawn("se", reduction=4))
    arrows = [p for p in drawn("se").iter(f"{SVG}path") if p.get("marker-end")]
    assert len(arrows) == 8  # seven in a row, and x itself to the product


@pytest.mark.parametrize("name", METHODS)
def test_costs_line_by_line_add_up(name: str) -> None:
    with torch.device("meta"):
        module = excite.create_attention(name, 64)
    lines = cost_lines(module, (1, 64, 14, 14))
    assert sum(line.params for line in lines) == sum(p.numel() for p in module.parameters())
    if name in ("se", "eca", "srm", "gct", "coord", "se_var3"):
        assert sum(line.macs for line in lines) == run_on_meta(module, (1, 64, 14, 14)).macs


@pytest.mark.parametrize(
    ("options", "links"),
    [
        ({"stages": 0, "blocks": 0}, 0),
        ({"stages": 1, "blocks": 1}, 3),
        ({"stages": 1, "blocks": "all"}, 6),
        ({"stages": "all", "blocks": 1}, 6),
    ],
)
def test_the_bank_is_drawn_as_the_blocks_read_it(options: dict[str, object], links: int) -> None:
    with torch.device("meta"):
        model = excite.create_model("emca_eca_resnet18", num_classes=10, **options)
    picture = ElementTree.fromstring(network_diagram(model, "emca"))
    arrows = [p for p in picture.iter(f"{SVG}path") if p.get("marker-end")]
    assert len(arrows) == links == sum(len(block.sources) for block in model.blocks())
    assert sum(r.get("fill") == "#E69F00" for r in picture.iter(f"{SVG}rect")) == 4 + 1  # and the legend's


def test_an_arrow_starts_at_the_block_that_is_read() -> None:
    with torch.device("meta"):
        model = excite.create_model("emca_eca_resnet18", num_classes=10, stages="all", blocks=1)
    picture = ElementTree.fromstring(network_diagram(model, "emca"))
    middle = {float(r.get("x", 0)) + 18: i for i, r in enumerate(r for r in picture.iter(f"{SVG}rect") if is_block(r))}
    curves = [p.get("d", "") for p in picture.iter(f"{SVG}path") if p.get("marker-end")]
    ends = [(middle[float(d[1:].split()[0])], middle[float(d.split()[-2])]) for d in curves]
    assert sorted(ends) == [(2, 3), (2, 5), (2, 7), (4, 5), (4, 7), (6, 7)]  # the last block of every earlier stage


def is_block(rectangle: ElementTree.Element) -> bool:
    return rectangle.get("width") == rectangle.get("height") == "36.0"


def test_edges_go_round_boxes_and_long_graphs_stay_in_order() -> None:
    drawing = Drawing("t", "a")
    draw_graph(drawing, [Box(str(i)) for i in range(6)], [(0, 1), (1, 2), (2, 5), (0, 5), (0, 3), (3, 4), (4, 5)], 0)
    picture = ElementTree.fromstring(drawing.source())
    y = {t.text: float(t.get("y", 0)) for t in picture.iter(f"{SVG}text")}
    assert y["0"] < y["1"] == y["3"] < y["2"] == y["4"] < y["5"]


def test_show_draws_methods_and_networks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "a.svg"
    assert main(["show", "se", "--options.reduction", "4", "--channels", "64", "--svg", str(file)]) == 0
    assert "2,048 parameters" in capsys.readouterr().out  # of the options that were asked for
    assert "Linear 64 → 16" in file.read_text()
    assert main(["show", "emca_eca_resnet18", "--options.stages", "all", "--svg", str(file)]) == 0
    assert "earlier descriptors read" in file.read_text()
    assert f"drawn to      {file}" in capsys.readouterr().out
    assert not re.search("https?://(?!www.w3.org)", file.read_text())


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--svg", "a.svg"], "name the method"),
        (["torchvision/resnet18", "--svg", "a.svg"], "networks of ours"),
        (["se", "--options.kernel", "3", "--svg", "a.svg"], "has no option 'kernel'"),
        (["resnet18", "--bibtex"], "takes a method"),
        (["none", "--bibtex"], "has no paper"),
    ],
)
def test_what_cannot_be_drawn(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", *argv]) == 2
    assert message in capsys.readouterr().err


def test_a_number_beside_the_parts_is_counted_where_it_is_used() -> None:
    with torch.device("meta"):
        module = excite.create_attention("eca", 16, init="identity")
    lines = cost_lines(module, (1, 16, 8, 8))
    assert [(line.part, line.params) for line in lines if line.params] == [("Conv1d 3", 3), ("×", 1)]
