"""Everything `excite explain` does, as one function: numbers, pictures, and what could not be shown."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL.Image import Image

from excite.common.files import write_json
from excite.data import DataBundle
from excite.data.preprocess import UnreadableImageError, read_rgb
from excite.data.specs import open_run_data
from excite.errors import ExciteError, UsageError, unknown
from excite.explain.cam import grad_cam
from excite.explain.cam_figure import CamRow, plot_cams
from excite.explain.figures import plot_classes, plot_distribution, plot_scales, seen_classes
from excite.explain.gates import GateRecorder
from excite.explain.kernel_figure import plot_learned
from excite.explain.kernels import learned_parts
from excite.explain.networks import Network
from excite.explain.scales import SiteScales, collect_scales
from excite.runtime import pick_device


@dataclass
class Request:
    """What to show; see the command's options."""

    images: Sequence[str]
    data: str | None
    limit: int
    top: int
    classes: Sequence[str]
    layer: str | None
    output: Path
    device: str = "cpu"


def run(networks: Sequence[Network], request: Request) -> dict[str, object]:
    """Return the numbers, having written the pictures and `explain.json` into `request.output`.

    Raises UsageError for bad names and unreadable data specs, ExciteError for images that are none; nothing is written
    before all inputs were read.
    """
    device = torch.device(pick_device(request.device))
    pictures = [(Path(path).stem, _read(path)) for path in request.images]
    data = None
    if request.data is not None or not pictures:
        data = open_run_data(networks, request.data, limit_test=request.limit)
    for network in networks:
        network.model.to(device)
    wanted = {n.label: _classes(n, request) for n in networks}
    rows = [
        cam_row(n, name, image, wanted[n.label], request.layer, device) for name, image in pictures for n in networks
    ]
    scales = {n.label: _scales(n, pictures, data, device) for n in networks}
    learned = {n.label: learned_parts(n.model) for n in networks}
    files: list[Path] = []
    out = request.output
    if rows:
        files.append(plot_cams([r for r, _ in rows], out / "gradcam.png"))
    shown = {label: sites for label, sites in scales.items() if sites}
    if shown:
        files += [plot_scales(shown, out / "scales.png"), plot_distribution(shown, out / "weights.png")]
        if data is not None and any(len(seen_classes(s)) > 1 for sites in shown.values() for s in sites):
            names = {n.label: n.card.class_names or data.class_names for n in networks}
            chosen = next((c for c in wanted.values() if not isinstance(c, int)), None)
            files.append(plot_classes(shown, names, out / "classes.png", chosen))
    if any(learned.values()):
        files.append(plot_learned(learned, out / "kernels.png"))
    result: dict[str, object] = {
        "networks": [
            {
                "label": n.label,
                "checkpoint": n.source,
                "model": n.card.name,
                "grad_cam": [entry for row, entry in rows if row.network == n.label],
                "scales": [s.to_dict() for s in scales[n.label]],
                "learned": [p.to_dict() for p in learned[n.label]],
                "notes": _notes(n, scales[n.label]),
            }
            for n in networks
        ],
        "data": None if data is None else data.spec,
        "split": None if data is None else data.test_name,
        "notes": []
        if data is not None or not shown
        else ["the scales are means over the images given, not a data set"],
    }
    files.append(write_json(out / "explain.json", result))
    for stale in {out / name for name in PICTURES} - set(files):  # of an earlier call, of other networks perhaps
        stale.unlink(missing_ok=True)
    result["files"] = [str(f) for f in files]
    return result


PICTURES = ("gradcam.png", "scales.png", "weights.png", "classes.png", "kernels.png")
# Weights that differ by less over all images take no part in what the network says about them.
CONSTANT = 1e-4


def _read(path: str) -> Image:
    if not Path(path).is_file():
        raise UsageError(f"no image {path!r}")
    try:
        return read_rgb(path)
    except UnreadableImageError as error:
        raise ExciteError(f"{path} is not an image that can be read: {error.reason}") from error


def _classes(network: Network, request: Request) -> int | list[int]:
    """The number of top classes, or the indices of those that were named."""
    if not request.classes:
        return request.top
    names = network.card.class_names or []
    indices = []
    for class_name in request.classes:
        if class_name in names:
            indices.append(names.index(class_name))
        elif not class_name.isdecimal():
            raise unknown(f"class of {network.label}", class_name, names)
        elif int(class_name) < network.card.num_classes:
            indices.append(int(class_name))
        else:
            count = network.card.num_classes
            raise UsageError(f"--classes {class_name}: {network.label} has {count} classes, numbered from 0")
    return indices


def cam_row(
    network: Network, name: str, image: Image, wanted: int | list[int], layer: str | None, device: torch.device
) -> tuple[CamRow, dict[str, object]]:
    """Return the row of a figure and the entry of a report: Grad-CAM of one picture for one network."""
    pixels = network.preprocess.image(image)
    x = network.preprocess.normalise(pixels[None])[0]
    results = grad_cam(network.model, x.to(device), wanted, layer)
    names = [network.class_name(r.index) for r in results]
    classes = [{"index": r.index, "name": n, "probability": r.probability} for r, n in zip(results, names, strict=True)]
    return CamRow(name, network.label, pixels.float() / 255, results, names), {"image": name, "classes": classes}


def _scales(
    network: Network, pictures: Sequence[tuple[str, Image]], data: DataBundle | None, device: torch.device
) -> list[SiteScales]:
    if data is not None:
        labelled = network.preprocess.batches(data.test)
        return collect_scales(network.model, ((x.to(device), y) for x, y in labelled), data.num_classes)
    prepared = network.preprocess.batch([image for _, image in pictures]).to(device)
    return collect_scales(network.model, ((x[None], None) for x in prepared))


def _notes(network: Network, scales: Sequence[SiteScales]) -> list[str]:
    """What is missing from this network's part, and why."""
    notes = []
    if network.source.startswith("random:"):
        notes.append("its weights are random, so the pictures show the method, not what such a network learns")
    notes += [
        f"{s.name} multiplies by the same numbers whatever the image: it learned a constant, or died"
        for s in scales
        if s.images > 1 and float(s.std.max()) < CONSTANT
    ]
    if scales:
        return notes
    sites = GateRecorder(network.model).sites
    if sites:
        notes.append("its attention adds, or weighs positions: there are no channel scales to show")
    else:
        notes.append("it has no channel attention: Grad-CAM is all there is to show")
    return notes
