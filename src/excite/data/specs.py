"""Data specs: a name, or a kind and a place (`imagefolder:PATH`)."""

import importlib
from typing import NamedTuple

from excite.data.bundle import DataBundle
from excite.errors import UsageError, near


class Spec(NamedTuple):
    """How a kind of data is written, where its opener is, and what it is."""

    form: str
    opener: str
    summary: str


SPECS: dict[str, Spec] = {
    "digits": Spec("digits", "digits:open_digits", "handwritten digits, bundled with scikit-learn"),
    "cifar10": Spec("cifar10", "cifar:open_cifar", "CIFAR-10, downloaded"),
    "cifar100": Spec("cifar100", "cifar:open_cifar", "CIFAR-100, downloaded"),
    "imagefolder": Spec("imagefolder:PATH", "folder:open_folder", "PATH/train/CLASS/*.jpg and PATH/val/CLASS/*.jpg"),
    "parquet": Spec("parquet:PATH", "parquet:open_parquet", "train*.parquet and val*.parquet or test*.parquet"),
    "hfds": Spec("hfds:NAME", "hf:open_hf", "a data set of the Hugging Face hub (extra hf)"),
    "wds": Spec("wds:PATTERN", "wds:open_wds", "WebDataset shards on disk (extra wds)"),
}


def open_data(spec: str, *, limit_train: int | None = None, limit_val: int | None = None) -> DataBundle:
    """Open a data spec; the limits keep that many images of a split (always the same ones).

    Raises UsageError for an unknown spec (with near ones) or a missing place, ExciteError for data that cannot be used.
    """
    kind, colon, place = spec.partition(":")
    known = ", ".join(s.form for s in SPECS.values())
    if kind not in SPECS:
        close = near(kind, SPECS)
        hint = f"did you mean {' or '.join(repr(SPECS[c].form) for c in close)}?" if close else f"known: {known}"
        raise UsageError(f"unknown data spec {spec!r}; {hint}")
    if (":" in SPECS[kind].form) != bool(place) or (colon and not place):
        raise UsageError(f"data spec {spec!r} is written {SPECS[kind].form}")
    for name, limit in (("limit_train", limit_train), ("limit_val", limit_val)):
        if limit is not None and limit < 1:
            raise UsageError(f"{name} must be at least 1, got {limit}")
    module, _, function = SPECS[kind].opener.partition(":")
    opener = getattr(importlib.import_module(f"excite.data.{module}"), function)
    bundle: DataBundle = opener(spec, limit_train, limit_val)
    return bundle
