"""Published claims beside comparisons of ours: what is claimed, what is said of it, and from which files."""

import csv
import importlib.util
import io
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from excite.cli.main import main
from excite.comparison import Plan, claims, run_plan
from excite.comparison.plan import make_plan
from excite.comparison.variants import parse
from excite.errors import ExciteError
from excite.recipes import comparison as plans

ROOT = Path(__file__).resolve().parents[2]


def result(folder: Path, name: str, top1: dict[str, list[float]], **plan: object) -> Path:
    """A result file of a comparison with these accuracies by variant and seed; plan: more entries of its plan."""
    rows = [
        {"variant": parse(v, "resnet20").to_dict(), "top1": {str(s): x for s, x in enumerate(values)}}
        for v, values in top1.items()
    ]
    plan = {"data": "cifar10", "recipe": "cifar10-short", "seeds": 3, "changes": {"epochs": 5}, **plan}
    file = folder / f"{name}.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps({"plan": plan, "comparison": {"rows": rows}}))
    return file


def test_every_claim_is_of_printed_numbers_and_of_variants_that_exist() -> None:
    every = claims.claims()
    assert len(every) > 20
    for claim in every:
        assert claim.effects
        for variant in (claim.variant, claim.against):
            parse(variant, "resnet20").check()
    by_text = {claim.text: claim for claim in every}
    assert by_text["reducing hurts: SE-Var2 over SE"].effects == {"ResNet-50": 0.36}
    assert by_text["SE in the last block of a stage alone"].effects == {"R-18": 0.33, "R-34": -0.23, "R-50": -1.09}
    assert by_text["SE in the last block of a stage alone"].direction == 0
    assert by_text["SE with reduction 4 over no attention"].printed == "+1 (ResNet-20), CIFAR-10"
    assert by_text["CBAM over no attention"].direction == -1


def test_the_plans_that_come_with_excite_answer_claims() -> None:
    asked = {claims._read(claim.variant) for claim in claims.claims()}
    for name in plans.names():
        values = plans.load(name)
        written = [m if isinstance(m, str) else _written(m) for m in values["methods"]]
        assert any(claims._read(w) in asked for w in written), name


def _written(entry: dict[str, dict[str, object]]) -> str:
    [(method, options)] = entry.items()
    return method + ":" + ";".join(f"{k}={v}" for k, v in options.items())


@pytest.mark.parametrize(
    ("se", "words"),
    [
        ([0.60, 0.61, 0.62], "shown: a gain as published; the published size does not fit our interval"),
        ([0.515, 0.5152, 0.5351], "shown: a gain as published; the published size fits our interval"),
        ([0.40, 0.41, 0.42], "the opposite: a loss"),
        ([0.51, 0.48, 0.54], "not shown at our scale; our interval holds the published size and zero alike"),
        ([0.508, 0.5121, 0.536], "not shown at our scale; the published size fits our interval"),
        ([0.5001, 0.5, 0.5199], "not shown at our scale; the published size does not fit our interval"),
        ([0.6], "one seed: no interval"),
    ],
)
def test_what_is_said_of_a_claim(se: list[float], words: str, tmp_path: Path) -> None:
    none = [0.5, 0.5001, 0.52]
    result(tmp_path, "ablation-x", {"none": none, "se": se, "se_var1": none})  # a second question to correct for
    finding = next(f for f in claims.find(claims.load(tmp_path)) if f.claim.printed == "+1.51 (ResNet-50), ImageNet")
    se_noise = finding.gain
    assert finding.verdict == words, se_noise


def test_one_family_of_claims_is_corrected_together(tmp_path: Path) -> None:
    """Two claims at a p of 0.03 are no finding; one alone is."""
    base, up = [0.5, 0.5, 0.5, 0.5], [0.51, 0.51, 0.515, 0.503]
    result(tmp_path / "a", "one", {"none": base, "se_var1": up})
    result(tmp_path / "b", "two", {"none": base, "se_var1": up, "eca:kernel_size=3": up})
    one = [f for f in claims.find(claims.load(tmp_path / "a")) if f.measured]
    two = [f for f in claims.find(claims.load(tmp_path / "b")) if f.measured]
    assert [f.verdict for f in one] == ["shown: a gain as published; the published size fits our interval"]
    assert len(two) == 2
    assert all(f.verdict.startswith("not shown") for f in two)
    assert two[0].gain.p_holm == pytest.approx(2 * one[0].gain.p)


def test_a_pair_that_two_works_published_counts_once(tmp_path: Path) -> None:
    """SE against no attention is printed for ImageNet and for CIFAR-10; our runs answer one question, not two."""
    result(tmp_path, "one", {"none": [0.5, 0.5, 0.5, 0.5], "se": [0.51, 0.51, 0.515, 0.503]})
    found = [f for f in claims.find(claims.load(tmp_path)) if f.measured]
    assert len(found) == 2
    assert all(f.gain.p_holm == f.gain.p for f in found)
    assert all(f.verdict.startswith("shown: a gain as published") for f in found)


def test_a_comparison_that_grew_is_corrected_for_its_looks_as_in_its_report(tmp_path: Path) -> None:
    values = {"none": [0.5, 0.5, 0.5, 0.5], "se_var1": [0.51, 0.51, 0.515, 0.503]}
    result(tmp_path / "once", "x", values, seeds=4)
    result(tmp_path / "grown", "x", values, seeds=4, looks=[2, 4])
    once, grown = (
        next(f for f in claims.find(claims.load(tmp_path / name)) if f.measured) for name in ("once", "grown")
    )
    assert once.gain.p_holm == pytest.approx(once.gain.p)
    assert grown.gain.p_holm == pytest.approx(2 * once.gain.p)
    assert once.verdict.startswith("shown")
    assert grown.verdict.startswith("not shown")


@pytest.mark.parametrize(
    "content",
    ["{", "[1]", '{"comparison": 1}', '{"comparison": {"rows": [1]}, "plan": {}}', '{"comparison": {"rows": []}}',
     '{"comparison": {"rows": [{"variant": "none", "top1": {"a": 1}}]}, "plan": {}}',
     '{"comparison": {"rows": [{"variant": "none", "top1": {"0": "x"}}]}, "plan": {}}',
     '{"comparison": {"rows": [{"variant": 3, "top1": {"0": 0.5}}]}, "plan": {}}',
     '{"comparison": {"rows": []}, "plan": {"seeds": 3, "looks": 3}}',
     '{"comparison": {"rows": []}, "plan": {"seeds": "3", "looks": []}}',
     '{"comparison": {"rows": []}, "plan": {"seeds": 3, "looks": [true]}}'],
)  # fmt: skip
def test_broken_result_files_are_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(ExciteError, match=r"x\.json"):
        claims.load(tmp_path)


def test_other_result_files_and_no_folder_are_no_comparisons(tmp_path: Path) -> None:
    (tmp_path / "tables.json").write_text('{"values": {}}')
    assert claims.load(tmp_path) == claims.load(tmp_path / "gone") == []


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result(tmp_path, "ablation-se", {"none": [0.5, 0.51, 0.52], "se": [0.60, 0.61, 0.625]})
    call = ["tables", "ablations", "--comparisons", str(tmp_path)]
    assert main(call) == 0
    out = capsys.readouterr().out
    assert "ablation-se: resnet20 on cifar10, recipe cifar10-short, epochs=5, 3 seeds" in out
    assert "shown: a gain as published" in out
    assert main([*call, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["ablations"]
    ours = [r for r in rows if r["file"] == "ablation-se"]
    assert [(r["n"], r["mean"]) for r in ours] == [(3, pytest.approx(10.166667))] * 2
    assert {r["verdict"] for r in rows if r["file"] is None} == {claims.NO_RUN}
    assert main([*call, "--format", "csv"]) == 0
    assert len(list(csv.DictReader(io.StringIO(capsys.readouterr().out)))) == len(rows)
    assert main([*call, "--format", "markdown", "--out", str(tmp_path / "a.md")]) == 0
    assert "claims beside runs of ours" in capsys.readouterr().out
    assert (tmp_path / "a.md").read_text().startswith("# Published ablations beside ours\n")
    for wrong, says in {
        ("--comparisons", str(tmp_path / "a.md")): "is a file; give the name of a folder",
        ("--results", str(tmp_path / "a.md")): "is a file; give the name of a folder",
        ("--format", "csv", "--json"): "--format csv and --json are two forms",
    }.items():
        assert main(["tables", "ablations", *wrong]) == 2
        assert says in capsys.readouterr().err
    assert main(["tables", "ablation"]) == 2
    assert "did you mean 'ablations'" in capsys.readouterr().err


def test_the_page_holds_what_the_result_files_say() -> None:
    page = claims.to_markdown(claims.find(claims.load(ROOT / "docs" / "results")))
    assert (ROOT / "docs" / "ablations.md").read_text() == page, (
        "excite tables ablations --format markdown -o docs/ablations.md"
    )


def script(name: str) -> ModuleType:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Path]:
    folder = tmp_path_factory.mktemp("finished") / "c"
    changes = {"epochs": 1, "limit_train": 64, "limit_val": 20}
    plan = make_plan("none,eca", "resnet20", "digits", seeds=2, train=changes)
    run_plan(plan, folder, report=lambda line: None)
    return plan, folder


def test_a_finished_comparison_is_put_into_the_docs_by_one_command(finished: tuple[Plan, Path], tmp_path: Path) -> None:
    _, folder = finished
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(folder, elsewhere)
    for file in (elsewhere / "plan.json", *elsewhere.rglob("config.yaml")):  # as if it were made with photos
        content = yaml.safe_load(file.read_text()) | {"data": "parquet:/home/me/photos", "recipe": "digits"}
        file.write_text(json.dumps(content))
    docs = tmp_path / "docs"
    script("comparison_table").main([str(elsewhere), "--name", "ablation-x", "--note", "a trial"], docs=docs)
    files = sorted(p.relative_to(docs).as_posix() for p in docs.rglob("*.*"))
    assert files == [
        "ablations.md", "img/ablation-x_costs.png", "img/ablation-x_curves.png", "img/ablation-x_gains.png",
        "reports/ablation-x.html", "results/ablation-x.json",
    ]  # fmt: skip
    content = json.loads((docs / "results" / "ablation-x.json").read_text())
    assert content["plan"]["data"] == "parquet:data/photos"
    assert content["command"].startswith("excite compare --methods none,eca")
    assert content["notes"][-1] == "a trial"
    for file in ("results/ablation-x.json", "reports/ablation-x.html", "ablations.md"):
        text = (docs / file).read_text()
        assert "/home/me" not in text
        assert str(folder.parent) not in text
    found = [f for f in claims.find(claims.load(docs / "results")) if f.measured]
    assert {f.claim.text for f in found} == {"ECA over no attention"}
    assert all(f.gain.pairs == 2 for f in found)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in plans.names() if name.startswith("ablation-")])
def test_every_ablation_from_its_command_to_its_place_among_the_published_ones(name: str, tmp_path: Path) -> None:
    small = ["--train.limit_train", "32", "--train.limit_val", "20", "--train.batch_size", "16", "--epochs", "1"]
    call = ["compare", name, "--data", "digits", "--recipe", "digits", "--seeds", "2", *small]
    assert main([*call, "--out", str(tmp_path / name)]) == 0
    assert main([*call, "--out", str(tmp_path / name)]) == 0  # all runs are there
    script("comparison_table").main([str(tmp_path / name), "--name", name], docs=tmp_path / "docs")
    found = [f for f in claims.find(claims.load(tmp_path / "docs" / "results")) if f.measured]
    assert found
    assert all(f.gain is not None and f.gain.pairs == 2 for f in found)


def test_an_unfinished_comparison_is_not(finished: tuple[Plan, Path], tmp_path: Path, capsys) -> None:
    _, folder = finished
    (folder / "runs" / "eca-seed1" / "summary.json").rename(folder / "kept")
    with pytest.raises(SystemExit):
        script("comparison_table").main([str(folder), "--name", "x"], docs=tmp_path)
    (folder / "kept").rename(folder / "runs" / "eca-seed1" / "summary.json")
    assert "3 of 4 runs are done" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
