"""The zoo: networks of timm and torchvision and shapes of our own, how to build each, and what the table says of it.

`python tests/surgery/zoo_networks.py [NAME ...]` prints the table's entries as found now, for review.
"""

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
import yaml
import zoo_shapes
from torch import nn

import excite

TABLE = Path(__file__).with_name("zoo.yaml")
PRESETS = ("residual", "all-blocks", "stage-ends", "yolo-backbone", "yolo-neck")

PICTURE = torch.zeros(1, 3, 32, 32)
SHAPES: dict[str, Any] = {
    "UNet": {}, "ResUNet": {}, "Csp": {}, "Yolo": {}, "WaveNet": {}, "Esrgan": {}, "Encoder": {}, "DictOutput": {},
    "TrainOnly": {}, "DataDependent": {"input_size": (3, 32, 32)}, "UnknownAttention": {}, "RepNet": {},
    "Functional": {},
    "Audio": {}, "Volume": {"input_size": (1, 8, 16, 16)}, "Fpn": {}, "Hourglass": {}, "Inception": {},
    "AllConvolution": {}, "WeightShared": {}, "PreActivation": {}, "ConvMixer": {},
    "Siamese": {"example": (PICTURE, PICTURE)}, "SiameseOneInput": {"input_size": (3, 32, 64)},
    "TwoInputs": {"example": (PICTURE, torch.zeros(1, 3))},
    "DictInput": {"example": ({"image": PICTURE, "meta": torch.zeros(1, 3)},)},
    "Conditioned": {"example": {"x": PICTURE, "time": torch.zeros(1, 4)}},
}  # fmt: skip
TIMM = [
    "resnet10t", "resnet26d", "seresnet18", "resnetv2_18", "resnest14d", "skresnet18", "res2net50_26w_4s",
    "resnet50_gn", "ecaresnet26t", "regnetx_002", "regnety_002", "regnetz_b16", "nf_regnet_b0", "nfnet_l0",
    "mobilenetv1_100", "mobilenetv2_035", "mobilenetv3_small_050", "mobilenetv4_conv_small_035",
    "efficientnet_lite0", "tf_efficientnetv2_b0", "mnasnet_small", "mixnet_s", "tinynet_e", "fbnetc_100",
    "lcnet_035", "rexnet_100", "ghostnet_050", "ghostnetv2_100", "repghostnet_050", "convnext_atto",
    "convnextv2_atto", "edgenext_xx_small", "poolformer_s12", "inception_next_atto", "focalnet_tiny_srf",
    "fasternet_t0", "starnet_s1", "mobileone_s0", "repvgg_a0", "repvit_m0_9", "fastvit_t8", "hgnetv2_b0",
    "cs3darknet_s", "cspresnet50", "cspdarknet53", "darknet53", "dla34", "dpn48b", "densenet121", "hrnet_w18_small",
    "vovnet39a", "ese_vovnet19b_dw", "selecsls42b", "xception41p", "gernet_s", "inception_v3",
]  # fmt: skip
TORCHVISION = [
    "resnet18", "resnext50_32x4d", "regnet_y_400mf", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0",
    "mnasnet0_5", "convnext_tiny", "shufflenet_v2_x0_5", "squeezenet1_1", "densenet121", "googlenet", "vgg11_bn",
    "alexnet", "fcn_resnet50", "deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large", "r3d_18", "mc3_18",
    "r2plus1d_18", "s3d",
]  # fmt: skip
BODIES = ("fasterrcnn_resnet50_fpn", "retinanet_resnet50_fpn", "ssdlite320_mobilenet_v3_large", "fcos_resnet50_fpn")
TRANSFORMERS = ("timm/vit_tiny_patch16_224", "timm/mixer_s32_224")
SMALL = [f"shape/{name}" for name in SHAPES]  # quick enough for every run
NAMES = [
    *SMALL,
    *(f"timm/{name}" for name in TIMM),
    *(f"torchvision/{name}" for name in TORCHVISION),
    *(f"body/{name}" for name in BODIES),
    *TRANSFORMERS,
]


def build(name: str) -> nn.Module:
    """Build a network of the zoo, in eval mode; a body is a detector's backbone."""
    source, _, which = name.partition("/")
    if source == "shape":
        return getattr(zoo_shapes, which)().eval()
    if source == "timm":
        return timm.create_model(which, num_classes=8).eval()
    options: dict[str, Any] = {"init_weights": False} if which == "googlenet" else {}
    if source == "body" or "resnet50" in which or "deeplab" in which or "lraspp" in which:
        options["weights_backbone"] = None
    model = torchvision.models.get_model(which, weights=None, **options).eval()
    return model.backbone if source == "body" else model


def arguments(name: str) -> dict[str, Any]:
    """Return `input_size` or `example` of a network, where the usual sizes do not do."""
    source, _, which = name.partition("/")
    videos = {
        "r3d_18": (3, 8, 64, 64),
        "mc3_18": (3, 8, 64, 64),
        "r2plus1d_18": (3, 8, 64, 64),
        "s3d": (3, 16, 224, 224),
    }
    if which in videos:
        return {"input_size": videos[which]}
    return SHAPES[which] if source == "shape" else {}


def inputs(name: str, model: nn.Module, n: int = 2) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return arguments with data for a network: a batch of two, small."""
    generator = torch.Generator().manual_seed(3)
    options = arguments(name)

    def fill(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: fill(v) for k, v in value.items()}
        if isinstance(value, tuple):
            return tuple(fill(v) for v in value)
        return torch.randn(n, *value.shape[1:], generator=generator)

    if "example" in options:
        filled = fill(options["example"])
        return ((), filled) if isinstance(filled, dict) else (filled, {})
    first = next(m for m in model.modules() if isinstance(m, nn.Conv1d | nn.Conv2d | nn.Conv3d))
    space = {1: (1024,), 2: (64, 64), 3: (8, 64, 64)}[len(first.kernel_size)]
    space = {"timm/inception_v3": (96, 96), "torchvision/s3d": (16, 224, 224)}.get(name, space)
    size = options.get("input_size", (first.in_channels, *space))
    return (torch.randn(n, *size, generator=generator),), {}


def found(name: str, model: nn.Module) -> dict[str, Any]:
    """Return what surgery finds: paths by preset, `<` behind those that carry before themselves; or why it refuses."""
    try:
        listed = excite.sites(model, **arguments(name))
        if not any(s.place != "instead" for s in listed):
            excite.attach(model, "eca", **arguments(name))
    except excite.ExciteError as error:
        return {"refused": str(error)[:200]}
    entry = {}
    for preset in PRESETS:
        paths = [s.path + "<" * (s.place == "before") for s in listed if s.place != "instead" and preset in s.presets]
        if paths:
            entry[preset] = " ".join(shorten(paths))
    if entry.get("all-blocks") == entry.get("residual"):
        entry["all-blocks"] = "as residual"
    kinds = [s.kind for s in listed if s.place == "instead"]
    entry.update({f"replaces {kind}": kinds.count(kind) for kind in ("attention", "conv") if kind in kinds})
    return entry


def shorten(paths: Sequence[str]) -> list[str]:
    """Write runs of paths that differ in one number, counting up, as `layer1.{0-2}.bn3`."""
    out: list[str] = []
    i = 0
    while i < len(paths):
        best = (1, paths[i])
        for match in re.finditer(r"\d+", paths[i]):
            head, start, tail = paths[i][: match.start()], int(match[0]), paths[i][match.end() :]
            n = 1
            while i + n < len(paths) and paths[i + n] == f"{head}{start + n}{tail}":
                n += 1
            best = max(best, (n, f"{head}{{{start}-{start + n - 1}}}{tail}" if n > 1 else paths[i]))
        out.append(best[1])
        i += best[0]
    return out


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    for network in sys.argv[1:] or NAMES:
        entry = found(network, build(network))
        print(yaml.safe_dump({network: entry}, width=10000, sort_keys=False, allow_unicode=True), end="", flush=True)
