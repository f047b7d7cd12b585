"""Cards, the descriptions that travel with checkpoints: what they may hold; one schema for networks and detectors."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NotRequired, TypedDict

from excite.common.checks import LARGEST, shown
from excite.errors import ExciteError

CARD = "excite_card"  # the attribute of a network that holds its card
LARGEST_SIDE = 8192
MOST_CLASSES = 1_000_000
# Written into every card. A card without it is of format 1, of a time when EMCA networks worked on the block's output
# unless told otherwise; today they work on its branch.
CARD_FORMAT = 2
MOST_CHANNELS = 65_536
# Options by which timm and torchvision open files or the network: never taken from a file.
REACHING = ("cache_dir", "checkpoint", "checkpoint_path", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay")


class Preparation(TypedDict):
    """How images are prepared; size, resize: pixels; mean, std: of images in [0, 1], one per colour or channel.

    window: the samples of more than 8 bits that are black and white.
    """

    size: int
    resize: int
    mean: list[float]
    std: list[float]
    window: NotRequired[list[float]]


class CardFields:
    """The entries of a card, read one at a time; each method raises ExciteError that names the source and the entry."""

    def __init__(self, values: object, source: str) -> None:
        self.source = source
        if not isinstance(values, Mapping) or not all(isinstance(key, str) for key in values):
            raise ExciteError(f"{source}: its card is {type(values).__name__}, not a mapping of names to values")
        self.values: Mapping[str, object] = values

    def wrong(self, key: str, expected: str, value: object = None) -> ExciteError:
        """Return the error for an entry; value: what is wrong in it, by default all of it."""
        text = shown(self.values.get(key) if value is None else value)
        return ExciteError(f"{self.source}: {shown(key)} in its card is {text}; expected {expected}")

    def text(self, key: str, default: str | None = None, known: tuple[str, ...] = ()) -> str:
        """Return a text of 1 to 1000 characters, one of `known` where that is not empty."""
        value = self.values.get(key, default)
        if not isinstance(value, str) or not 1 <= len(value) <= 1000:
            raise self.wrong(key, "a name")
        if known and value not in known:
            raise self.wrong(key, f"one of {', '.join(known)}")
        return value

    def optional_text(self, key: str) -> str | None:
        """Return a text, or None where the entry is missing or None."""
        return None if self.values.get(key) is None else self.text(key)

    def whole(self, key: str, low: int, high: int, default: int | None = None) -> int:
        """Return a whole number within bounds."""
        value = self.values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.wrong(key, f"a whole number from {low} to {high}")
        return value

    # Any: an option may be whatever a file can hold; whoever takes it checks it.
    def options(self, key: str) -> dict[str, Any]:
        """Return a mapping of option names to plain values; a missing one is empty."""
        value = self.values.get(key)
        if value is None:
            return {}
        if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
            raise self.wrong(key, "a mapping of option names to values")
        for name, setting in value.items():
            if name in REACHING:
                raise self.wrong(
                    key, f"no {shown(name)}: a file may not name other files to be opened", {name: setting}
                )
            if not is_plain(setting, largest=LARGEST):
                numbers = f"numbers (up to {LARGEST})"
                raise self.wrong(key, f"{numbers}, texts, and lists and mappings of them", {name: setting})
        return dict(value)

    def keep_former_defaults(self, name: str, options: dict[str, Any]) -> None:
        """Write into `options` what a card of an earlier format meant by saying nothing; name: a network or method."""
        earlier = self.whole("format", 1, 1_000_000, 1) < CARD_FORMAT
        if earlier and name.startswith("emca_") and options.get("form", "paper") == "paper":
            options.setdefault("where", "block")

    def names(self, key: str) -> str | list[str] | None:
        """Return a name, a list of names, or None."""
        value = self.values.get(key)
        if value is None or isinstance(value, str):
            return value
        if not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
            raise self.wrong(key, "a name or a list of names")
        return list(value)

    def class_names(self, key: str, count: int) -> list[str] | None:
        """Return `count` class names, or None where there are none."""
        value = self.values.get(key)
        if value is None:
            return None
        if not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
            raise self.wrong(key, "a list of names")
        if len(value) != count:
            raise ExciteError(f"{self.source}: its card has {len(value)} class names for {count} classes ({key!r})")
        return list(value)

    def preprocess(self, key: str, channels: int) -> Preparation | None:
        """Return `{"size", "resize", "mean", "std"}` (pixels; statistics of images in [0, 1]), or None."""
        value = self.values.get(key)
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise self.wrong(key, "a mapping with size, resize, mean and std")
        inner = CardFields(value, f"{self.source}, {key}")
        unknown = [name for name in value if name not in ("size", "resize", "mean", "std", "window")]
        if unknown:
            raise inner.wrong(unknown[0], "size, resize, mean and std alone")
        size = inner.whole("size", 1, LARGEST_SIDE)
        resize = inner.whole("resize", 0, LARGEST_SIDE, size) or size
        mean, std = inner.statistics("mean", channels), inner.statistics("std", channels)
        if min(std) <= 0:
            raise inner.wrong("std", "numbers above 0")
        preparation: Preparation = {"size": size, "resize": resize, "mean": mean, "std": std}
        if inner.values.get("window") is not None:
            preparation["window"] = inner.window("window")
        return preparation

    def window(self, key: str) -> list[float]:
        """Return two finite numbers, the lower one first."""
        value = self.values.get(key)
        ends = [v for v in value if isinstance(v, int | float) and math.isfinite(v)] if isinstance(value, list) else []
        if len(ends) != 2 or not ends[0] < ends[1] or max(map(abs, ends)) > 1e30:
            raise self.wrong(key, "two numbers, the lower one first")
        return [float(end) for end in ends]

    def statistics(self, key: str, channels: int) -> list[float]:
        """Return one finite number per colour, or per channel where a network has other channels."""
        value = self.values.get(key)
        if not isinstance(value, list | tuple) or not (len(value) in (1, 3) or len(value) == channels):
            raise self.wrong(key, "one number per channel")
        numbers = [v for v in value if isinstance(v, int | float) and not isinstance(v, bool)]
        if len(numbers) != len(value) or not all(math.isfinite(v) and abs(v) <= 1000 for v in numbers):
            raise self.wrong(key, "one finite number per channel")
        return numbers


def carry(model: object, record: object, name: str = CARD) -> None:
    """Let a network carry its card, or another record (PyTorch declares attributes as tensors and modules)."""
    setattr(model, name, record)


def parse_card(text: str, source: str) -> object:
    """Return what a card written as JSON says. Raises ExciteError that names the source."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ExciteError(f"{source}: its card is damaged ({error})") from None


def code_refused(source: str, name: str, option: str = "--model") -> ExciteError:
    """Return the error for a file that names a Python file, which would be run; option: where a user names it."""
    what, hint = {
        "--data": ("data", ""),
        "--attach": ("method", " (in Python: excite.register_method)"),
        "--methods": ("method", ""),
    }.get(option, ("network", " (in Python: excite.load(..., model=...))"))
    return ExciteError(
        f"{source} names the Python file {name!r} as its {what}, and code that a file names is not run; where you "
        f"trust it, name it yourself: {option} FILE.py:factory{hint}"
    )


def command_refused(source: str, data: str) -> ExciteError:
    """Return the error for a file that names a command as its data, which would be run."""
    return ExciteError(
        f"{source} names the command {data!r} as its data, and what a file names is not run; where you trust it, name "
        "it yourself: --data wds:pipe:..."
    )


@dataclass(frozen=True)
class DetectorCard:
    """What a checkpoint says of its detector.

    kind, backbone, num_classes (background included), neck and options: as given to `create_detector`; class_names:
    of the labels 1, 2, ...; source: the file that the card was read from; a card with one never runs a Python file.
    """

    kind: str
    backbone: str
    num_classes: int
    neck: str = "fpn"
    options: Mapping[str, Any] = field(default_factory=dict)
    class_names: list[str] | None = None
    source: str = field(default="", compare=False, repr=False)

    def to_dict(self) -> dict[str, object]:
        """Return the card as plain containers."""
        return {
            "kind": self.kind,
            "backbone": self.backbone,
            "num_classes": self.num_classes,
            "neck": self.neck,
            "options": dict(self.options),
            "class_names": self.class_names,
            "format": CARD_FORMAT,
        }

    @classmethod
    def from_dict(cls, values: object, source: str = "the card") -> "DetectorCard":
        """Read what `to_dict` wrote; entries it does not know (a later version's) are passed over.

        Raises ExciteError that names the source and the entry that is wrong.
        """
        card = CardFields(values, source)
        num_classes = card.whole("num_classes", 2, MOST_CLASSES)
        options = card.options("options")
        card.keep_former_defaults(card.text("backbone"), options)
        sizes = CardFields(options, f"{source}, options")
        for key in ("min_size", "max_size"):
            for side in options[key] if isinstance(options.get(key), list | tuple) else [options.get(key, 1)]:
                if isinstance(side, bool) or not isinstance(side, int) or not 1 <= side <= LARGEST_SIDE:
                    raise sizes.wrong(key, f"whole numbers from 1 to {LARGEST_SIDE}")
        return cls(
            card.text("kind", known=("faster_rcnn", "mask_rcnn", "retinanet")),
            card.text("backbone"),
            num_classes,
            card.text("neck", "fpn", ("fpn", "c4")),
            options,
            card.class_names("class_names", num_classes - 1),
            source,
        )


def is_plain(value: object, depth: int = 8, most: int = 100_000, largest: int = 2**64 - 1) -> bool:
    """Return whether a value is numbers, texts, None, and lists and mappings of them, of bounded depth and size.

    largest: of whole numbers, whatever their sign.

    Lists that hold one another grow when they are copied or written: each entry counts as often as it is met.
    """
    waiting, met = [(value, depth)], 0
    while waiting:
        part, levels = waiting.pop()
        met += 1
        if met > most or levels < 0:
            return False
        if isinstance(part, Mapping | list | tuple):
            names = list(part) if isinstance(part, Mapping) else []
            if len(part) > most or not all(isinstance(name, str) for name in names):
                return False
            waiting += [(inner, levels - 1) for inner in (part.values() if isinstance(part, Mapping) else part)]
        elif not _is_small(part, most, largest):
            return False
    return True


def _is_small(value: object, most: int, largest: int) -> bool:
    """True for None, a number of at most `largest`, and a text of at most `most` characters."""
    if isinstance(value, int):
        return abs(value) <= largest
    return value is None or isinstance(value, float) or (isinstance(value, str) and len(value) <= most)
