"""From weights to the attention: method and options, read off the shapes of one module after the other."""

from collections.abc import Callable, Mapping, Sequence
from itertools import product

import torch

from excite.backbones.emca_plan import EmcaSpec
from excite.backbones.placement import Site
from excite.checkpoints.backbone import Backbone
from excite.common.options import Option
from excite.errors import ExciteError
from excite.methods.psa import GROUPS
from excite.methods.widths import round_channels
from excite.registry import method_options

Module = Mapping[str, torch.Tensor]
Options = dict[str, Option]


def _rows(module: Module, key: str) -> int:
    return module[key].shape[0]


def _bottleneck(module: Module, at: str = "gate.") -> Options:
    """Return channels and hidden units of a bottleneck, to be turned into a reduction once all stages are known."""
    return {"_channels": _rows(module, at + "expand.weight"), "_hidden": _rows(module, at + "reduce.weight")}


def _eca(module: Module) -> Options:
    return {"kernel_size": module["gate.conv.weight"].shape[-1]}


def _se(module: Module) -> Options:
    return {**_bottleneck(module), "bias": "gate.reduce.bias" in module}


def _cbam(module: Module) -> Options:
    if "gate.reduce.weight" in module:
        return {**_bottleneck(module), "mlp_bias": "gate.reduce.bias" in module, "spatial": False}
    conv = module["spatial.conv.weight"]
    return {
        **_bottleneck(module, "channel.gate."),
        "mlp_bias": "channel.gate.reduce.bias" in module,
        "kernel_size": conv.shape[-1],
        "spatial_norm": "spatial.norm.weight" in module,
        "average_pools": conv.shape[1] == 1,
    }


def _bam(module: Module) -> Options:
    depth = sum(1 for k in module if k.startswith("spatial.") and k.endswith(".weight") and module[k].dim() == 4) - 2
    return {**_bottleneck(module, "channel."), "depth": depth}


def _pyramid(first: str) -> Callable[[Module], Options]:
    def options(module: Module) -> Options:
        convs = [module[f"branches.{i}.{first}weight"] for i in range(4)]
        values: Options = {
            "_channels": _rows(module, "gate.expand.weight"),
            "_hidden": _rows(module, "gate.reduce.weight"),
            "kernels": tuple(c.shape[-1] for c in convs),
            # The module stands for a 3x3 convolution that keeps the channels: four branches of a quarter each.
            "_inputs": 4 * _rows(module, "gate.expand.weight"),
            "_seen": tuple(c.shape[1] for c in convs),
        }
        if first:
            values["mixer_size"] = module["branches.0.depthwise.weight"].shape[-1]
        return values

    return options


def _sa(module: Module) -> Options:
    return {"_part": module["channel_weight"].numel()}


def _ge(module: Module) -> Options:
    weight = module["squeeze.weight"]
    return {"size": weight.shape[-1], "bias": "squeeze.bias" in module}


def _nothing(module: Module) -> Options:
    return {}


READERS: dict[str, Callable[[Module], Options]] = {
    "eca": _eca,
    "se": _se,
    "fca": _se,
    "cbam": _cbam,
    "bam": _bam,
    "psa": _pyramid(""),
    "ma": _pyramid("conv."),
    "sa": _sa,
    "srm": _nothing,
    "ge": _ge,
    "gct": _nothing,
    "se_var2": _nothing,
    "se_var3": lambda module: {"bias": "gate.fc.bias" in module},
    "emca_eca": _eca,
    "emca_se": _se,
    "emca_srm": _nothing,
}

# A key of our own modules -> the method; files of ours without a card are told by it.
SIGNATURES = (
    ("gate.cfc", "srm"),
    ("gate.conv.weight", "eca"),
    ("gate.reduce.weight", "se"),
    ("gate.alpha", "gct"),
    ("gate.fc.weight", "se_var3"),
    ("channel.gate.reduce.weight", "cbam"),
    ("channel_weight", "sa"),
    ("gate.weight", "se_var2"),
)


def method_of(backbone: Backbone) -> str:
    """Return the method of our own state dict without a card. Raises ExciteError where the keys do not tell."""
    if any(backbone.after.values()):
        return "bam"
    conv = backbone.spatial[0][0] if backbone.spatial else {}
    if "branches.0.soft_norm.weight" in conv:
        return "ma"
    if "branches.0.weight" in conv:
        return "psa"
    modules = [m for stage in backbone.blocks for m in stage if m]
    if not modules:
        return "none"
    keys = {k for m in modules for k in m}
    fused = keys & {"fusion.weight", "join"}
    for key, method in SIGNATURES:
        if key in keys:
            return f"emca_{method}" if fused else method
    raise ExciteError(
        f"the attention's entries ({', '.join(sorted(keys)[:4])}) do not tell its method; "
        "build the network with create_model and use load_checkpoint"
    )


def attention_options(method: str, backbone: Backbone) -> Options:
    """Return the method's options, one value or one per stage. Raises ExciteError where blocks of a stage differ."""
    if method == "none":
        return {}
    if method not in READERS:
        raise ExciteError(f"no options can be read off the weights of method {method!r}")
    if method == "bam":
        modules = [[m] for _, m in sorted(backbone.after.items()) if m]
    elif method in ("psa", "ma"):
        modules = [[m for m in stage if m] for stage in backbone.spatial]
    else:
        modules = [[m for m in stage if m] for stage in backbone.blocks]
    per_stage = [_of_stage(method, i, stage) for i, stage in enumerate(modules)]
    combined = {k: [o.get(k) for o in per_stage] for o in per_stage for k in o}
    options = _combine(method, combined, backbone)
    known = method_options(method)
    return {k: v for k, v in options.items() if k not in known or not _is_default(v, known[k].default)}


def _is_default(value: object, default: object) -> bool:
    return value == default or (isinstance(value, tuple) and bool(value) and all(v == default for v in value))


def _of_stage(method: str, number: int, modules: Sequence[Module]) -> Options:
    blocks = [READERS[method](m) for m in modules]
    for other in blocks[1:]:
        if other != blocks[0]:
            raise ExciteError(f"{method}: the blocks of stage {number + 1} differ ({blocks[0]} and {other})")
    return blocks[0] if blocks else {}


def _combine(method: str, values: dict[str, list[Option]], backbone: Backbone) -> Options:
    options: Options = {}
    for key, per_stage in values.items():
        known = [v for v in per_stage if v is not None]
        if key.startswith("_"):
            continue
        filled = [known[0] if v is None else v for v in per_stage]
        # A tuple as the value itself is always given per stage: one tuple of as many entries would be taken apart.
        options[key] = filled[0] if len(set(filled)) == 1 and not isinstance(filled[0], tuple) else tuple(filled)
    if "_hidden" in values:
        pairs = [(c, h) for c, h in zip(values["_channels"], values["_hidden"], strict=True) if c is not None]
        options.update(_reduction(method, pairs, len(values["_hidden"]), len(backbone.blocks)))
    if "_seen" in values:
        groups = tuple(
            tuple(inputs // s for s in seen) for inputs, seen in zip(values["_inputs"], values["_seen"], strict=True)
        )
        if set(groups) != {tuple(GROUPS)}:
            options["groups"] = groups
    if "_part" in values:
        options["groups"] = _shuffle_groups(values["_part"], backbone)
    return options


def _reduction(method: str, pairs: list[tuple[int, int]], seen: int, stages: int) -> Options:
    """Return the reduction that explains every (channels, hidden), with timm's rounding where that is needed."""
    candidates = [16, *range(1, 129)]
    for r in candidates:
        if all(max(1, c // r) == h for c, h in pairs):
            return {"reduction": r}
    known = method_options(method)
    for r in candidates if "divisor" in known else []:
        if all(round_channels(c / r, 8) == h for c, h in pairs):
            return {"reduction": r, "divisor": 8}
    if "hidden" in known and len(pairs) == seen:
        hidden = tuple(h for _, h in pairs)
        return {"hidden": hidden + hidden[-1:] * (stages - seen)}  # BAM has none behind the last stage
    raise ExciteError(f"{method}: no single reduction gives the hidden units {pairs} (channels, hidden)")


def _shuffle_groups(parts: list[int | None], backbone: Backbone) -> int | tuple[int, ...]:
    # c = 2 * groups * part; c follows from the stage: 64, 128, ... planes, 4 times as many in bottlenecks.
    expansion = 1 if backbone.name.split("_")[0] in ("resnet18", "resnet34") else 4
    groups = [64 * 2**s * expansion // (2 * p) if p else None for s, p in enumerate(parts)]
    known = [g for g in groups if g is not None]
    return known[0] if len(set(known)) == 1 else tuple(g or known[0] for g in groups)


CHOICES: tuple[int | str, ...] = ("all", 1, 2, 3, 4, 5, 6)


def emca_options(method: str, backbone: Backbone) -> Options:
    """Return form, stages, blocks and same_stage. Raises ExciteError where no choice explains the fusions."""
    fused, inside = (
        [[m[key].numel() if key in m else 0 for m in stage] for stage in backbone.blocks]
        for key in ("fusion.weight", "inside_fusion.weight")
    )
    same_stage = any(n for stage in inside for n in stage)
    released = any("join" in m for stage in backbone.blocks for m in stage)
    form = "released" if released else "paper"
    depths = tuple(len(stage) for stage in fused)
    # The released network's own setting first: the last block of every earlier stage.
    choices = sorted(product(CHOICES, CHOICES), key=lambda c: c != (("all", 1) if released else (1, "all")))
    for stages, blocks in [*choices, (0, 0)]:
        spec = EmcaSpec(method, depths=depths, form=form, stages=stages, blocks=blocks, same_stage=same_stage)
        sites = [[Site(0, s, b, depth) for b in range(depth)] for s, depth in enumerate(depths)]
        if [[spec.scales(site) for site in stage] for stage in sites] == fused and (
            [[spec.within(site) for site in stage] for stage in sites] == inside
        ):
            options = {"form": form, "stages": stages, "blocks": blocks}
            return {**options, "same_stage": True} if same_stage else options
    raise ExciteError(f"{method}: no choice of earlier stages and blocks gives fusions of {fused} scales")
