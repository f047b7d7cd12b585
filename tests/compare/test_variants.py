"""Variants: how they are written, what is refused, and plans made of them."""

import json
import re
from pathlib import Path

import pytest

import excite
from excite.comparison.plan import load, looks, make_plan, plan_values, save
from excite.comparison.variants import Variant, from_entry, parse, parse_all
from excite.errors import ExciteError, UsageError
from excite.recipes import comparison as plans
from excite.train.network import spec_from


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("eca", Variant("eca")),
        (" eca ", Variant("eca")),
        ("eca:kernel_size=3", Variant("eca", options={"kernel_size": 3})),
        ("eca:kernel-size=3", Variant("eca", options={"kernel_size": 3})),
        ("eca:kernel_size=[3,5,5]", Variant("eca", options={"kernel_size": "3,5,5"})),
        ("emca_eca:stages=1;blocks=all", Variant("emca_eca", options={"stages": 1, "blocks": "all"})),
        ("se@first", Variant("se", placement="first")),
        ("se@last:reduction=8", Variant("se", options={"reduction": 8}, placement="last")),
        ("se:reduction=8@last", Variant("se", options={"reduction": 8}, placement="last")),
        ("se:reduction=8@last:bias=true", Variant("se", options={"reduction": 8, "bias": True}, placement="last")),
        ("eca@sites=[layer1,layer2.0]", Variant("eca", sites="layer1,layer2.0")),
        ("eca@sites=stage-ends:kernel_size=5", Variant("eca", options={"kernel_size": 5}, sites="stage-ends")),
        ("none:stem=3", Variant("none", options={"stem": 3})),
    ],
)
def test_a_variant_as_people_write_it(text: str, expected: Variant) -> None:
    variant = parse(text, "resnet20")
    assert variant == expected
    # What is written of it is read as the same again, and so is what a plan keeps.
    assert parse(variant.written, "resnet20") == variant
    assert from_entry(json.loads(json.dumps(variant.to_dict())), "resnet18", "a plan") == variant


def test_commas_inside_brackets_belong_to_a_value() -> None:
    variants = parse_all("none,eca:kernel_size=[3,5,5],se@first,", "resnet20")
    assert [variant.written for variant in variants] == ["none", "eca:kernel_size=[3,5,5]", "se@first"]
    with pytest.raises(UsageError, match=r"kernel_size=\[3,5,5,7\]"):
        parse_all("none,eca:kernel_size=3,5,5", "resnet20")


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ("none,eca kernel", "a variant is METHOD"),
        ("none,eca:kernel_size", "NAME=VALUE"),
        ("none,eca@middle", "METHOD@first|last"),
        ("none,eca@sites", "METHOD@first|last"),
        ("none,eca@sites=", "METHOD@first|last"),
        ("none,eca@sites=[]", "METHOD@first|last"),
        ("none,eca:kernel_size=[3,5", "a bracket is not closed"),
        ("none,eca:kernel_size=3]", "never opened"),
        ("none@first,eca", "the baseline has no attention"),
        ("none@sites=layer1,eca", "the baseline has no attention"),
        ("none,eca,eca", "twice"),
        ("none,eca:kernel_size=3,eca:kernel_size=3", "twice"),
        ("none,ecca:kernel_size=3", "did you mean 'eca'"),
        ("none,SE", "did you mean 'se'"),
        ("", "a comparison needs methods"),
        (",", "a comparison needs methods"),
    ],
)
def test_what_is_no_variant(methods: str, message: str) -> None:
    with pytest.raises(UsageError, match=message.replace("|", r"\|")):
        make_plan(methods).check()


def test_one_network_under_two_labels_is_refused() -> None:
    with pytest.raises(UsageError, match="are the same network"):
        make_plan([Variant("none"), Variant("eca", label="a"), Variant("eca", label="b")]).check()
    with pytest.raises(UsageError, match="it is attached"):
        make_plan("none,eca@first", "timm/resnet18").check()


def test_variants_reach_the_networks() -> None:
    plan = make_plan("none,se@first,se@last:reduction=4,eca@sites=layer3,emca_eca:stages=1;blocks=1", "resnet20")
    plan.check()
    specs = {v.name: spec_from(plan.config(v, 0, Path("unused")), 10) for v in plan.variants}
    assert specs["se@first"].placement == "first"
    assert (specs["se:reduction=4@last"].placement, specs["se:reduction=4@last"].options) == ("last", {"reduction": 4})
    attached = specs["eca@sites=layer3"]
    assert (attached.name, attached.attach, attached.attach_sites) == ("resnet20", "eca", "layer3")
    assert specs["emca_eca:stages=1;blocks=1"].options == {"stages": 1, "blocks": 1}
    first, last = specs["se@first"].build(), specs["se:reduction=4@last"].build()
    assert any(key.startswith("layer1.0.attention") for key in first.state_dict())
    assert any(key.startswith("layer1.2.attention") for key in last.state_dict())


def test_options_of_a_method_are_those_of_all_its_variants() -> None:
    plan = make_plan("none,se,se:reduction=4", options={"se": {"reduction": 2}})
    assert [v.options for v in plan.variants] == [{}, {"reduction": 2}, {"reduction": 4}]
    with pytest.raises(UsageError, match="eca is not compared here"):
        make_plan("none,se", options={"eca": {"kernel_size": 3}})


def test_each_backbone_has_its_own_baseline() -> None:
    plan = make_plan("none,eca", "resnet20,mobilenet_v2_cifar")
    assert plan.names == [
        "none on resnet20", "eca on resnet20", "none on mobilenet_v2_cifar", "eca on mobilenet_v2_cifar",
    ]  # fmt: skip
    assert [plan.name_of(plan.baseline(v)) for v in plan.variants] == [plan.names[0]] * 2 + [plan.names[2]] * 2
    folders = {run.folder for run in plan.runs(Path("c"))}
    assert len(folders) == 12


def test_run_folders_are_safe_and_apart(tmp_path: Path) -> None:
    labels = ["../../x", "a/b", "a b", "a-b", "k = 3", "<b>", "a\nb", "ä", "x" * 300]
    variants = [Variant("none"), *(Variant("eca", options={"b": i}, label=text) for i, text in enumerate(labels))]
    plan = make_plan(variants, seeds=1)
    folders = [run.folder for run in plan.runs(tmp_path)]
    assert len(set(folders)) == len(folders)
    assert all(folder.parent == tmp_path / "runs" for folder in folders)
    assert all(len(folder.name) < 110 and folder.name.isascii() for folder in folders)


def test_a_comparison_grows_by_variants_and_seeds(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    save(make_plan("none,eca", seeds=2), folder)
    grown = save(make_plan("none,eca:kernel_size=5,eca", seeds=3), folder)
    assert load(folder) == grown
    assert grown.looks == ()  # nothing had finished, so nobody has looked at a table yet
    for other in ("none,eca", "none,eca:kernel_size=7,eca", "eca,none,eca:kernel_size=5"):
        with pytest.raises(UsageError, match="another comparison"):
            save(make_plan(other, seeds=3), folder)
    with pytest.raises(UsageError, match=r"has 3 seeds, .* go on with --seeds 3, or"):
        save(make_plan("none,eca:kernel_size=5,eca", seeds=2), folder)


def test_a_finished_table_that_grows_has_been_looked_at(tmp_path: Path) -> None:
    plan = save(make_plan("none,eca", seeds=2), tmp_path / "c")
    for run in plan.runs(tmp_path / "c"):
        run.folder.mkdir(parents=True)
        (run.folder / "summary.json").write_text("{}")
    grown = save(make_plan("none,eca", seeds=4), tmp_path / "c")
    assert (grown.looks, grown.judged) == ((2,), 2)
    assert save(make_plan("none,eca", seeds=4), tmp_path / "c").judged == 2


def test_looks() -> None:
    assert looks(3, None) == ()
    assert looks(3, 3) == (3,)
    assert looks(3, 20) == (3, 6, 12, 20)
    assert make_plan(seeds=3, until_clear=10).judged == 3
    with pytest.raises(UsageError, match="cannot end with fewer"):
        looks(5, 3)


def test_a_plan_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    old = {"methods": ["none", "eca"], "backbone": "resnet32", "data": "digits", "recipe": "auto", "seeds": 2,
           "changes": {"epochs": 3}, "options": {"eca": {"kernel_size": 5}}}  # fmt: skip
    (tmp_path / "plan.json").write_text(json.dumps(old))
    plan = load(tmp_path)
    assert [run.folder.name for run in plan.runs(tmp_path)][:2] == ["none-seed0", "eca-seed0"]
    assert [v.options for v in plan.variants] == [{}, {"kernel_size": 5}]
    # The command that made it goes on with it, in the same folders.
    again = make_plan("none,eca", "resnet32", seeds=2, epochs=3, options={"eca": {"kernel_size": 5}})
    assert save(again, tmp_path) == plan


@pytest.mark.parametrize(
    "change",
    [
        {"methods": 3},
        {"methods": [None]},
        {"options": {"se": {}}},
        {"options": []},
        {"backbone": None},
        {"seeds": 0},
        {"seeds": True},
        {"variants": [], "methods": None},
    ],
)
def test_a_broken_plan_is_one_line(change: dict, tmp_path: Path) -> None:
    values = {"methods": ["none", "eca"], "backbone": "resnet20", "data": "digits", **change}
    (tmp_path / "plan.json").write_text(json.dumps(values))
    with pytest.raises(ExciteError, match="broken") as error:
        load(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", plans.names())
def test_every_plan_that_comes_with_excite_can_be_built(name: str) -> None:
    plan = make_plan(**plan_values(name))
    plan.check()
    assert len(plan.variants) >= 5
    assert plan.variants[0].method == "none"
    for variant in plan.variants:
        spec = spec_from(plan.config(variant, 0, Path("unused")), 10)
        excite.registry.get_method(variant.method)
        assert spec.name.endswith(variant.backbone)
    assert plans.summaries()[name]


def test_a_plan_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "grid.yaml"
    file.write_text(
        "methods:\n"
        "  - none\n"
        "  - eca: {kernel_size: 3}\n"
        "  - {method: se, label: squeeze, options: {reduction: 4}, placement: last}\n"
        "backbone: [resnet20, mobilenet_v2_cifar]\n"
        "seeds: 2\ntrain: {lr: 0.05}\noptions: {se: {bias: true}}\n"
    )
    plan = make_plan(**plan_values(str(file)))
    assert plan.names[:3] == ["none on resnet20", "eca:kernel_size=3 on resnet20", "squeeze on resnet20"]
    assert plan.variants[2].options == {"bias": True, "reduction": 4}
    assert (plan.seeds, plan.changes["lr"], len(plan.variants)) == (2, 0.05, 6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("methods: 3", "methods is 3"),
        ("methods: [[none]]", "a variant is"),
        ("methods: [{method: eca, kernel: 3}]", "no option 'kernel'"),
        ("methods: [{eca: 3, se: 4}]", "no method"),
        ("methods: [{method: eca, options: 3}]", "options of variant 'eca' is 3; expected a mapping"),
        ("methods: [{method: eca, options: {3: 4}}]", "not names and values"),
        ("method: [none]", "did you mean 'methods'"),
        ("seeds: two", "seeds is 'two'"),
        ("seeds: true", "seeds is True"),
        ("backbone: []", "backbone is"),
        ("backbone: [3]", "backbone is"),
        ("options: {se: 3}", "options of 'se'"),
        ("- none", "mapping"),
    ],
)
def test_a_plan_that_cannot_be_read(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "grid.yaml"
    file.write_text(text)
    with pytest.raises(UsageError, match=message):
        make_plan(**plan_values(str(file)))


def test_names_taken_for_one_another() -> None:
    with pytest.raises(UsageError, match="excite compare ablation-kernel"):
        make_plan(recipe="ablation-kernel")
    with pytest.raises(UsageError, match="--methods none,se"):
        plan_values("se")
    with pytest.raises(UsageError, match="did you mean 'ablation-kernel'"):
        plan_values("ablation-kernal")


@pytest.mark.parametrize(
    ("methods", "differs"),
    [
        ("none:width_mult=0.5,eca", "none:width_mult=0.5 and eca are .* differ in width_mult"),
        ("none,eca:width_mult=0.5", "none and eca:width_mult=0.5 are .* differ in width_mult"),
        ("none:width_mult=0.5,eca:width_mult=0.75", "differ in width_mult"),
        ("none:width_mult=0.5,eca:width_mult=0.5,se", "none:width_mult=0.5 and se are"),
        ("eca:kernel_size=3;drop_rate=0.1,se", "differ in drop_rate"),
        ("none:width_mult=0.5,eca:width_mult=0.5;kernel_size=5,se:width_mult=0.5", ""),
        ("none,none:width_mult=0.5,eca", ""),
        ("eca:kernel_size=3,se:reduction=4,emca_eca:stages=1", ""),
    ],
)
def test_all_variants_are_on_the_same_network(methods: str, differs: str) -> None:
    plan = make_plan(methods, "mobilenet_v2_cifar")
    if not differs:
        plan.check()
        return
    with pytest.raises(UsageError, match=f"{differs}.*give it to all variants or to none"):
        plan.check()


@pytest.mark.parametrize(
    "methods",
    [
        "none:width_mult=0.5,eca@sites=stage-ends",
        "none:width_mult=0.5,eca:width_mult=0.5,eca:width_mult=0.5@sites=stage-ends",
        "eca@sites=stage-ends,se:width_mult=0.5",
        "none:width_mult=0.5,eca,eca@sites=stage-ends",
    ],
)
def test_an_attached_variant_has_options_of_the_backbone_by_the_recipe(methods: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as refused:
        make_plan(methods, "mobilenet_v2_cifar").check()
    attached = next(part for part in methods.split(",") if "@" in part)
    assert f"{attached} is attached, and takes options of its method alone; leave width_mult out" in str(refused.value)
    # as the error says:
    said = re.search("`(.*)`", str(refused.value))[1].replace("X", "0.5")
    (tmp_path / "mine.yaml").write_text(f"{said}\nepochs: 2\n")
    bare = re.sub("[:;]width_mult=0.5", "", methods)
    plan = make_plan(bare, "mobilenet_v2_cifar", recipe=str(tmp_path / "mine.yaml"))
    plan.check()
    networks = [spec_from(plan.config(v, 0, Path("unused")), 10).build() for v in plan.variants]
    usual = excite.create_model("mobilenet_v2_cifar", num_classes=10)
    widths = {network.features[0][0].out_channels for network in networks}
    assert len(widths) == 1
    assert widths != {usual.features[0][0].out_channels}
