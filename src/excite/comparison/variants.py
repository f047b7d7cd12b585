"""What a row of a comparison is: a method with its options and place on a backbone; and how people write it."""

import hashlib
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from excite.backbones.build import options_of_backbone, options_of_method
from excite.backbones.names import BACKBONES
from excite.common.checks import shown
from excite.common.options import Option, check_names, parse_pairs, parse_value
from excite.common.pyfile import is_python
from excite.errors import UsageError, unknown
from excite.registry import METHODS, is_own, resolve_method

BASELINE = "none"
PLACEMENTS = ("all", "first", "last")
ENTRIES = ("method", "label", "options", "placement", "sites", "backbone")
HOW = "a variant is METHOD, METHOD:NAME=VALUE;NAME=VALUE, METHOD@first|last, or METHOD@sites=[PATH,PATH]"


@dataclass(frozen=True)
class Variant:
    """One row: a method on a backbone. label: its name in tables; by default it is written as on the command line.

    options: of the method (of `none`: of the backbone); placement: which blocks of a stage, for backbones of ours;
    sites: where the method is attached instead, as for `excite.attach`; file: FILE.py:NAME of a method of one's own,
    for the command line.
    """

    method: str
    backbone: str = "resnet20"
    options: dict[str, Option] = field(default_factory=dict)
    placement: str = "all"
    sites: str | None = None
    label: str = ""
    file: str = field(default="", compare=False)

    @property
    def foreign(self) -> bool:
        """Whether the backbone is another library's or a Python file's: methods are attached to it."""
        return self.backbone not in BACKBONES

    @property
    def attached(self) -> bool:
        """Whether the method is attached to the plain backbone, not built into it."""
        return self.method != BASELINE and (self.foreign or self.sites is not None)

    @property
    def backbone_options(self) -> dict[str, Option]:
        """Those of its options that are the backbone's, which variants have in common; attached ones have none."""
        if self.foreign or self.attached:
            return {}
        return of_backbone(self.method, self.backbone, self.options)

    @property
    def name(self) -> str:
        """Its label, else how it is written: `eca:kernel_size=3@first`."""
        return self.label or self.written

    @property
    def written(self) -> str:
        """How people write it, without the backbone. Its runs stand in folders that are named so."""
        return self._with_options(self.method, _bracketed)

    @property
    def typed(self) -> str:
        """How it is typed on the command line, where that can be said: text that looks like a number has brackets."""
        return self._with_options(self.file or self.method, _told_apart)

    def _with_options(self, method: str, write: Callable[[Option], str]) -> str:
        options = ";".join(f"{key}={write(value)}" for key, value in self.options.items())
        place = f"@sites={_bracketed(self.sites)}" if self.sites else ""
        place += f"@{self.placement}" if self.placement != "all" else ""
        return method + (f":{options}" if options else "") + place

    def same(self, other: "Variant") -> bool:
        """Tell whether another one is the same network on the same backbone, however it is written and labelled."""
        mine, theirs = (replace(v, label="", options=in_words(v.options)) for v in (self, other))
        return mine == theirs

    def folder(self, *, alone: bool) -> str:
        """Return a name for its runs that is safe in every file system; alone: without the backbone."""
        text = self.name if alone else f"{self.name} on {self.backbone}"
        safe = re.sub(r"[^\w.=-]+", "-", text, flags=re.ASCII).strip("-.")[:80]
        if safe == text:
            return safe
        return f"{safe}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"

    def check(self, *, known: bool = True) -> None:
        """Raise UsageError for an unknown method, backbone or place; known: the method must be one that can be built.

        Of runs that are there the method may be somebody's own, in a file that nobody named.
        """
        if self.method not in METHODS and (known or not re.fullmatch("[a-z][a-z0-9]*(_[a-z0-9]+)*", self.method)):
            raise unknown("method", self.method, METHODS)
        if self.foreign and not self.backbone.startswith(("timm/", "torchvision/")) and ":" not in self.backbone:
            raise unknown("backbone", self.backbone, BACKBONES)
        if self.placement not in PLACEMENTS:
            raise UsageError(f"{self.name}: placement {self.placement!r}; expected one of {', '.join(PLACEMENTS)}")
        if self.placement != "all" and (self.attached or self.method == BASELINE):
            what = "the baseline has no attention" if self.method == BASELINE else "it is attached; say @sites=PLACES"
            raise UsageError(f"{self.name}: @{self.placement} places attention in a backbone of ours, and {what}")
        if self.sites is not None and self.method == BASELINE:
            raise UsageError(f"{self.name}: the baseline has no attention that could have a place")

    def to_dict(self) -> dict[str, object]:
        """Return it as plain containers; `from_entry` reads them."""
        return {
            "method": self.method,
            "backbone": self.backbone,
            "options": self.options,
            "placement": self.placement,
            "sites": self.sites,
            "label": self.label,
            "file": self.file,
        }


def of_backbone(method: str, backbone: str, options: Mapping[str, Option]) -> dict[str, Option]:
    """Return those of a network's options that are its backbone's."""
    names = options_of_backbone(backbone) - options_of_method(method)
    return {name: value for name, value in options.items() if name in names}


def parse(text: str, backbone: str) -> Variant:
    """Read one variant as people write it. Raises UsageError with the spelling."""
    method = re.match(r"\s*(?:[^,;:@]+\.py:\w+|[\w-]*)", text)
    assert method is not None
    own = not is_built_in(method[0].strip())
    rest = text[method.end() :].strip()
    options: dict[str, Option] = {}
    places: dict[str, str] = {}
    if sum((c in "[{(") - (c in ")}]") for c in rest):
        raise UsageError(f"variant {text.strip()!r}: a bracket is not closed, or was never opened; {HOW}")
    for mark, part in _marked(rest, text):
        if mark == ":":
            for pair in _split(part, ";"):
                said = parse_pairs([pair]) if pair.strip() else {}
                _check_once(text, said, options)
                options |= {k: v if own and isinstance(v, list) else _unbracketed(v) for k, v in said.items()}
            continue
        if part.startswith("sites=") and _unbracketed(part.removeprefix("sites=")):
            place = {"sites": str(_unbracketed(part.removeprefix("sites=")))}
        elif part in PLACEMENTS:
            place = {"placement": part}
        else:
            raise UsageError(f"variant {text.strip()!r}: {HOW}")
        _check_once(text, place, places)
        places |= place
    return Variant(method[0].strip(), backbone, options, **places)


def _check_once(text: str, said: Collection[str], before: Collection[str]) -> None:
    for name in said:
        if name in before:
            raise UsageError(f"variant {text.strip()!r}: {name} is said twice; leave one of them out")


def split_variants(text: str) -> list[str]:
    """Return the variants of a line, which commas separate; those inside brackets belong to a value."""
    return [part for part in _split(text, ",") if part.strip()]


def parse_all(text: str | Sequence[str | Variant], backbone: str) -> list[Variant]:
    """Read variants separated by commas, or a list of them."""
    parts: Sequence[str | Variant] = split_variants(text) if isinstance(text, str) else text
    variants = [replace(p, backbone=backbone) if isinstance(p, Variant) else _typed(p, backbone) for p in parts]
    for variant, part in zip(variants, parts, strict=True):
        if variant.method not in METHODS and isinstance(part, str) and isinstance(text, str) and ":" in text:
            near = unknown("method", variant.method, METHODS)
            raise UsageError(f"{near}; commas inside a value go in brackets, as eca:kernel_size=[3,5,5,7]")
    return variants


def _typed(text: str, backbone: str) -> Variant:
    """Read a variant that a user typed: its method may be FILE.py:NAME, which is run."""
    variant = parse(text, backbone)
    named = variant.method
    return replace(variant, method=resolve_method(named), file=named if is_python(named) else "")


# object: what a YAML or JSON file may hold.
def from_entry(entry: object, backbone: str, source: str) -> Variant:
    """Read a variant of a file: text, `{method: {option: value}}`, or a mapping of the fields.

    Raises UsageError that names the source.
    """
    if isinstance(entry, str):
        return parse(entry, backbone)
    if not isinstance(entry, Mapping) or not all(isinstance(key, str) for key in entry):
        raise UsageError(f"{source}: a variant is {entry!r}; {HOW}, or a mapping with {', '.join(ENTRIES)}")
    if "method" not in entry:
        if len(entry) != 1:
            raise UsageError(f"{source}: a variant has {', '.join(map(repr, entry))} and no method")
        [(method, options)] = entry.items()
        entry = {"method": method, "options": options or {}}
    check_names(f"{source}: a variant", [key for key in entry if key != "file"], ENTRIES)
    values = {"backbone": backbone, "options": {}, "placement": "all", "sites": None, "label": "", "file": "", **entry}
    for key, value in values.items():
        kind: type = dict if key == "options" else str
        if not isinstance(value, kind) and not (key == "sites" and value is None):
            what = "a mapping of names to values" if kind is dict else "text"
            raise UsageError(f"{source}: {key} of variant {shown(values['method'])} is {shown(value)}; expected {what}")
    if not all(isinstance(key, str) for key in values["options"]):
        raise UsageError(f"{source}: a variant's options are {values['options']!r}, not names and values")
    return Variant(**values)


def _marked(rest: str, text: str) -> list[tuple[str, str]]:
    """`:a=1@first` -> [(":", "a=1"), ("@", "first")]; marks inside brackets belong to values."""
    parts: list[tuple[str, str]] = []
    depth, start = 0, 0
    for i, character in enumerate(rest):
        depth += (character in "[{(") - (character in ")}]")
        if character in ":@" and depth == 0:
            if i:
                parts.append((rest[start], rest[start + 1 : i].strip()))
            start = i
    if rest:
        if rest[0] not in ":@":
            raise UsageError(f"variant {text.strip()!r}: {HOW}")
        parts.append((rest[start], rest[start + 1 :].strip()))
    return parts


def _split(text: str, mark: str) -> list[str]:
    """Split at a mark that stands outside brackets."""
    parts, depth, start = [], 0, 0
    for i, character in enumerate(text):
        depth += (character in "[{(") - (character in ")}]")
        if character == mark and depth == 0:
            parts.append(text[start:i])
            start = i + 1
    return [*parts, text[start:]]


def is_built_in(method: str) -> bool:
    """Tell whether a method comes with excite. Its options take lists as text, too; those of one's own need not."""
    return method in METHODS and not is_own(method)


def in_words(options: Mapping[str, Option]) -> dict[str, Option]:
    """Return options with lists as the text that stands for them on a command line: [3, 5] is 3,5."""
    return {
        name: _unbracketed(value) if isinstance(value, list | tuple) and not any(map(_nested, value)) else value
        for name, value in options.items()
    }


def _nested(value: Option) -> bool:
    return isinstance(value, list | tuple | Mapping) or "," in str(value)


def _unbracketed(value: Option) -> Option:
    """A list of words in brackets is the text between them: [3,5,5,7] as on any command line, 3,5,5,7."""
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    if isinstance(value, str) and value.startswith("[") and value.endswith("]"):
        return value[1:-1]
    return value


def _bracketed(value: Option) -> str:
    text = ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return f"[{text}]" if re.search(r"[,;:@]", text) else text


def _told_apart(value: Option) -> str:
    text = _bracketed(value)
    like = isinstance(value, list | tuple) or (isinstance(value, str) and parse_value(text) != value and text == value)
    return f"[{text}]" if like and not text.startswith("[") else text
