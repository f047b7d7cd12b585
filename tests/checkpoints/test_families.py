"""Every setting of the families: recognised, inferred, and filled to the last entry (on the meta device).

Of the deepest networks only those without attention and with ECA; all of them are slow.
"""

from collections.abc import Callable
from typing import Any

import pytest
import references as ref
import torch

import excite
from excite.checkpoints.layouts import LAYOUTS

K3357, K3577 = (3, 3, 5, 7), (3, 5, 7, 7)
PLAIN_MA = ((1, 4, 8, 16),) * 4
MINI_MA = ((1, 2, 4, 8),) * 3 + ((16, 16, 16, 16),)

Case = tuple[str, Callable[[], ref.State], str, dict[str, Any]]


def cases() -> list[Case]:
    made: list[Case] = []

    def add(state: Callable[[], ref.State], name: str, label: str = "", **options: Any) -> None:
        made.append((f"{name}-{label}" if label else name, state, name, options))

    for depth in (18, 34, 50, 101, 152):
        r = f"resnet{depth}"
        add(lambda d=depth: ref.resnet(d), r)
        add(lambda d=depth: ref.resnet(d, ref.eca(K3357)), f"eca_{r}", kernel_size=K3357)
        add(lambda d=depth: ref.resnet(d, ref.eca((3, 3, 3, 3))), f"eca_{r}", "k3", kernel_size=3)
        add(lambda d=depth: ref.resnet(d, ref.se()), f"se_{r}")
        add(lambda d=depth: ref.resnet(d, ref.srm), f"srm_{r}")
        add(lambda d=depth: ref.resnet(d, ref.se(name="rclb.fc", bias=True)), f"se_{r}", "bias", bias=True)
        add(lambda d=depth: ref.resnet(d, stem=3, classes=10, shortcut="shortcut", head="linear"), f"{r}_cifar")
        add(lambda d=depth: ref.resnet(d, ref.eca(K3577), stem=3, classes=100), f"eca_{r}_cifar", kernel_size=K3577)
        add(lambda d=depth: ref.resnet(d, ref.emanet_cbam, stem=3, classes=10), f"cbam_{r}_cifar")
        add(lambda d=depth: ref.emca(d, lambda s, b: s + 1), f"emca_eca_{r}", form="released", stages="all", blocks=1)
    for depth in (18, 34, 50, 101):
        r = f"resnet{depth}"
        add(lambda d=depth: ref.resnet(d, ref.cbam()), f"cbam_{r}", max_first=True)
        add(lambda d=depth: ref.resnet(d, ref.cbam(spatial=False)), f"cbam_{r}", "channel", spatial=False)
        add(lambda d=depth: ref.resnet(d, between=ref.bam, classes=100, stem=3), f"bam_{r}_cifar", combine="product")
    for depth in (34, 50, 101, 152):
        sizes = {"frequencies": "top16", "size": (56, 28, 14, 7)}
        add(lambda d=depth: ref.resnet(d, ref.fcanet()), f"fca_resnet{depth}", "no basis", **sizes)
    for depth in (50, 101, 152):
        add(lambda d=depth: ref.resnet(d, ref.sanet), f"sa_resnet{depth}")
    for depth in (50, 101):
        add(lambda d=depth: ref.resnet(d, spatial=ref.psa((3, 5, 7, 9), (1, 4, 8, 16))), f"epsanet{depth}")
        add(
            lambda d=depth: ref.resnet(d, spatial=ref.psa((3, 5, 7, 9), (16, 16, 16, 16))),
            f"epsanet{depth}",
            "g16",
            groups=((16,) * 4,) * 4,
        )
        add(lambda d=depth: ref.resnet(d, spatial=ref.ma(PLAIN_MA), stem=3, classes=10), f"emanet{depth}_cifar")
        mini = ref.ma(MINI_MA, ("fc1", "fc2"))
        add(lambda d=depth, m=mini: ref.resnet(d, spatial=m, classes=100), f"emanet{depth}", "mini", groups=MINI_MA)
    add(lambda: ref.resnet(50, ref.ge), "ge_resnet50", variant="theta", size=(56, 28, 14, 7), bias=True)
    add(lambda: ref.resnet(50, ref.se(8)), "se_resnet50", "r8", reduction=8)
    add(lambda: ref.resnet(50, ref.cbam(8)), "cbam_resnet50", "r8", reduction=8)
    add(lambda: ref.resnet(50, ref.se(hidden=lambda c: 24 + c // 64)), "se_resnet50", "odd", hidden=(28, 32, 40, 56))
    add(lambda: ref.emca(50, lambda s, b: 2), "emca_eca_resnet50", "1,1", form="released", stages=1, blocks=1)
    add(
        lambda: ref.emca(50, lambda s, b: 1 + (b[s - 2] if s > 1 else 1)),
        "emca_eca_resnet50",
        "1,N",
        stages=1,
        blocks="all",
    )
    add(lambda: ref.emca(34, lambda s, b: s + 1, "se"), "emca_se_resnet34", form="released", stages="all", blocks=1)
    add(lambda: ref.mobilenet(1.0, True), "eca_mobilenet_v2", kernel_size=(1, 1, 1, 1, 3, 3, 3))
    add(lambda: ref.mobilenet(0.5, True, divisor=1), "eca_mobilenet_v2", "half")
    add(lambda: ref.mobilenet(0.5, False), "mobilenet_v2", "half")
    add(lambda: ref.mobilenet(1.4, False, classes=7), "mobilenet_v2", "1.4")
    big = ((1, 2, 7, 12), (32, 64, 160, 384), 16)
    add(lambda: ref.regnet((1, 1, 4, 7), (24, 56, 152, 368), 8, 0), "regnetx_200mf_cifar")
    add(lambda: ref.regnet(*big, 0), "regnetx_400mf_cifar")
    add(lambda: ref.regnet(*big, 0.25), "regnety_400mf_cifar")
    for n in (3, 5, 9):
        add(lambda n=n: ref.small_se_resnet(n), f"se_resnet{6 * n + 2}", shortcut="projection")
    return made


CASES = cases()
DEEPEST = {c[0] for c in CASES if "101" in c[0] or "152" in c[0]} - {"resnet101", "eca_resnet101", "resnet152"}


def imported(state: dict[str, Any]) -> tuple[torch.nn.Module, Any]:
    with torch.device("meta"):
        return excite.import_checkpoint(state)


@pytest.mark.parametrize(
    ("state", "name", "options"),
    [pytest.param(*c[1:], id=c[0], marks=pytest.mark.slow if c[0] in DEEPEST else ()) for c in CASES],
)
def test_family(state: Callable[[], ref.State], name: str, options: dict[str, Any]) -> None:
    given = state()
    model, report = imported(given)
    assert report.model == name
    assert report.complete
    assert options.items() <= report.options.items(), report.options
    used = set(report.loaded.values()) | set(report.ignored)
    assert used == set(given)
    assert model.excite_card.num_classes == given[next(k for k in reversed(given) if k.endswith(".weight"))].shape[0]


def test_every_layout_has_a_case() -> None:
    from excite.checkpoints.layouts import OURS, recognise

    seen = {recognise(c[1]()).name for c in CASES if c[0] not in DEEPEST}  # type: ignore[union-attr]
    timm_ones = {f.name for f in LAYOUTS if f.name.startswith("timm")}
    assert {f.name for f in LAYOUTS} - {OURS.name} - timm_ones == seen


@pytest.mark.parametrize("depth", [18, 50])
def test_wrapped_and_prefixed_files(depth: int, tmp_path: Any) -> None:
    state = {k: v.clone() for k, v in ref.resnet(depth, ref.eca(K3357)).items()}
    path = tmp_path / "model_best.pth.tar"
    torch.save({"epoch": 7, "arch": "x", "state_dict": {f"module.{k}": v for k, v in state.items()}, "best": 1.0}, path)
    model, report = excite.import_checkpoint(path)
    assert report.model == f"eca_resnet{depth}"
    assert any("'module.'" in note for note in report.notes)
    assert any("epoch, arch, best" in note for note in report.notes)
    assert not model.training


def test_old_files_without_batch_counters() -> None:
    state = {k: v for k, v in ref.resnet(18, ref.se()).items() if not k.endswith("num_batches_tracked")}
    _, report = imported(state)
    assert report.complete
    assert any("batch counters" in note for note in report.notes)


BOTTLENECKS = ("se", "fca", "cbam", "bam", "psa", "ma", "emca_se")
HIDDEN: tuple[dict[str, Any], ...] = ({"reduction": 12, "divisor": 8}, {"hidden": (5, 7, 9, 11)}, {"hidden": 6})


@pytest.mark.parametrize(
    ("method", "options"),
    [
        # Each method one way, and SE all of them; the others are slow.
        pytest.param(method, options, marks=() if method == "se" or i % 3 == j else pytest.mark.slow)
        for i, method in enumerate(BOTTLENECKS)
        for j, options in enumerate(HIDDEN)
    ],
)
def test_any_bottleneck_is_read_off_the_weights(method: str, options: dict[str, Any]) -> None:
    name = f"{method}_resnet50" if method in ("psa", "ma") else f"{method}_resnet18"
    state = excite.create_model(name, num_classes=3, **options).state_dict()
    model, report = excite.import_checkpoint(state)
    assert report.complete
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_a_reduction_that_divides_no_channels_is_read_off() -> None:
    """Hidden units are rounded down, and never none: 1, 2 and 5 of 16, 32 and 64 channels are a reduction of 11."""
    state = excite.create_model("se_resnet20", num_classes=3, reduction=12).state_dict()
    _, report = imported(state)
    assert report.complete
    assert report.options == {"reduction": 11}
