"""Detections in image files."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypedDict

import torch
from torch import nn
from torchvision.transforms.v2 import functional as F

from excite.common.files import safe_name
from excite.detect.data.base import load_image
from excite.detect.detector import card_of
from excite.detect.draw import draw_detections, save_image
from excite.detect.results import to_results
from excite.errors import ExciteError


class ImageRow(TypedDict):
    """What was found on one image; counts: objects by name; objects: name, score, box and perhaps mask."""

    image: str
    picture: str
    counts: dict[str, int]
    objects: list[dict[str, object]]


@torch.no_grad()
def predict_images(
    detector: nn.Module,
    files: Sequence[Path],
    folder: Path,
    *,
    threshold: float = 0.5,
    unreadable: list[str] | None = None,
) -> Iterator[ImageRow]:
    """Yield one row per image: its file, picture, counts by name, and objects (name, score, box, perhaps mask).

    box: x, y, width, height in pixels; mask: COCO run lengths. The pictures go to `folder`, numbered where names meet.
    unreadable: takes what was wrong with images that cannot be read, so that the others go on; without it the first of
    them raises ExciteError.
    """
    detector.eval()
    card = card_of(detector)
    names = dict(enumerate(card.class_names or [str(i) for i in range(1, card.num_classes)], start=1))
    device = next(detector.parameters()).device
    taken: set[str] = set()
    for file in files:
        try:
            image = load_image(file)
        except ExciteError as error:
            if unreadable is None:
                raise
            unreadable.append(str(error))
            continue
        pixels = F.to_dtype(F.pil_to_tensor(image), torch.float32, scale=True).to(device)
        results = to_results(str(file), detector([pixels])[0], list(names))
        sure = [r for r in results if r["score"] >= threshold]
        target = folder / f"{safe_name(file.stem, taken)}.jpg"
        save_image(draw_detections(image, sure, names, threshold=threshold), target)
        objects: list[dict[str, object]] = [
            {"name": names[r["category_id"]], "score": round(r["score"], 4), "box": [round(v, 2) for v in r["bbox"]]}
            | ({"mask": r["segmentation"]} if "segmentation" in r else {})
            for r in sure
        ]
        counts = dict(Counter(names[r["category_id"]] for r in sure))
        yield {"image": str(file), "picture": str(target), "counts": counts, "objects": objects}
