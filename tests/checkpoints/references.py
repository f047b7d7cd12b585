"""State dicts as the papers' repositories would write them: keys and shapes only, written down from their sources.

Values are expanded zeros, so that a file of ResNet-152 costs nothing.
"""

from collections.abc import Callable, Sequence

import torch

State = dict[str, torch.Tensor]
Attention = Callable[[str, int, int], dict[str, tuple[int, ...]]]  # (block prefix, channels, stage) -> keys and shapes

DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def zeros(shapes: dict[str, tuple[int, ...]]) -> State:
    return {k: torch.zeros(()).expand(s) if s else torch.zeros((), dtype=torch.int64) for k, s in shapes.items()}


def norm(prefix: str, channels: int) -> dict[str, tuple[int, ...]]:
    made: dict[str, tuple[int, ...]] = {f"{prefix}.{n}": (channels,) for n in ("weight", "bias", "running_mean")}
    return {**made, f"{prefix}.running_var": (channels,), f"{prefix}.num_batches_tracked": ()}


def bottleneck_or_basic(p: str, inputs: int, planes: int, expansion: int, spatial: dict | None) -> dict:
    if expansion == 1:
        return {
            f"{p}.conv1.weight": (planes, inputs, 3, 3),
            **norm(f"{p}.bn1", planes),
            f"{p}.conv2.weight": (planes, planes, 3, 3),
            **norm(f"{p}.bn2", planes),
        }
    return {
        f"{p}.conv1.weight": (planes, inputs, 1, 1),
        **norm(f"{p}.bn1", planes),
        **({f"{p}.conv2.weight": (planes, planes, 3, 3)} if spatial is None else spatial),
        **norm(f"{p}.bn2", planes),
        f"{p}.conv3.weight": (4 * planes, planes, 1, 1),
        **norm(f"{p}.bn3", 4 * planes),
    }


def resnet(
    depth: int,
    attention: Attention = lambda p, c, s: {},
    *,
    stem: int = 7,
    classes: int = 1000,
    spatial: Callable[[str, int, int], dict] | None = None,
    between: Callable[[int, int], dict] | None = None,
    shortcut: str = "downsample",
    head: str = "fc",
    depths: Sequence[int] | None = None,
) -> State:
    blocks, expansion = depths or DEPTHS[depth], 4 if depth >= 50 else 1
    shapes: dict[str, tuple[int, ...]] = {"conv1.weight": (64, 3, stem, stem), **norm("bn1", 64)}
    inputs = 64
    for stage, n in enumerate(blocks):
        planes = 64 << stage
        for b in range(n):
            p = f"layer{stage + 1}.{b}"
            made = None if spatial is None else spatial(p, planes, stage)
            shapes.update(bottleneck_or_basic(p, inputs, planes, expansion, made))
            if b == 0 and (stage > 0 or expansion == 4):
                shapes[f"{p}.{shortcut}.0.weight"] = (planes * expansion, inputs, 1, 1)
                shapes.update(norm(f"{p}.{shortcut}.1", planes * expansion))
            inputs = planes * expansion
            shapes.update(attention(p, inputs, stage))
        if between is not None and stage < 3:
            shapes.update(between(stage + 1, inputs))
    return zeros({**shapes, f"{head}.weight": (classes, inputs), f"{head}.bias": (classes,)})


def eca(kernels: Sequence[int], name: str = "eca") -> Attention:
    return lambda p, c, s: {f"{p}.{name}.conv.weight": (1, 1, kernels[s])}


def se(reduction: int = 16, name: str = "se.fc", bias: bool = False, hidden: Callable | None = None) -> Attention:
    def keys(p: str, c: int, s: int) -> dict[str, tuple[int, ...]]:
        h = c // reduction if hidden is None else hidden(c)
        made: dict[str, tuple[int, ...]] = {f"{p}.{name}.0.weight": (h, c), f"{p}.{name}.2.weight": (c, h)}
        return {**made, f"{p}.{name}.0.bias": (h,), f"{p}.{name}.2.bias": (c,)} if bias else made

    return keys


def srm(p: str, c: int, s: int) -> dict[str, tuple[int, ...]]:
    return {f"{p}.rclb.cfc": (c, 2), **norm(f"{p}.rclb.bn", c)}


def ge(p: str, c: int, s: int) -> dict[str, tuple[int, ...]]:
    k = (56, 28, 14, 7)[s]
    return {f"{p}.rclb.conv.0.weight": (c, 1, k, k), f"{p}.rclb.conv.0.bias": (c,), **norm(f"{p}.rclb.conv.1", c)}


def cbam(reduction: int = 16, spatial: bool = True) -> Attention:
    def keys(p: str, c: int, s: int) -> dict[str, tuple[int, ...]]:
        h, gate = c // reduction, f"{p}.cbam.ChannelGate.mlp"
        made: dict[str, tuple[int, ...]] = {f"{gate}.1.weight": (h, c), f"{gate}.1.bias": (h,)}
        made |= {f"{gate}.3.weight": (c, h), f"{gate}.3.bias": (c,)}
        at = f"{p}.cbam.SpatialGate.spatial"
        return {**made, f"{at}.conv.weight": (1, 2, 7, 7), **norm(f"{at}.bn", 1)} if spatial else made

    return keys


def bam(stage: int, c: int) -> dict[str, tuple[int, ...]]:
    h, a, b = c // 16, f"bam{stage}.channel_att.gate_c.gate_c_", f"bam{stage}.spatial_att.gate_s.gate_s_"
    made: dict[str, tuple[int, ...]] = {f"{a}fc_0.weight": (h, c), f"{a}fc_0.bias": (h,), **norm(f"{a}bn_1", h)}
    made |= {f"{a}fc_final.weight": (c, h), f"{a}fc_final.bias": (c,)}
    made |= {f"{b}conv_reduce0.weight": (h, c, 1, 1), f"{b}conv_reduce0.bias": (h,), **norm(f"{b}bn_reduce0", h)}
    for i in (0, 1):
        made |= {f"{b}conv_di_{i}.weight": (h, h, 3, 3), f"{b}conv_di_{i}.bias": (h,), **norm(f"{b}bn_di_{i}", h)}
    return {**made, f"{b}conv_final.weight": (1, h, 1, 1), f"{b}conv_final.bias": (1,)}


def emanet_cbam(p: str, c: int, s: int) -> dict[str, tuple[int, ...]]:
    h = c // 16
    return {
        f"{p}.ca.fc.0.weight": (h, c, 1, 1),
        f"{p}.ca.fc.2.weight": (c, h, 1, 1),
        f"{p}.sa.conv1.weight": (1, 2, 7, 7),
    }


def sanet(p: str, c: int, s: int) -> dict[str, tuple[int, ...]]:
    part = c // 128
    vectors: dict[str, tuple[int, ...]] = {
        f"{p}.sa.{n}": (1, part, 1, 1) for n in ("cweight", "cbias", "sweight", "sbias")
    }
    return {**vectors, f"{p}.sa.gn.weight": (part,), f"{p}.sa.gn.bias": (part,)}


def fcanet(reduction: int = 16) -> Attention:
    return se(reduction, "att.fc")


def branch_bottleneck(p: str, width: int, first: str, second: str) -> dict[str, tuple[int, ...]]:
    h = width // 16
    made: dict[str, tuple[int, ...]] = {f"{p}.conv2.se.{first}.weight": (h, width, 1, 1)}
    made |= {f"{p}.conv2.se.{first}.bias": (h,), f"{p}.conv2.se.{second}.weight": (width, h, 1, 1)}
    return {**made, f"{p}.conv2.se.{second}.bias": (width,)}


def psa(kernels: Sequence[int], groups: Sequence[int]) -> Callable[[str, int, int], dict]:
    def keys(p: str, planes: int, s: int) -> dict[str, tuple[int, ...]]:
        w = planes // 4
        convs = enumerate(zip(kernels, groups, strict=True))
        made: dict[str, tuple[int, ...]] = {
            f"{p}.conv2.conv_{i + 1}.weight": (w, planes // g, k, k) for i, (k, g) in convs
        }
        return {**made, **branch_bottleneck(p, w, "fc1", "fc2")}

    return keys


def ma(groups: Sequence[Sequence[int]], names: tuple[str, str] = ("fc.0", "fc.2")) -> Callable[[str, int, int], dict]:
    def keys(p: str, planes: int, s: int) -> dict[str, tuple[int, ...]]:
        w = planes // 4
        made: dict[str, tuple[int, ...]] = {}
        for i, (k, g) in enumerate(zip((3, 5, 7, 9), groups[s], strict=True)):
            at = f"{p}.conv2.conv_{i + 1}"
            made |= {f"{at}.0.weight": (w, planes // g, k, k), **norm(f"{at}.2", w)}
            made |= {f"{at}.3.0.fn.0.weight": (w, 1, 9, 9), f"{at}.3.0.fn.0.bias": (w,), **norm(f"{at}.3.0.fn.2", w)}
            soft = norm(f"{at}.3.1.fn.0", w)
            made |= {k2: (1, w, 1, 1) if k2.endswith(("weight", "bias")) else v for k2, v in soft.items()}
            made |= {f"{at}.3.1.fn.0.{n}_readjust": (1, w, 1, 1) for n in ("weight", "bias")}
            made |= {f"{at}.3.1.fn.1.weight": (w, w, 1, 1), f"{at}.3.1.fn.1.bias": (w,), **norm(f"{at}.3.1.fn.3", w)}
        return {**made, **branch_bottleneck(p, w, *names)}

    return keys


def emca(
    depth: int,
    fusion: Callable[[int, Sequence[int]], int],
    gate: str = "eca",
    classes: int = 1000,
    across: bool = True,
    inside: bool = False,
) -> State:
    """The released EMCA: `fusion(stage from 1, depths)` is the length of a stage's input fusion.

    across: earlier stages are fused; inside: the blocks of the same stage are.
    """
    blocks, expansion = DEPTHS[depth], 4 if depth >= 50 else 1
    shapes: dict[str, tuple[int, ...]] = {"pre.0.weight": (64, 3, 7, 7), **norm("pre.1", 64)}
    inputs = 64
    for stage, n in enumerate(blocks, start=1):
        planes = 32 << stage
        c = planes * expansion
        for b in range(n):
            p = f"stage{stage}.{b}"
            plain = bottleneck_or_basic(p, inputs, planes, expansion, None)
            names = {"conv1": 0, "bn1": 1, "conv2": 3, "bn2": 4, "conv3": 6, "bn3": 7}
            for key, shape in plain.items():
                layer = key.split(".")[2]
                shapes[key.replace(f".{layer}.", f".residual.{names[layer]}.")] = shape
            if b == 0 and (stage > 1 or expansion == 4):
                shapes[f"{p}.shortcut.0.weight"] = (c, inputs, 1, 1)
                shapes.update(norm(f"{p}.shortcut.1", c))
            inputs = c
            k = {64: 3, 128: 5, 256: 5, 512: 5, 1024: 5, 2048: 7}[c]
            gates = ["ECA_excitation_local", *["ECA_excitation_global_block"] * inside]
            for name in [*gates, *["ECA_excitation_global_stage"] * across]:
                if gate == "eca":
                    shapes[f"{p}.{name}.0.weight"] = (1, 1, k)
                else:
                    shapes |= {f"{p}.{name}.0.weight": (c // 16, c), f"{p}.{name}.2.weight": (c, c // 16)}
            if inside:
                shapes[f"{p}.block_in_fusion.0.weight"] = (1, 1, b + 1)
            if across:
                shapes[f"{p}.stage_in_fusion.0.weight"] = (1, 1, fusion(stage, blocks))
            shapes[f"{p}.out_fusion.0.weight"] = (1, 1, 1 + inside + across)
    return zeros({**shapes, "linear.weight": (classes, inputs), "linear.bias": (classes,)})


def mobilenet(width: float, with_eca: bool, classes: int = 1000, divisor: int = 8) -> State:
    def scaled(c: int) -> int:
        return int(c * width) if divisor == 1 else max(8, int(c * width + 4) // 8 * 8)

    settings = ((1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4), (6, 96, 3), (6, 160, 3), (6, 320, 1))
    inputs, index = scaled(32), 1
    shapes: dict[str, tuple[int, ...]] = {"features.0.0.weight": (inputs, 3, 3, 3), **norm("features.0.1", inputs)}
    for t, c, n in settings:
        out = scaled(c)
        for _ in range(n):
            p, hidden, i = f"features.{index}.conv", inputs * t, 0
            if t > 1:
                shapes |= {f"{p}.0.0.weight": (hidden, inputs, 1, 1), **norm(f"{p}.0.1", hidden)}
                i = 1
            shapes |= {f"{p}.{i}.0.weight": (hidden, 1, 3, 3), **norm(f"{p}.{i}.1", hidden)}
            shapes |= {f"{p}.{i + 1}.weight": (out, hidden, 1, 1), **norm(f"{p}.{i + 2}", out)}
            if with_eca:
                shapes[f"{p}.{i + 3}.conv.weight"] = (1, 1, 1 if c < 96 else 3)
            inputs, index = out, index + 1
    last = int(1280 * max(1.0, width))
    shapes |= {f"features.{index}.0.weight": (last, inputs, 1, 1), **norm(f"features.{index}.1", last)}
    return zeros({**shapes, "classifier.1.weight": (classes, last), "classifier.1.bias": (classes,)})


def regnet(depths: Sequence[int], widths: Sequence[int], group_width: int, se_ratio: float) -> State:
    """RegNet of EMANet's repository."""
    shapes: dict[str, tuple[int, ...]] = {"conv1.weight": (64, 3, 3, 3), **norm("bn1", 64)}
    inputs = 64
    for stage, (n, w) in enumerate(zip(depths, widths, strict=True)):
        for b in range(n):
            p = f"layer{stage + 1}.{b}"
            shapes |= {f"{p}.conv1.weight": (w, inputs, 1, 1), **norm(f"{p}.bn1", w)}
            shapes |= {f"{p}.conv2.weight": (w, group_width, 3, 3), **norm(f"{p}.bn2", w)}
            if h := round(inputs * se_ratio):
                shapes |= {f"{p}.se.se1.weight": (h, w, 1, 1), f"{p}.se.se1.bias": (h,)}
                shapes |= {f"{p}.se.se2.weight": (w, h, 1, 1), f"{p}.se.se2.bias": (w,)}
            shapes |= {f"{p}.conv3.weight": (w, w, 1, 1), **norm(f"{p}.bn3", w)}
            if b == 0:
                shapes |= {f"{p}.shortcut.0.weight": (w, inputs, 1, 1), **norm(f"{p}.shortcut.1", w)}
            inputs = w
    return zeros({**shapes, "linear.weight": (10, inputs), "linear.bias": (10,)})


def small_se_resnet(n: int, reduction: int = 16, classes: int = 10) -> State:
    """se_resnet20/32/56 of senet.pytorch: projections where the planes change."""
    shapes: dict[str, tuple[int, ...]] = {"conv1.weight": (16, 3, 3, 3), **norm("bn1", 16)}
    inputs = 16
    for stage in range(3):
        planes = 16 << stage
        for b in range(n):
            p = f"layer{stage + 1}.{b}"
            shapes.update(bottleneck_or_basic(p, inputs, planes, 1, None))
            shapes.update(se(reduction)(p, planes, stage))
            if inputs != planes:
                shapes |= {f"{p}.downsample.0.weight": (planes, inputs, 1, 1), **norm(f"{p}.downsample.1", planes)}
            inputs = planes
    return zeros({**shapes, "fc.weight": (classes, inputs), "fc.bias": (classes,)})
