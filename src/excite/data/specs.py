"""Data specs: a name, or a kind and a place (`imagefolder:PATH`). And which data a run was trained on."""

import importlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from excite.card import code_refused, command_refused
from excite.common.holdout import Cut, read_cut
from excite.common.pyfile import is_python
from excite.data.bundle import DataBundle
from excite.data.splits import Source, arrange
from excite.errors import UsageError, near

if TYPE_CHECKING:
    from excite.models import NetworkSpec

GIVEN = "python:"  # before the name of data that a program gave to `excite.fit`


class Spec(NamedTuple):
    """How a kind of data is written, where its opener is, and what it is."""

    form: str
    opener: str
    summary: str


SPECS: dict[str, Spec] = {
    "digits": Spec("digits", "digits:open_digits", "handwritten digits, bundled with scikit-learn"),
    "cifar10": Spec("cifar10", "cifar:open_cifar", "CIFAR-10, downloaded"),
    "cifar100": Spec("cifar100", "cifar:open_cifar", "CIFAR-100, downloaded"),
    "imagefolder": Spec(
        "imagefolder:PATH",
        "folder:open_folder",
        "PATH/train/CLASS/*.jpg, val and test beside it; or PATH/CLASS/*.jpg",
    ),
    "csv": Spec("csv:FILE", "table:open_table", "a table with path, label and perhaps split of each image"),
    "parquet": Spec("parquet:PATH", "parquet:open_parquet", "train*.parquet, val*.parquet, test*.parquet"),
    "hfds": Spec(
        "hfds:NAME", "hf:open_hf", "a data set of the Hugging Face hub (extra hf); ?stream reads it as it comes"
    ),
    "wds": Spec("wds:PATTERN", "wds:open_wds", "WebDataset shards on disk, or a folder of `excite shards`"),
}


def open_data(
    spec: str, *, limit_train: int | None = None, limit_val: int | None = None, limit_test: int | None = None
) -> DataBundle:
    """Open a data spec; the limits keep that many images of a split (always the same ones).

    spec may end in shares of the training images to hold out: `digits@val=0.1`, `imagefolder:PATH@val=0.2,test=0.2`.
    A path of a folder or file stands for what it is seen to be: `photos`, `photos.zip`, `labels.csv`; that of a
    function in a Python file, `my.py:factory`, for what the function gives (`bundle_of`).
    Raises UsageError for an unknown spec (with near ones) or a missing place, ExciteError for data that cannot be used.
    """
    place, cut = read_cut(spec)
    kind, colon, rest = place.partition(":")
    note = None
    if kind not in SPECS and is_python(place):
        limits = {"limit_train": limit_train, "limit_val": limit_val, "limit_test": limit_test}
        return _of_program(place, spec, cut, limits)
    if kind not in SPECS:
        note, place = place, _recognised(place, cut.written(place))
        kind, colon, rest = place.partition(":")
    if (":" in SPECS[kind].form) != bool(rest) or (colon and not rest):
        raise UsageError(f"data spec {spec!r} is written {SPECS[kind].form}")
    for name, limit in (("limit_train", limit_train), ("limit_val", limit_val), ("limit_test", limit_test)):
        if limit is not None and limit < 1:
            raise UsageError(f"{name} must be at least 1, got {limit}")
    module, _, function = SPECS[kind].opener.partition(":")
    opener = getattr(importlib.import_module(f"excite.data.{module}"), function)
    source: Source = opener(place)
    bundle = arrange(spec, source, cut, limit_train=limit_train, limit_val=limit_val, limit_test=limit_test)
    if note is not None:
        images = sum(len(split) for split in source.splits.values())
        bundle.notes.insert(0, f"took {note} as {kind}: {bundle.num_classes} classes, {images} images")
    return bundle


def _of_program(place: str, spec: str, cut: Cut, limits: dict[str, int | None]) -> DataBundle:
    """Return the data that a function in a Python file gives; it may give the spec of other data, too."""
    from excite.data.mapped import bundle_of
    from excite.data.program import call_factory

    data = call_factory(place)
    if isinstance(data, str):
        inner, own = read_cut(data)
        return replace(open_data(own.updated(*cut).written(inner), **limits), spec=spec)
    return replace(bundle_of(data, spec, cut, **limits), spec=spec)


def _recognised(place: str, spec: str) -> str:
    """Return the spec of a file or folder. Raises UsageError for what is neither that nor nearly a spec."""
    from excite.data.recognise import missing_path, recognise

    if place.startswith(GIVEN):
        raise UsageError(f"data {spec!r} were given by a program, excite.fit(MODEL, DATA); only that program has them")
    path = Path(place).expanduser()
    close = near(place.partition(":")[0], SPECS)
    if path.exists():
        return recognise(path)
    if close:
        raise UsageError(f"unknown data spec {spec!r}; did you mean {' or '.join(repr(SPECS[c].form) for c in close)}?")
    known = ", ".join(s.form for s in SPECS.values())
    missing = "" if ":" in place else missing_path(path)
    if "did you mean" in missing:
        raise UsageError(missing)
    missing += ", and no data spec either" if missing else ""
    raise UsageError(f"{missing or f'unknown data spec {spec!r}'}; known: {known}, or the path of a folder or file")


class Trained(Protocol):
    """A network and where it comes from; data: the spec it was trained on, None where nothing says it."""

    @property
    def source(self) -> str:
        """The file, run directory or name, for messages."""

    @property
    def card(self) -> "NetworkSpec":
        """Its classes."""

    @property
    def data(self) -> str | None:
        """The data spec of its run."""


class RunOf(NamedTuple):
    """A `Trained` network."""

    source: str
    card: "NetworkSpec"
    data: str | None


def open_run_data(
    networks: Sequence[Trained],
    data: str | None = None,
    *,
    limit_train: int | None = None,
    limit_val: int | None = None,
    limit_test: int | None = None,
) -> DataBundle:
    """Open `data`, by default what the networks were trained on.

    Raises UsageError where nothing says what that was, where they were trained on different data, where it is no longer
    there, and where a network has other classes than the data: another number, other names, or another order.
    """
    own = {network.source: network.data for network in networks if network.data}
    if data is None and len(own) < len(networks):
        silent = next(network.source for network in networks if not network.data)
        raise UsageError(f"{silent} does not say what it was trained on; give --data SPEC")
    if data is None and len(set(own.values())) > 1:
        listed = ", ".join(f"{source} on {spec}" for source, spec in own.items())
        raise UsageError(f"the networks were trained on different data ({listed}); name one with --data SPEC")
    spec = data if data is not None else next(iter(own.values()))
    place = read_cut(spec)[0]
    if data is None and is_python(place):
        raise code_refused(networks[0].source, place, "--data")
    if data is None and place.startswith(GIVEN):
        raise UsageError(
            f"{networks[0].source} was trained on data that a program gave ({place.removeprefix(GIVEN)}); name data "
            "with the same classes with --data SPEC"
        )
    if data is None and "wds:pipe:" in spec:
        raise command_refused(networks[0].source, spec)
    try:
        bundle = open_data(spec, limit_train=limit_train, limit_val=limit_val, limit_test=limit_test)
    except UsageError as error:
        if data is not None:
            raise
        raise UsageError(
            f"{networks[0].source} was trained on {spec}: {error}; name the data with --data SPEC"
        ) from None
    for network in networks:
        check_classes(network.source, network.card, bundle)
    return bundle


def check_classes(source: str, card: "NetworkSpec", bundle: DataBundle) -> None:
    """Raise UsageError unless a network has the classes of the data, in the same order."""
    remedy = "name the data it was trained on with --data SPEC"
    if bundle.num_classes != card.num_classes:
        raise UsageError(f"{source} knows {card.num_classes} classes, {bundle.spec} has {bundle.num_classes}; {remedy}")
    for own, name in zip(card.class_names or bundle.class_names, bundle.class_names, strict=True):
        if own != name:
            raise UsageError(
                f"{source} and {bundle.spec} name classes differently: {own!r} there is {name!r} here; {remedy}"
            )
