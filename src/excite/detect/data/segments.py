"""Segmentations in COCO's forms: polygons, run lengths (compressed or not), or plain arrays."""

from typing import TypedDict

import numpy as np


class RunLengths(TypedDict):
    """A mask as COCO's run lengths: size `[height, width]`; counts: plain numbers, or compressed (text in JSON)."""

    size: list[int]
    counts: list[int] | str | bytes


Segment = list[list[float]] | RunLengths | np.ndarray  # polygons, run lengths, or a mask [h w]


def problem(segment: object, height: int, width: int) -> str | None:
    """Say what is wrong with a segmentation, None where it can be decoded."""
    if isinstance(segment, list):
        usable = [p for p in segment if isinstance(p, list) and len(p) >= 6 and len(p) % 2 == 0]
        return None if usable else "has no polygon of three points or more"
    if isinstance(segment, dict) and "counts" in segment and "size" in segment:
        if list(segment["size"]) != [height, width]:
            return f"has a run-length mask of size {segment['size']} on an image of {[height, width]}"
        if isinstance(segment["counts"], list) and sum(segment["counts"]) != height * width:
            return f"has run lengths of {sum(segment['counts'])} pixels in all, the image has {height * width}"
        return None
    return "has neither polygons nor run lengths"


def encode(segment: Segment, height: int, width: int) -> RunLengths:
    """Return any segmentation as a compressed run-length dictionary (counts as bytes)."""
    from pycocotools import mask as coco_mask

    if isinstance(segment, np.ndarray):
        return coco_mask.encode(np.asfortranarray(segment.astype(np.uint8)))
    if isinstance(segment, list):
        polygons = [p for p in segment if len(p) >= 6]
        return coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
    if isinstance(segment["counts"], list):
        return coco_mask.frPyObjects(segment, height, width)
    return segment


def decode(segment: Segment, height: int, width: int) -> np.ndarray:
    """Return any segmentation as a mask, uint8 `[h w]`."""
    from pycocotools import mask as coco_mask

    if isinstance(segment, np.ndarray):
        return segment
    return np.ascontiguousarray(coco_mask.decode(encode(segment, height, width)))


def to_json(mask: np.ndarray) -> RunLengths:
    """Return a mask `[h w]` as a run-length dictionary that JSON can hold."""
    from pycocotools import mask as coco_mask

    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": [int(v) for v in rle["size"]], "counts": rle["counts"].decode("ascii")}
