"""The published tables: computed at run time, judged by digits, joined with runs of ours."""

import csv
import dataclasses
import io
import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import nn

from excite.cli.main import main
from excite.detect import create_detector
from excite.errors import ExciteError, UsageError
from excite.measure import tables_report as report
from excite.measure.conventions import count
from excite.measure.detection import Detector, trace_detector
from excite.measure.originals import find_original, originals
from excite.measure.published import MEASURED, SOURCES, TITLES, UNITS, Cell, cells, select
from excite.measure.records import Record, find_record, load_records
from excite.measure.tables import Calculator, Verdict, compute, discriminate, judge, quantity
from excite.measure.variants import plain_cell, plain_name
from excite.registry import create_attention

HERE = Path(__file__).parent
# Counts made with the references and the counters of their time (float32 sums in the oldest: +-32). The rest of the
# difference is where a layer of ours stands for a differently written one of theirs: biases of 1x1 convolutions, a
# pooling written as a function, EMCA's parameters that are never used.
EXPECTED = [
    (r["table"], r["row"], r["column"], int(r["count"])) for r in csv.DictReader((HERE / "expected_counts.csv").open())
]
CLOSE = 3e-5
# The reference of EMCA-SE describes every block of the last stage, we the one that is read: a mean over 49 positions is
# 50 operations to its counter, for each channel of the others.
UNREAD = {"+EMCA-SE R-18": 512 * 50, "+EMCA-SE R-34": 2 * 512 * 50, "+EMCA-SE R-50": 2 * 2048 * 50}


def cell(published: str = "1.234", unit: str = "Gi", **more: str) -> Cell:
    values = dict.fromkeys((f.name for f in dataclasses.fields(Cell)), "") | {"published": published, "unit": unit}
    return Cell(**{**values, "convention": "thop", "source": "EMCA", "table": "emca", **more})


def one(table: str, row: str, column: str) -> Cell:
    return next(c for c in cells() if (c.table, c.row, c.column) == (table, row, column))


# The references' counts of these are of another network than the printed ones (see the reasons): stride in the 3x3.
BAM = {key: {"convention": "thop-2005", "options": "pooling=functional"} for key in ("BAM R-50", "BAM R-18")}


@pytest.fixture(scope="module")
def calculator() -> Calculator:
    """Networks of the tables on the meta device, built once for this file."""
    return Calculator(create_detector)


@pytest.fixture(scope="module")
def verdicts(calculator: Calculator) -> list[Verdict]:
    """Every cell on parameters and multiply-accumulates."""
    with torch.no_grad():
        return [calculator.verdict(c) if c.model else judge(c, None) for c in cells() if not c.measured]


def test_counts_of_every_table(calculator: Calculator) -> None:
    for table, row, column, expected in EXPECTED:
        chosen = one(table, row, column)
        if column == "MACs" and row in BAM:
            chosen = dataclasses.replace(chosen, **BAM[row])
        value = calculator.value(chosen)
        if column == "MACs" and row in UNREAD:
            assert value + UNREAD[row] == expected, (row, value, expected)
        else:
            assert abs(value - expected) <= max(32, CLOSE * expected), (table, row, column, value, expected)


def test_every_reproduced_row_of_the_references_is_reproduced(verdicts: list[Verdict]) -> None:
    states: dict[str, set[tuple[str, ...]]] = {"off": set(), "rounded twice": set(), "not reproducible": set()}
    for v in verdicts:
        states.setdefault(v.state, set()).add((v.cell.table, v.cell.row, v.cell.column))
    differing = json.loads((HERE / "differing_cells.json").read_text())
    for state, expected in differing.items():
        assert states[state] == {tuple(c) for c in expected}, state
    assert len(states["reproduced"]) == len(verdicts) - sum(map(len, differing.values())) > 230


def test_the_page_and_the_readme_hold_these_verdicts(verdicts: list[Verdict]) -> None:
    root = HERE.parents[1]
    computed = iter(verdicts)
    records = load_records(root / "benchmarks" / "results")
    every = [compute([c], records=records)[0] if c.measured else next(computed) for c in cells()]
    assert report.to_markdown(every) == (root / "docs" / "tables.md").read_text(), (
        "python benchmarks/published_tables.py"
    )
    values = json.loads((root / "docs" / "results" / "tables.json").read_text())["values"]
    counts = report.tally(verdicts)
    assert values == {
        **{name: str(counts[name]) for name in report.STATES[:4]},
        "computed": str(sum(counts[name] for name in report.STATES[:3])),
        "blind": str(len(report.blind(verdicts))),
    }


def test_cells_that_a_plain_network_reproduces_too_are_counted_exactly(verdicts: list[Verdict]) -> None:
    unseen = report.blind(verdicts)
    assert len(unseen) == 66
    for v in unseen:
        assert "a network without attention gives these digits too" in v.text
    # No code of the authors builds the paper's form of EMCA; RetinaNet's kernel sizes were not published.
    without = {(v.cell.model.split("_resnet")[0], v.cell.row.split()[0]) for v in unseen if v.exact is None}
    assert without == {
        ("emca_eca", "ECA"), ("emca_srm", "+EMCA-SRM"), ("emca_eca", "Faster"), ("emca_eca", "Mask"),
        ("emca_eca", "RetinaNet"), ("eca", "RetinaNet"),
    }  # fmt: skip
    assert all(v.exact.equal for v in verdicts if v.exact is not None)
    assert all(not v.discriminates for v in unseen)
    assert {v.cell.row for v in verdicts if v.plain is not None and v.discriminates} >= {"+SENet R-50", "EMANet"}


def test_a_wrong_number_of_parameters_in_attention_makes_a_cell_off(calculator: Calculator) -> None:
    good = one("emca", "+ECANet R-50", "params")
    assert calculator.verdict(good).state == "reproduced"
    wrong = calculator.verdict(dataclasses.replace(good, options="kernel_size=3,3,3,3 num_classes=1000"))
    assert wrong.exact is None  # the digits agree, and nothing is known of this network
    assert wrong.state == "reproduced"
    exact = dataclasses.replace(calculator.verdict(good).exact, ours=48)
    verdict = discriminate(dataclasses.replace(wrong, text="reproduced", exact=exact))
    assert verdict.state == "off"
    assert verdict.text.endswith("attention has 48 parameters, 80 in the original code")


def test_originals_are_those_of_the_recorded_networks() -> None:
    def recorded(name: str) -> int:
        return json.loads((HERE.parent / "golden" / "models" / f"{name}.json").read_text())["param_count"]

    plain, cifar, mobile = (
        recorded(n) for n in ("torchvision__resnet50", "emanet_repo__resnet50", "torchvision__mobilenet_v2")
    )
    for file, base, model, options in (
        ("ecanet__eca_resnet50_k3557", plain, "eca_resnet50", "kernel_size=3,5,5,7"),
        ("ecanet__eca_mobilenet_v2", mobile, "eca_mobilenet_v2", ""),
        ("emanet_repo__eca_resnet50", cifar, "eca_resnet50_cifar", "kernel_size=3,5,5,7"),
        ("emanet_repo__sa_resnet50", cifar, "sa_resnet50_cifar", ""),
        ("srm_repo__srm_resnet50", plain, "srm_resnet50", ""),
        ("emca__eca_resnet50", plain, "emca_eca_resnet50", "form=released stages=all blocks=1"),
        ("emca__eca_resnet18", 11689512, "emca_eca_resnet18", "form=released stages=all blocks=1"),
    ):
        original = find_original(model, options)
        assert original is not None, model
        assert original.parameters == recorded(file) - base, model
    counted = {(table, row): count for table, row, column, count in EXPECTED if column == "params"}
    for (table, row), reference in counted.items():
        cell_of = one(table, row, "params")
        original, plain_of = find_original(cell_of.model, cell_of.options), plain_cell(cell_of)
        plain_row = next((r for (t, r) in counted if plain_of and one(t, r, "params").model == plain_of.model), None)
        if original and plain_row and table in ("ecanet", "ecanet-paper", "emca") and "seen" not in cell_of.convention:
            base = next(n for (t, r), n in counted.items() if r == plain_row)
            assert original.parameters == reference - base, row
    assert len(originals()) == 30


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("eca_resnet50", "resnet50"), ("emca_eca_resnet18", "resnet18"), ("emca_se_resnet18", "resnet18"),
        ("se_gc_resnet50", "resnet50"), ("se_var1_resnet50", "resnet50"), ("epsanet50_cifar", "resnet50_cifar"),
        ("emanet50_cifar", "resnet50_cifar"), ("eca_mobilenet_v2", "mobilenet_v2"), ("resnet50", "resnet50"),
    ],
)  # fmt: skip
def test_the_network_without_attention(name: str, plain: str) -> None:
    assert plain_name(name) == plain


def test_bam_with_its_products_is_what_was_printed(calculator: Calculator) -> None:
    for row, scaled in (("BAM R-50", 1404928), ("BAM R-18", 351232)):
        chosen = one("emca", row, "MACs")
        value = (calculator.value(chosen) + 4 * scaled) / 1e9
        assert f"it is {value:.4f}" in chosen.reason
        assert round(value, 3) == chosen.value
        trace = calculator.network(chosen.model, chosen.options).trace
        assert sum(torch.Size(c.x).numel() for c in trace.layers if type(c.module).__name__ == "Bam") == scaled


def test_modules_of_the_eca_paper_have_the_parameters_of_its_formulas() -> None:
    wanted = {
        "SE": ("se", {}, lambda c: 2 * c * c // 16), "SE-Var1": ("se_var1", {}, lambda c: 0),
        "SE-Var2": ("se_var2", {}, lambda c: c), "SE-Var3": ("se_var3", {}, lambda c: c * c),
        "SE-GC1": ("se_gc", {"groups": 16}, lambda c: c * c // 16),
        "SE-GC2": ("se_gc", {"group_size": 16}, lambda c: 16 * c),
        "SE-GC3": ("se_gc", {"group_size": 8}, lambda c: 8 * c),
        "ECA-NS": ("eca_ns", {"kernel_size": 3}, lambda c: 3 * c), "ECA": ("eca", {"kernel_size": 3}, lambda c: 3),
    }  # fmt: skip
    rows = {c.row: c for c in select("ecanet-modules")}
    assert set(rows) == {"Vanilla", *wanted}
    for row, (method, options, formula) in wanted.items():
        assert rows[row].model == f"{method}_resnet50"
        for channels in (64, 256):
            module = create_attention(method, channels, **options)
            assert sum(p.numel() for p in module.parameters()) == formula(channels), row


def test_published_kernels_of_the_detectors() -> None:
    kernels = {(c.row, o) for c in select("coco") for o in c.options.split() if o.startswith("kernel_size")}
    assert kernels == {
        ("Faster R-CNN ECA-50", "kernel_size=5"), ("Mask R-CNN ECA-50", "kernel_size=3,3,7,7"),
        ("Faster R-CNN ECA-101", "kernel_size=3,3,5,7"), ("Mask R-CNN ECA-101", "kernel_size=3,3,5,7"),
    }  # fmt: skip


def test_quoted_blocks_of_other_papers(verdicts: list[Verdict]) -> None:
    found = {v.cell.row: v for v in verdicts if v.cell.row in ("Mask R-CNN +1 NL", "Mask R-CNN +GC")
             and v.cell.column == "params"}  # fmt: skip
    assert round(found["Mask R-CNN +1 NL"].computed, 3) == 46.502
    assert found["Mask R-CNN +1 NL"].state == "reproduced"
    assert round(found["Mask R-CNN +GC"].computed, 3) == 46.922


def test_a_stride_in_the_first_convolution_saves_what_it_skips(calculator: Calculator) -> None:
    late, early = (quantity(calculator.network("resnet50", o), "macs") for o in ("", "stride=first"))
    # Of the first blocks of stages 2 to 4: a 1x1 and a 3x3 on a quarter of the positions each (the 3x3 had its stride).
    skipped = [3 * (2 * w * w) * s * s for w, s in ((128, 28), (256, 14), (512, 7))]
    assert late - early == sum(skipped)
    assert (
        sum(count(calculator.network("resnet50", "").trace, "macs").values()) == late
    )  # one network was not the other


def test_every_cell_is_well_formed() -> None:
    keys = [(c.table, c.row, c.column) for c in cells()]
    assert len(keys) == len(set(keys)) > 950
    for c in cells():
        assert c.table in TITLES
        assert c.source in SOURCES
        assert c.unit in UNITS
        assert c.value == float(c.published)
        assert c.model or c.reason or c.measured, c
    assert {c.table for c in cells()} == set(TITLES)


def test_the_facts_hold_no_computed_values() -> None:
    assert [f.name for f in dataclasses.fields(Cell)] == [
        "table", "row", "column", "published", "unit", "convention", "model", "options", "reason", "source",
    ]  # fmt: skip


def test_values_come_from_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    import excite.models

    chosen = [one("emca", "ResNet R-18", "params"), one("emca", "ResNet R-18", "MACs")]
    assert [v.state for v in compute(chosen)] == ["reproduced", "reproduced"]
    real = excite.models.create_model

    def with_a_wider_head(name: str, **options: object) -> nn.Module:
        model = real(name, **options)
        model.fc = nn.Linear(512, 200000)
        return model

    monkeypatch.setattr(excite.models, "create_model", with_a_wider_head)
    assert [v.state for v in compute(chosen)] == ["off", "off"]


@pytest.mark.parametrize(
    ("published", "computed", "state", "text"),
    [
        ("1.234", 1.2341, "reproduced", "reproduced"),
        ("1.234", 1.23351, "reproduced", "reproduced"),
        ("1.235", 1.23447, "rounded twice", "rounded twice, 1.23447 as 1.2345"),
        ("1.234", 1.2347, "off", "off by +0.0007: cut off instead of rounded"),
        ("1.234", 1.2301, "off", "off by -0.0039"),
        ("4.7e-4", 0.00047, "reproduced", "reproduced"),
        ("4.7e-4", 0.000086, "off", "off by -0.000384"),
        ("80", 80, "reproduced", "reproduced"),
    ],
)
def test_verdicts(published: str, computed: float, state: str, text: str) -> None:
    verdict = judge(cell(published), computed)
    assert (verdict.state, verdict.text) == (state, text)


def test_the_reason_is_part_of_the_verdict() -> None:
    assert judge(cell(reason="they counted twice"), 2.0).text == "off by +0.7660: they counted twice"
    assert judge(cell(reason="nobody has it"), None).text == "not reproducible: nobody has it"


def test_cells_without_a_network_or_with_a_broken_one() -> None:
    verdicts = compute([cell(reason="no code"), cell(model="resnet1b")])
    assert [v.state for v in verdicts] == ["not reproducible", "not reproducible"]
    assert "unknown model 'resnet1b'" in verdicts[1].text


def test_detection_rows() -> None:
    rows = ["RetinaNet ResNet-50", "Mask R-CNN ECA-50", "Faster R-CNN +SE R-50"]
    chosen = [c for c in select("coco") if c.row in rows and not c.measured]
    assert len(chosen) == 6
    assert Counter(v.state for v in compute(chosen, detector=create_detector)) == {"reproduced": 6}
    without = compute(chosen[:1])
    assert without[0].text == "not computed: detectors are not available here"


def test_regions_are_what_is_asked_for() -> None:
    with torch.device("meta"):
        model = create_detector("faster_rcnn", "resnet18", 5)
    shape = (1, 3, 64, 64)
    counts = [sum(o.macs for o in trace_detector(Detector(model, "faster_rcnn"), shape, n).ops) for n in (0, 10, 30)]
    assert counts[2] - counts[1] == 2 * (counts[1] - counts[0]) > 0


RECORD = Record(
    "eca_resnet18", "kernel_size=3,5,7,7", "speed", "FPS", 20.5, "img/s", 0.4, 15, "a CPU", "2026-01-02", "b.json"
)


def test_our_runs_stand_beside_published_numbers() -> None:
    chosen = [c for c in select("emca") if c.row == "+ECANet R-18" and c.column in ("FPS", "Top-1")]
    verdicts = {v.cell.column: v for v in compute(chosen, records=[RECORD])}
    assert verdicts["FPS"].state == "measured"
    assert verdicts["FPS"].text == "ours: 20.5 img/s ± 0.4 (15 runs, a CPU; b.json)"
    assert verdicts["Top-1"].text == "as published"


def test_the_latest_fitting_run_is_taken() -> None:
    newer = dataclasses.replace(RECORD, value=21.0, date="2026-02-01")
    other = dataclasses.replace(RECORD, model="se_resnet18", date="2026-03-01")
    plain = dataclasses.replace(RECORD, options="", date="2026-03-01")
    found = find_record([RECORD, newer, other, plain], "eca_resnet18", "kernel_size=3,5,7,7 input=224", "speed", "FPS")
    assert found == newer
    assert find_record([RECORD], "eca_resnet18", "kernel_size=3,5,7,7", "imagenet", "FPS") is None


def test_reading_records(tmp_path: Path) -> None:
    fields = {k: v for k, v in dataclasses.asdict(RECORD).items() if k != "run"}
    (tmp_path / "a.json").write_text(json.dumps({"records": [fields]}))
    (tmp_path / "other.json").write_text(json.dumps({"results": []}))
    assert load_records(tmp_path) == [dataclasses.replace(RECORD, run="a.json")]
    assert load_records(tmp_path / "nowhere") == []
    (tmp_path / "b.json").write_text("{")
    with pytest.raises(ExciteError, match=r"b\.json: not readable as JSON"):
        load_records(tmp_path)
    (tmp_path / "b.json").write_text(json.dumps({"records": [{"model": "x"}]}))
    with pytest.raises(ExciteError, match=r"b\.json: a record does not fit"):
        load_records(tmp_path)


def test_formats_hold_the_same_cells() -> None:
    chosen = [c for c in select("emca") if c.row in ("ResNet R-18", "BAM R-18", "A^2Nets R-50")]
    verdicts = compute(chosen, records=[dataclasses.replace(RECORD, model="resnet18", options="")])
    rows = list(csv.DictReader(io.StringIO(report.to_csv(verdicts))))
    data = json.loads(json.dumps(report.to_dict(verdicts)))
    markdown = report.to_markdown(verdicts)
    assert len(rows) == len(data["cells"]) == len(verdicts)
    assert sum(line.startswith("| ") for line in markdown.splitlines()) == len(verdicts) + 1
    assert data["tally"] == report.tally(verdicts)
    assert data["tally"]["measured"] == 1
    assert rows[0]["computed"].startswith("11.14798")
    assert "A^2Nets" in markdown
    assert "pooling in attention not seen" in markdown


@pytest.mark.parametrize("measured", MEASURED)
def test_measured_cells_are_not_computed(measured: str) -> None:
    chosen = [c for c in cells() if c.convention == measured][:3]
    assert chosen
    assert [v.text.partition(":")[0] for v in compute(chosen)] == ["as published"] * len(chosen)


def test_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["tables", "ecanet", "--only", "off", "--format", "csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [(r["row"], r["column"]) for r in rows] == [("ECA module of ECA-Net50", "GFLOPs")]
    file = tmp_path / "t.md"
    assert main(["tables", "senet", "--format", "markdown", "--out", str(file)]) == 0
    assert "SE-ResNet20" in file.read_text()
    assert main(["tables", "senet"]) == 0
    assert "77.06%" in capsys.readouterr().out


def test_unknown_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tables", "emcaa"]) == 2
    assert "unknown table 'emcaa'; did you mean 'emca'" in capsys.readouterr().err
    with pytest.raises(UsageError):
        select("x")
