"""What one network makes of one picture, as it is and with its attention pulled: the numbers behind the page."""

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from PIL import Image

from excite.data.preprocess import UnreadableImageError, read_rgb, stored_size
from excite.explain.cam import CamResult, grad_cam
from excite.explain.gates import GateRecorder, Site, find_sites, recorded
from excite.explain.intervention import Amounts, can_be_pulled, pull, pulled
from excite.explain.networks import Network
from excite.types import Weights

TOP = 5
MOST_BYTES = 8 * 2**20  # of an uploaded file
MOST_PIXELS = 40_000_000  # of a picture, once decoded


@dataclass(frozen=True)
class Guess:
    """A class and its probability, as the network is and as it was pulled."""

    name: str
    before: float
    after: float


@dataclass(frozen=True)
class View:
    """One network on one picture.

    guesses: the five most probable classes as the network is, and the most probable one when pulled; pixels: what the
    network was given, `[3 h w]` in 0 to 1; before, after: Grad-CAM of the most probable class as it is and when pulled
    (None where nothing was pulled); weights, moved: `[c]` of the last attention of each stage; notes: what is missing.
    """

    label: str
    guesses: list[Guess]
    pixels: torch.Tensor
    before: CamResult
    before_name: str
    after: CamResult | None
    after_name: str
    weights: dict[int, torch.Tensor]
    moved: dict[int, torch.Tensor]
    notes: list[str]


def read_upload(content: bytes) -> Image.Image:
    """Return an uploaded picture, RGB, upright. Raises UnreadableImageError for what is none, or is too large."""
    name = "that was uploaded"
    if len(content) > MOST_BYTES:
        raise UnreadableImageError(name, f"it has more than {MOST_BYTES // 2**20} MB")
    width = height = 0
    with contextlib.suppress(UnreadableImageError):  # `read_rgb` says it better
        width, height = stored_size(content, name)
    if width * height > MOST_PIXELS:
        raise UnreadableImageError(
            name, f"it has {width} x {height} pixels; {MOST_PIXELS // 10**6} million are the most"
        )
    return read_rgb(content, name)


def stages_of(networks: Sequence[Network]) -> list[int]:
    """Return the stages in which at least one of the networks has attention."""
    return sorted({site.stage for network in networks for site in find_sites(network.model)})


def look(network: Network, picture: Image.Image, amounts: Amounts, other: Image.Image | None = None) -> View:
    """Return what a network makes of a picture, and what it makes of it with its stages pulled.

    amounts: by stage, 0 to 1; stages that the network has not are passed over. other: pull towards the weights that
    this picture gets, else towards one. Raises ExciteError where the network's card does not say how images are
    prepared, or it has no map for Grad-CAM.
    """
    model, prepare = network.model.eval(), network.preprocess
    pixels = prepare.image(picture)
    x = prepare.normalise(pixels[None])
    sites = find_sites(model)
    notes: list[str] = []
    with torch.no_grad():
        logits: list[torch.Tensor] = []
        weights = recorded(model, lambda: logits.append(model(x)))
        before = logits[0][0].softmax(0)
        towards = None
        if other is not None:
            second = prepare.normalise(prepare.image(other)[None])
            towards = recorded(model, lambda: model(second))
    usable = _usable(sites, amounts, towards, weights, notes)
    (cam,) = grad_cam(model, x[0], 1)
    moved, after, after_cam = weights, before, None
    if any(usable.values()):
        # The recorder first: it sees the weights before they are pulled, wherever the hooks are.
        with torch.no_grad(), GateRecorder(model) as recorder, pulled(model, usable, towards):
            after = model(x)[0].softmax(0)
        stage = {site.name: site.stage for site in sites}
        moved = {
            name: pull(w, usable.get(stage[name], 0.0), None if towards is None else towards.get(name))
            for name, w in recorder.weights.items()
        }
        with pulled(model, usable, towards):
            (after_cam,) = grad_cam(model, x[0], 1)
    top = [int(i) for i in before.topk(min(TOP, len(before))).indices]
    best = int(after.argmax())
    shown = top if best in top else [*top, best]
    return View(
        network.label,
        [Guess(network.class_name(i), float(before[i]), float(after[i])) for i in shown],
        _visible(pixels),
        cam,
        network.class_name(cam.index),
        after_cam,
        network.class_name(best),
        _last_of_stages(sites, weights),
        _last_of_stages(sites, moved),
        notes,
    )


def _usable(
    sites: Sequence[Site],
    amounts: Amounts,
    towards: Mapping[str, Weights] | None,
    weights: Mapping[str, Weights],
    notes: list[str],
) -> Amounts:
    """The amounts of the stages that can be pulled; the notes say of the others why they cannot."""
    usable = {}
    for stage in sorted({site.stage for site in sites}):
        own = [site for site in sites if site.stage == stage]
        if not all(map(can_be_pulled, own)):
            notes.append(f"stage {stage}: its attention takes the place of a convolution and cannot be left out")
        elif towards is not None and not all(site.name in towards for site in own):
            notes.append(f"stage {stage}: its attention has no channel weights; it can be pulled towards one alone")
        else:
            usable[stage] = amounts.get(stage, 0.0)
    if not sites:
        notes.append("it has no attention: there is nothing to pull")
    elif not weights:
        notes.append("its attention adds, or weighs positions: there are no channel weights to draw")
    return usable


def _last_of_stages(sites: Sequence[Site], weights: Mapping[str, Weights]) -> dict[int, torch.Tensor]:
    return {site.stage: weights[site.name][0].cpu() for site in sites if site.name in weights}


def _visible(pixels: torch.Tensor) -> torch.Tensor:
    """The first three channels in 0 to 1; of fewer, the first one as grey."""
    shown = pixels[:3] if len(pixels) >= 3 else pixels[:1].expand(3, -1, -1)
    return shown.float() / 255


def encoded(picture: Image.Image) -> bytes:
    """Return a picture as PNG."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
