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
from excite.measure.detection import Detector, trace_detector
from excite.measure.published import MEASURED, SOURCES, TITLES, UNITS, Cell, cells, select
from excite.measure.records import Record, find_record, load_records
from excite.measure.tables import Calculator, compute, judge

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


def check_counts(wanted: list[tuple[str, str, str, int]]) -> None:
    calculator = Calculator(create_detector)
    for table, row, column, count in wanted:
        value = calculator.value(one(table, row, column))
        if column == "MACs" and row in UNREAD:
            assert value + UNREAD[row] == count, (row, value, count)
        else:
            assert abs(value - count) <= max(32, CLOSE * count), (table, row, column, value, count)


def test_counts_of_the_cifar_table() -> None:
    check_counts([e for e in EXPECTED if e[0] == "emanet-cifar"])


@pytest.mark.slow
def test_counts_of_every_table() -> None:
    check_counts(EXPECTED)


@pytest.mark.slow
def test_every_reproduced_row_of_the_references_is_reproduced() -> None:
    verdicts = compute([c for c in cells() if not c.measured], detector=create_detector)
    states = {(v.cell.table, v.cell.row, v.cell.column): v.state for v in verdicts}
    differing = json.loads((HERE / "differing_cells.json").read_text())
    off = {tuple(c) for c in differing["off"]}
    unknown = {tuple(c) for c in differing["not reproducible"]}
    assert {k for k, s in states.items() if s == "off"} == off
    assert {k for k, s in states.items() if s == "not reproducible"} == unknown
    assert len(states) - len(off) - len(unknown) > 200


def test_every_cell_is_well_formed() -> None:
    keys = [(c.table, c.row, c.column) for c in cells()]
    assert len(keys) == len(set(keys)) > 700
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
        ("1.235", 1.23447, "reproduced", "reproduced, rounded twice (1.23447)"),
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
    data = json.loads(report.to_json(verdicts))
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
