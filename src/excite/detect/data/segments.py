"""Segmentations in COCO's forms: polygons, run lengths (compressed or not), or plain arrays."""

from typing import Any, TypedDict  # Any: of JSON that somebody else wrote

import numpy as np

from excite.common.checks import shown
from excite.detect.data.schema import is_number


class RunLengths(TypedDict):
    """A mask as COCO's run lengths: size `[height, width]`; counts: plain numbers, or compressed (text in JSON)."""

    size: list[int]
    counts: list[int] | str | bytes


Segment = list[list[float]] | RunLengths | np.ndarray  # polygons, run lengths, or a mask [h w]


def problem(segment: object, height: int, width: int) -> str | None:
    """Say what is wrong with a segmentation, None where it can be decoded."""
    if isinstance(segment, list):
        reach = 4 * max(height, width) + 1000  # as much memory is asked for as the outline is long
        usable = _polygons(segment)
        if not usable:
            return "has no polygon of three points or more"
        if not all(is_number(v) and -reach <= v <= reach for polygon in usable for v in polygon):
            return "has a polygon with points that are no numbers, or far outside the image"
        return None
    if isinstance(segment, dict) and "counts" in segment and "size" in segment:
        if segment["size"] != [height, width]:
            return f"has a run-length mask of size {shown(segment['size'])} on an image of {[height, width]}"
        lengths = _lengths(segment["counts"])
        if lengths is None or not all(0 <= length <= height * width for length in lengths):
            return "has run lengths that cannot be read"
        if sum(lengths) != height * width:
            return f"has run lengths of {sum(lengths)} pixels in all, the image has {height * width}"
        return None
    return "has neither polygons nor run lengths"


def _polygons(segment: list[Any]) -> list[list[float]]:
    return [p for p in segment if isinstance(p, list) and len(p) >= 6 and len(p) % 2 == 0]


def _lengths(counts: object) -> list[int] | None:
    """Return run lengths, decompressed, or None where they are none.

    COCO's C library writes past the mask where compressed lengths add up to more, so they are added up here first.
    """
    if isinstance(counts, list):
        return counts if all(isinstance(n, int) and not isinstance(n, bool) for n in counts) else None
    if isinstance(counts, str):
        counts = counts.encode("latin-1", "replace")
    if not isinstance(counts, bytes):
        return None
    lengths: list[int] = []
    value = shift = 0
    for byte in counts:  # groups of five bits, the lowest first; bit 6 says that more follow
        code = byte - 48
        if not 0 <= code < 64 or shift > 30:
            return None
        value |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        if code & 16:
            value -= 1 << shift
        lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))  # from the fourth on: what differs
        value = shift = 0
    return lengths if not shift else None


def encode(segment: Segment, height: int, width: int) -> RunLengths:
    """Return any segmentation as a compressed run-length dictionary (counts as bytes)."""
    from pycocotools import mask as coco_mask

    if isinstance(segment, np.ndarray):
        return coco_mask.encode(np.asfortranarray(segment.astype(np.uint8)))
    if isinstance(segment, list):
        return coco_mask.merge(coco_mask.frPyObjects(_polygons(segment), height, width))
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
