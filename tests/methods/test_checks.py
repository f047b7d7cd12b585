"""Every option of every method against values that it cannot have, and options without effect beside others."""

import math
from typing import Any

import pytest
import torch
from cases import SPECIAL, Case
from torch import nn

import excite
from excite.common.checks import annotations, check, describe, fits
from excite.errors import UsageError
from excite.methods.base import stage_digits
from excite.registry import METHODS, get_method, method_options

HUGE = 10**5000  # has no text: Python refuses to write it
BAD = (
    *(None, True, False, 0, -1, -3, 2, 16, 101, 1000, HUGE, 0.0, 1.5, 2.5, 3.0, -1.0, 1e-300, 1e308),
    *(
        math.nan,
        math.inf,
        -math.inf,
        1j,
        "",
        " ",
        "0",
        "-1",
        "3",
        "2.5",
        "nan",
        "big",
        "3,5,5,7",
        "1/2/3/4",
        "\n",
        b"x",
    ),
    *((), [], [0], [2.5], (3,), [3, 3], ("a",), [True] * 4, (1, 2, 3), [3, 5, 7, 9], [None, 1], [[1]], {}, {"a": 1}),
    *(object(), int, torch.tensor(3), torch.ones(2)),
)
GOOD = (
    3,
    4,
    5,
    8,
    32,
    "1/1/1/1",
    "l1",
    "low4",
    "avg",
    "average",
    "multiply",
    "product",
    "position",
    "theta+",
    "dot",
    "released",
    "text",
    *("avg+max", "sigmoid", "hard_sigmoid", "softmax", "batch", "max", "1,1", (3, 5), 1),
)
BASE = {name: SPECIAL.get(name, Case(name, {})) for name in METHODS}
OPTIONS = [(name, option) for name in METHODS for option in method_options(name)]
# Options that give the method its other ones; without them those have no effect.
WITH: dict[tuple[str, str], dict[str, Any]] = {
    ("gsop", "grid"): {"mode": "position"}, ("ge", "size"): {"variant": "theta", "extent": 0},
    ("ge", "variant"): {"extent": 2}, ("ge", "bias"): {"variant": "theta", "size": 9},
    ("eca", "mlp_width"): {"use_mlp": True}, ("gct", "after_relu"): {"norm": "l1"},
    ("gc", "gate"): {"fusion": "multiply"},
    **{(name, "reduction"): {"least": 1} for name in ("sk", "split")},
    **{(f"emca_{gate}", "within"): {"form": "released"} for gate in ("se", "eca", "srm")},
    **{("ge", option): {"variant": "theta+", "extent": 2} for option in ("reduction", "divisor", "hidden")},
}  # fmt: skip


def text_of(error: UsageError) -> str:
    return error.args[0]


def build(method: str, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    return excite.create_attention(method, BASE[method].channels, **{**BASE[method].options, **options})


def behaviour(module: nn.Module, x: torch.Tensor) -> tuple[Any, ...]:
    """What can be told from outside: the initial state, and the answers with other weights, or that x is refused."""
    state = tuple((k, tuple(v.shape), float(v.double().sum())) for k, v in module.state_dict().items())
    torch.manual_seed(1)
    for p in module.parameters():
        nn.init.normal_(p)
    try:
        with torch.no_grad():
            return state, *(tuple(module.train(mode)(x).flatten().tolist()) for mode in (True, False))
    except UsageError:
        return state, "refused"


@pytest.mark.parametrize(("method", "option"), OPTIONS, ids=lambda v: v)
def test_a_bad_value_is_refused_and_a_good_one_has_an_effect(method: str, option: str) -> None:
    more = {k: v for k, v in WITH.get((method, option), {}).items() if k != option}
    x = torch.randn(2, BASE[method].channels, 9, 9, generator=torch.Generator().manual_seed(0))
    texts: list[str] = []
    answers = []
    for value in (method_options(method)[option].default, *BAD, *GOOD):
        try:
            module = build(method, **{**more, option: value})
        except UsageError as error:
            texts.append(text_of(error))
            continue
        assert fits(value, annotations(get_method(method).build)[option]), f"{value!r} was taken"
        answers.append(behaviour(module, x))
    assert any(answer != answers[0] for answer in answers), f"no value of {option} changes anything"
    assert texts, "no value is wrong?"
    for text in texts:
        assert "\n" not in text
        assert len(text) < 300
        assert option in text, text


@pytest.mark.parametrize("method", METHODS)
def test_channels_are_a_positive_integer(method: str) -> None:
    for value in (None, True, 0, -2, 2.0, 2.5, math.nan, "8", [8], torch.tensor(8), HUGE * -1):
        with pytest.raises(UsageError, match=r"channels=.*must be a positive integer"):
            excite.create_attention(method, value)


BOTTLENECKS = [name for name in METHODS if "divisor" in method_options(name)]
MLP = {"ge": {"variant": "theta+", "extent": 4}}
LEAST = {"sk": {"least": 1}, "split": {"least": 1}}
# From what the hidden units are reduced, of 96 channels: the gate of one of four branches, the parts of split together.
INNER = {"psa": 24, "ma": 24, "split": 192}
NAMED = [
    ("se", {"reduction": 2.5}, "positive integer"),
    ("se", {"hidden": 0}, "positive integer or None"),
    ("eca", {"kernel_size": 3.0}, "odd integer or 'adaptive'"),
    ("eca", {"gamma": 0}, "positive finite number"),
    ("psa", {"groups": 2.0}, "list of positive integers"),
    ("fca", {"frequencies": 16}, "top16"),
    ("emca_eca", {"scales": 1.5}, "integer of at least 0"),
    ("srm", {"eps": -1}, "positive finite number"),
    ("gct", {"eps": math.nan}, "positive finite number"),
    ("se", {"bias": 1}, "True or False"),
]
IDLE = [
    ("eca", {"kernel_size": 5, "gamma": 3}, "gamma"),
    ("ceca", {"kernel_size": 5, "b": 2}, "b"),
    ("emca_eca", {"kernel_size": 5, "gamma": 3}, "gamma"),
    ("cbam", {"spatial": False, "kernel_size": 3}, "kernel_size"),
    ("cbam", {"spatial": False, "spatial_norm": False}, "spatial_norm"),
    ("cbam", {"spatial_norm": False, "norm_scale": 0.0}, "norm_scale"),
    ("cbam", {"average_pools": True, "max_first": False}, "max_first"),
    ("cbam", {"average_pools": True, "pools": "avg", "spatial": False}, "average_pools"),
    ("ge", {"bias": True}, "bias"),
    ("ge", {"size": 7}, "size"),
    ("ge", {"reduction": 8}, "reduction"),
    ("ge", {"variant": "theta+", "mlp": False, "extent": 2, "hidden": 3}, "hidden"),
    ("ge", {"variant": "theta", "extent": 2, "bias": True}, "bias"),
    ("gsop", {"grid": 4}, "grid"),
    ("eca", {"mlp_width": 4}, "mlp_width"),
    ("gct", {"after_relu": True}, "after_relu"),
    ("gc", {"gate": "hard_sigmoid"}, "gate"),
    ("cbam", {"channel": False, "mlp_bias": False}, "mlp_bias"),
    ("cbam", {"channel": False, "pools": "avg"}, "pools"),
    ("strip", {"conv": False, "kernel_size": 5}, "kernel_size"),
    ("ela", {"norm": "batch", "groups": 2}, "groups"),
    ("sk", {"hidden": 4, "least": 8}, "least"),
    ("split", {"hidden": 4, "least": 8}, "least"),
    ("mlca", {"kernel_size": 5, "gamma": 3}, "gamma"),
    ("simple_coord", {"hidden": 8, "reduction": 3}, "reduction"),
    *((name, {**MLP.get(name, {}), "hidden": 4, "reduction": 3}, "reduction") for name in BOTTLENECKS),
    *((name, {**MLP.get(name, {}), "hidden": 4, "divisor": 2}, "divisor") for name in BOTTLENECKS),
]


@pytest.mark.parametrize(("method", "options", "message"), NAMED)
def test_the_error_says_what_would_be_right(method: str, options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=f"^{method}: {next(iter(options))}=.*must be .*{message}"):
        excite.create_attention(method, 64, **options)


@pytest.mark.parametrize(("method", "options", "idle"), IDLE)
def test_an_option_without_effect_is_refused(method: str, options: dict, idle: str) -> None:
    with pytest.raises(UsageError, match=rf"^{method}: {idle}=.* has no effect .*leave it out"):
        excite.create_attention(method, 64, **options)
    rest = {k: v for k, v in options.items() if k != idle}
    excite.create_attention(method, 64, **rest)  # without it, it can be built


@pytest.mark.parametrize("name", BOTTLENECKS)
def test_every_bottleneck_takes_hidden_units_and_a_divisor(name: str) -> None:
    def widths(**options: Any) -> set[int]:
        module = excite.create_attention(name, 96, **MLP.get(name, {}), **options)
        names = ("reduce", "g") if name == "nl" else ("reduce",)
        return {m.weight.shape[0] for k, m in module.named_modules() if k.rpartition(".")[2] in names}

    assert widths(hidden=7) == {7}
    inner, least = INNER.get(name, 96), LEAST.get(name, {})
    assert widths(reduction=5, **least) == {inner // 5}
    rounded = {24: 8, 96: 24, 192: 40}[inner]  # 19.2 to 16 would be more than a tenth down
    assert widths(reduction=5, divisor=8, **least) == {rounded}


@pytest.mark.parametrize("method", ["eca", "eca_ns", "ceca", "emca_eca"])
def test_kernels_across_channels(method: str) -> None:
    for notation in (3557, "3557", 335):
        with pytest.raises(UsageError, match=r"one size per stage.*kernel_size=3,"):
            excite.create_attention(method, 4096, kernel_size=notation)
    for size in (9, "9", 101):
        with pytest.raises(UsageError, match="larger than the 8 channels"):
            excite.create_attention(method, 8, kernel_size=size)
    with pytest.raises(UsageError, match=r"adaptive, gamma=0\.01"):
        excite.create_attention(method, 8, gamma=0.01)
    for text, size in (("5", 5), (101, 101)):
        gate = excite.create_attention(method, 256, kernel_size=text).gate
        assert gate.conv.kernel_size == (size,)


def test_a_network_reads_the_authors_notation() -> None:
    def sizes(name: str, kernel_size: Any) -> list[int]:
        with torch.device("meta"):
            model = excite.create_model(name, kernel_size=kernel_size)
        return [
            m.gate.conv.kernel_size[0]
            for m in model.modules()
            if type(getattr(m, "gate", None)).__name__ == "LocalConv"
        ]

    assert sizes("eca_resnet18", 3557) == [3, 3, 5, 5, 5, 5, 7, 7]
    assert sizes("eca_resnet18", "3557") == sizes("eca_resnet18", "3,5,5,7")
    assert sizes("eca_resnet20", 335) == [3] * 6 + [5] * 3
    with pytest.raises(UsageError, match="a network with 4 stages"):
        sizes("eca_resnet20", 3557)
    assert stage_digits(13) is None, "a size of two digits is a size"
    assert stage_digits(3507) is None
    assert stage_digits(HUGE) is None
    assert stage_digits(True) is None


@pytest.mark.parametrize(
    ("value", "annotation", "right"),
    [
        (1, int, True), (True, int, False), (1.0, int, False), (1, float, True), (True, float, False),
        (True, bool, True), (1, bool, False), ("a", str, True), (None, int | None, True), (None, int, False),
        ([1, 2], list[int], True), ("anything", Any, True),
    ],
)  # fmt: skip
def test_types(value: Any, annotation: Any, right: bool) -> None:
    assert fits(value, annotation) == right


def test_errors_are_one_short_line() -> None:
    with pytest.raises(UsageError) as caught:
        check("se", "hidden", "long\n" * 999, int)
    assert len(text_of(caught.value)) < 120
    assert "\n" not in text_of(caught.value)


@pytest.mark.parametrize(("method", "option"), OPTIONS, ids=lambda v: v)
def test_every_option_says_what_it_takes(method: str, option: str) -> None:
    annotation = annotations(get_method(method).build)[option]
    assert fits(method_options(method)[option].default, annotation), "the default"
    text = describe(annotation)
    assert text
    assert not any(word in text for word in ("typing", "Annotated", "<"))
