"""`excite explain`: Grad-CAM and channel scales of one or several networks."""

import json as json_
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from excite.common.tables import say
from excite.errors import UsageError

if TYPE_CHECKING:
    from excite.explain.networks import Network

# Any: entries of a JSON report.


def explain(
    checkpoint: str,
    images: list[str] = [],  # noqa: B006  (read, never written)
    *,
    compare: list[str] = [],  # noqa: B006
    model: list[str] = [],  # noqa: B006
    data: str | None = None,
    limit: int = 500,
    top: int = 3,
    classes: list[str] = [],  # noqa: B006
    layer: str | None = None,
    out: str = "explained",
    device: Literal["auto", "cpu", "cuda"] = "auto",
    json: bool = False,
) -> None:
    """Show what a network looks at: Grad-CAM overlays, channel scales, weights, learned kernels.

    Grad-CAM is drawn for the images given. Channel scales are means over the test images of --data (the validation
    images where it has no others); without it, over the images given; without those too, over those of the data that
    the run was trained on.

    Args:
        checkpoint: a checkpoint, a run directory, or random:NAME for an untrained network.
        images: image files for Grad-CAM.
        compare: more checkpoints, drawn into the same figures.
        model: build this network for the weights instead of the one that a checkpoint names; one for all of them, or
            one for each in their order.
        data: data spec for channel scales and per-class scales, as digits or parquet:PATH.
        limit: how many held-out images of --data to use.
        top: how many classes to show per image.
        classes: show these classes instead (names or numbers).
        layer: the layer Grad-CAM looks at (default: the last one whose output has positions).
        out: the folder to write to: pictures and explain.json.
        device: where to run; auto takes a GPU if there is one.
        json: print JSON.

    Examples:
        excite explain runs/eca_resnet20-digits --data digits
        excite explain random:eca_resnet50 --top 2 dog.jpg cat.jpg --compare random:se_resnet50
    """
    if limit < 1 or top < 1:
        raise UsageError(f"--limit and --top must be at least 1, got {limit} and {top}")
    from excite.explain.networks import models_of, open_networks
    from excite.explain.report import Request, run

    sources = [checkpoint, *compare]
    networks = open_networks(sources, models_of(sources, model))
    request = Request(images, data, limit, top, classes, layer, Path(out), device)
    result = run(networks, request)
    if json:
        print(json_.dumps({**result, "out": out}, indent=2))
    else:
        _show(networks, result)


def _show(networks: "list[Network]", result: dict[str, Any]) -> None:
    for network, found in zip(networks, result["networks"], strict=True):
        say(f"{network.label}  ({network.source})")
        for image in found["grad_cam"]:
            parts = [f"{c['name']} {100 * c['probability']:.1f} %" for c in image["classes"]]
            say(f"  {image['image']}: {', '.join(parts)}")
        if found["scales"]:
            say(f"  {'attention':<28}{'channels':>9}{'mean':>8}{'±channels':>11}{'±images':>9}{'±classes':>10}")
        for s in found["scales"]:
            images, classes = (
                "-" if s[key] is None else f"{s[key]:.4f}" for key in ("std_over_images", "class_spread")
            )
            numbers = f"{s['channels']:>9}{s['mean']:>8.3f}{s['std_over_channels']:>11.4f}{images:>9}{classes:>10}"
            say(f"  {s['name']:<28}{numbers}")
        for note in found["notes"]:
            say(f"  note: {note}")
    if result["data"] and any(network["scales"] for network in result["networks"]):
        say(f"channel scales over {result['data']} {result['split']}")
    for note in result["notes"]:
        say(f"note: {note}", file=sys.stderr)
    for path in result["files"]:
        say(path)
