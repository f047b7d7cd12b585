"""Who trains, who is watched, who is measured: a split that a source lacks is cut from its training images."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from torch import Tensor

from excite.common.holdout import Cut
from excite.data.bundle import DataBundle, Images, LabelledSplit, chosen
from excite.data.preprocess import Preprocess, UnreadableImageError
from excite.data.stream import StreamImages
from excite.errors import ExciteError, UsageError

SplitName = Literal["train", "val", "test"]
AnySplit = LabelledSplit | StreamImages
NO_CUT = Cut()
VAL_FRACTION = 0.2  # of the training images, where a source holds out none at all


@dataclass
class Source:
    """What an opener finds.

    splits: by name, `train` among them; prepare: how images are to be prepared, from the training images that are left
    when others were held out; notes: what was passed over or taken for something.
    """

    splits: Mapping[SplitName, AnySplit]
    class_names: list[str]
    prepare: Callable[[AnySplit], Preprocess]
    notes: list[str] = field(default_factory=list)


def hold_out(labels: Sequence[int], fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Return (indices that stay, indices held out): `fraction` of each class, drawn with `seed`, in their order.

    A class of two or more images has at least one on either side; a lone image stays. (scikit-learn's stratified
    splits refuse such classes, and a run must find its own split again whatever version is installed.)
    """
    values = np.asarray(labels)
    held = np.zeros(len(values), dtype=bool)
    for label in np.unique(values):
        rows = np.flatnonzero(values == label)
        count = min(max(round(fraction * len(rows)), 1), len(rows) - 1)
        held[np.random.default_rng([seed, int(label) & 0xFFFFFFFF]).permutation(rows)[:count]] = True
    return np.flatnonzero(~held).tolist(), np.flatnonzero(held).tolist()


def labels_of(images: Images, unreadable: int | None = None) -> list[int]:
    """Return the labels as whole numbers; images that do not know them are decoded for it.

    unreadable: the label of images that cannot be decoded. Raises UnreadableImageError for one where it is None.
    """
    labels = getattr(images, "labels", None)
    if labels is not None:
        return labels.tolist() if isinstance(labels, Tensor) else list(labels)
    found = []
    for index in range(len(images)):
        try:
            found.append(images[index][1])
        except UnreadableImageError:
            if unreadable is None:
                raise
            found.append(unreadable)
    return found


def arrange(
    spec: str,
    source: Source,
    cut: Cut = NO_CUT,
    *,
    limit_train: int | None = None,
    limit_val: int | None = None,
    limit_test: int | None = None,
) -> DataBundle:
    """Return a source as a data set with training, validation and test images.

    Where it holds out one split, that one is watched and measured; `cut` makes a second one of training images. Where
    it holds out none, a fifth of each class is. Raises UsageError for a cut of a split that is there already.
    """
    splits, notes = dict(source.splits), list(source.notes)
    missing: list[SplitName] = [name for name in ("test", "val") if name not in splits]
    wanted: dict[SplitName, float | None] = {"val": cut.val, "test": cut.test}
    for name, fraction in wanted.items():
        if fraction and name not in missing:
            raise UsageError(f"{spec}: there is a {name} split already; --{name}-fraction is for data without one")
    if len(missing) == 2 and cut.val is None and not cut.test:
        wanted["val"] = VAL_FRACTION
    whole = len(splits["train"])
    for number, name in enumerate(missing):
        if not wanted[name]:
            continue
        train = splits["train"]
        if isinstance(train, StreamImages):
            raise UsageError(
                f"{spec}: a stream cannot be divided, and it has no {name} split; leave ?stream out, or take data with "
                "splits of their own"
            )
        stay, held = hold_out(labels_of(train), float(wanted[name] or 0) * whole / max(len(train), 1), number)
        if not held:
            raise ExciteError(f"{spec}: {len(train)} images are too few to hold some out; add images or a {name} split")
        splits["train"], splits[name] = train.take(stay), train.take(held)
        notes.append(f"held out {len(held)} of {whole} training images as the {name} split, by class")
    separate = splits.get("test") if "val" in splits else None
    watched = splits.get("val", splits.get("test"))
    if watched is None:
        raise UsageError(f"{spec}: no images are held out to validate on; give --val-fraction 0.2 or a val split")
    how = source.prepare(splits["train"])  # held-out images have no part in its statistics
    if separate is None and limit_test is not None:
        limit_val = min(limit_test, limit_val or limit_test)
    return DataBundle(
        spec,
        _limited(splits["train"], limit_train),
        _limited(watched, limit_val),
        source.class_names,
        how.to_dict(),
        None if separate is None else _limited(separate, limit_test),
        "val" if "val" in splits else "test",
        notes,
    )


def _limited(images: AnySplit, limit: int | None) -> AnySplit:
    if isinstance(images, StreamImages):  # scattered ones would be a reading of all of it
        return images if limit is None else images.head(limit)
    kept = chosen(len(images), limit)
    return images if len(kept) == len(images) else images.take(kept)
