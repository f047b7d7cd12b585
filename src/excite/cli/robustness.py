"""`excite robustness`: accuracy under corruption, and probes."""

import json as json_
import sys
from pathlib import Path
from typing import Any, Literal

from excite.common.tables import say
from excite.errors import UsageError

# Any: entries of a JSON report.


def robustness(
    checkpoints: list[str],
    *,
    model: list[str] = [],  # noqa: B006  (read, never written)
    data: str | None = None,
    corruptions: list[str] = ["all"],  # noqa: B006
    severities: list[int] = [1, 2, 3, 4, 5],  # noqa: B006
    probes: list[str] = ["none"],  # noqa: B006
    corrupted: str | None = None,
    baseline: str | None = None,
    limit: int = 1000,
    batch_size: int = 128,
    seed: int = 0,
    out: str = "robustness",
    device: Literal["auto", "cpu", "cuda"] = "auto",
    json: bool = False,
) -> None:
    """Measure accuracy under the 15 corruptions of ImageNet-C, and what hiding or shuffling parts does.

    Images are corrupted on the fly, the same way for every checkpoint.

    Args:
        checkpoints: one or more checkpoints or run directories, shown side by side.
        model: build this network for the weights instead of the one that a checkpoint names; one for all of them, or
            one for each in their order (the baseline last).
        data: data spec, its test images are used (its validation images where it has no others); by default the one
            that the checkpoints were trained on.
        corruptions: families, 'all' or 'none'.
        severities: which of 1 2 3 4 5.
        probes: occlusion, patch_shuffle, blur, noise, 'all' or 'none'.
        corrupted: a published corrupted set instead: the folder of CIFAR-10-C (.npy) or ImageNet-C.
        baseline: divide by the errors of this checkpoint, or of 'alexnet' as published for ImageNet-C; without it the
            mean corruption error is not normalised.
        limit: how many images to use.
        batch_size: images at a time.
        seed: seed of all that is random in the corruptions.
        out: the folder to write to: pictures and robustness.json.
        device: where to run; auto takes a GPU if there is one.
        json: print JSON.

    Examples:
        excite robustness runs/eca_resnet20-digits runs/resnet20-digits --probes all
        excite robustness runs/eca_resnet20-digits --corruptions gaussian_noise --severities 1 3 5
    """
    if not 0 <= seed < 2**32:
        raise UsageError(f"--seed must be from 0 to 2**32 - 1, got {seed}")
    for name, value in (("limit", limit), ("batch-size", batch_size)):
        if value < 1:
            raise UsageError(f"--{name} must be at least 1, got {value}")
    from excite.explain.networks import models_of, open_network, open_networks
    from excite.robustness.probes import PROBES
    from excite.robustness.report import Request, choose, run

    chosen = choose("probe", probes, list(PROBES))
    divisor = [] if baseline in (None, "alexnet") else [str(baseline)]
    models = models_of([*checkpoints, *divisor], model)
    networks = open_networks(checkpoints, models[: len(checkpoints)])
    request = Request(
        data,
        corruptions,
        severities,
        chosen,
        corrupted,
        open_network(divisor[0], models[-1]) if divisor else "alexnet" if baseline else None,
        limit,
        batch_size,
        seed,
        Path(out),
        device,
    )
    result = run(networks, request, lambda text: say(f"measuring: {text}", file=sys.stderr))
    print(json_.dumps({**result, "out": out}, indent=2)) if json else _show(result)


def _show(result: dict[str, Any]) -> None:
    networks = result["networks"]
    labels = [n["label"] for n in networks]
    width = max(12, *(len(label) + 2 for label in labels))
    severities = ", ".join(map(str, result["severities"]))
    of = f"{result['data']} {result['split']}" + (f", corrupted {result['corrupted']}" if result["corrupted"] else "")
    say(f"top-1 error in %, {result['images']} images of {of}, mean over severities {severities}")
    say(f"{'':<22}" + "".join(f"{label:>{width}}" for label in labels))
    _row("clean", [n["clean_error"] for n in networks], width)
    scores = [n["corruptions"] for n in networks]
    if scores[0] is not None:
        for family in scores[0]["by_family"]:
            _row(family, [s["by_family"][family] for s in scores], width)
        _row("mean, un-normalised", [s["mean_error"] for s in scores], width)
        if scores[0]["mce"] is not None:
            _row("mCE, normalised", [s["mce"] for s in scores], width)
            if scores[0]["relative_mce"] is not None:
                _row("relative mCE", [s["relative_mce"] for s in scores], width)
        say(f"normalisation: {scores[0]['normalisation']}")
    for name in networks[0]["probes"]:
        say()
        say(name)
        for strength in networks[0]["probes"][name]:
            _row(f"{strength:g}", [n["probes"][name][strength] for n in networks], width)
    for path in result["files"]:
        say(path)


def _row(name: str, values: list[float], width: int) -> None:
    say(f"{name:<22}" + "".join(f"{100 * v:>{width}.1f}" for v in values))
