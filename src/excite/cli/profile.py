"""`excite profile`: what a network costs on paper."""

from pathlib import Path
from typing import Any, Literal

# Any: options of methods and networks, which those check.


def profile(
    models: list[str],
    *,
    size: str = "224",
    batch_size: int = 1,
    convention: list[str] | None = None,
    depth: int = 1,
    num_classes: int = 1000,
    in_channels: int = 3,
    placement: Literal["all", "first", "last"] = "all",
    attach: str | None = None,
    attach_sites: str | None = None,
    attach_options: dict[str, Any] = {},  # noqa: B006  (read, never written)
    options: dict[str, Any] = {},  # noqa: B006
    csv: Path | None = None,
    json: bool = False,
) -> None:
    """Count parameters, multiply-accumulates (by named convention), activations and memory of networks.

    No weights are allocated: the networks are built and run on the meta device. Conventions: macs, fvcore, thop-1907,
    thop-2005, thop, mmcv; the parameters are printed in 10^6 and 2^20, the counts in 10^9 and 2^30.

    Args:
        models: names: eca_resnet50, timm/NAME, torchvision/NAME or path/to/file.py:factory.
        size: side of the input in pixels, or HEIGHTxWIDTH.
        batch_size: images per input.
        convention: the conventions to count by; all of them unless told otherwise.
        depth: depth of the breakdown; 0 for none, 1 for stages, -1 for every layer.
        num_classes: outputs of the classifier.
        in_channels: channels of the input.
        placement: which blocks of a stage get attention.
        attach: attach this attention method to each network; FILE.py:NAME is one of your own.
        attach_sites: where to attach it: a preset, a pattern or paths with commas; default: the method's own place.
        attach_options: options of the attached method, as --attach-options.reduction 8.
        options: options of the networks, as --options.kernel_size 3,5,5,7, or of one of them, as
            --options.eca_resnet50.kernel_size 3,5,5,7.
        csv: write the breakdown to this file.
        json: print JSON.

    Examples:
        excite profile resnet50 eca_resnet50 timm/seresnet50 --depth 0
        excite profile eca_resnet50 --options.kernel_size 3,5,5,7 --convention macs fvcore
    """
    from excite.common.files import write_text
    from excite.common.options import options_of
    from excite.measure.conventions import CONVENTIONS, check
    from excite.measure.names import builder, parse_size
    from excite.measure.profile import input_shape, profile_named
    from excite.measure.report import show, to_csv, to_json

    conventions = check(convention or list(CONVENTIONS))
    shape = input_shape(parse_size(size), in_channels, batch_size)
    settings: dict[str, Any] = {
        "placement": placement,
        "attach": attach,
        "attach_sites": attach_sites,
        "attach_options": attach_options,
    }
    reports: dict[str, object] = {}
    built = {
        name: builder(
            name,
            options_of(name, models, options),
            num_classes,
            in_channels,
            reports,
            **settings,
        )
        for name in models
    }
    profiles = [profile_named(name, build, shape, conventions) for name, build in built.items()]
    if csv is not None:
        write_text(csv, to_csv(profiles, depth))
    if json:
        print(to_json(profiles, depth))
        return
    from excite.common.tables import make_console

    for name, report in reports.items():
        print(f"{name}: {report}\n")
    show(profiles, depth, make_console())
    if csv is not None:
        print(f"wrote {csv}")
