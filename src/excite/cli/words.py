"""The words of a command line: which are options, which are their values, and which stand alone.

Options and words that stand alone may come in any order. An option takes one value (`--top 2`, `--top=2`), a flag none.
A list takes the words that fit it: numbers, its choices; a list of texts takes all up to the next option or `--`.
`--batch-size` and `--batch_size` are the same; all words after `--` stand alone.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

from excite.cli.signature import REQUIRED, Option
from excite.common.options import FORMER_OPTIONS, current, merge, parse_value
from excite.errors import UsageError, near

# Any: options have every kind of type and value.

SHORT = {"-o": "--out", "-h": "--help", "--backbones": "--backbone"}
OWN = {"config": "--config", "print_config": "--print_config", "help": "--help"}


class Theirs(NamedTuple):
    """An option of the authors' scripts: ours that stands for it, and how it is written."""

    name: str
    words: str


_ARCH = Theirs("model", "a word that stands alone, as in `excite train eca_resnet50`")
_KERNELS = Theirs("options", "--options.kernel_size 3557")
# Options of PyTorch's ImageNet example and of the scripts that were written after it (ECA-Net, EMCA, CBAM, SA-Net).
AUTHORS = {
    "-a": _ARCH,
    "arch": _ARCH,
    "ksize": _KERNELS,
    "-b": Theirs("batch_size", "--batch-size N"),
    "-j": Theirs("workers", "--workers N"),
    "learning_rate": Theirs("lr", "--lr X"),
    "wd": Theirs("weight_decay", "--weight-decay X"),
    "att_type": Theirs("model", "part of the network's name, as in `excite train cbam_resnet50`"),
    "gpu": Theirs("device", "--device cuda"),
}

METAVARS = {
    "data": "SPEC",
    "lr": "X|find",
    "attach": "METHOD",
    "neck_attention": "METHOD",
    "methods": "METHOD,...",
    "backbone": "NETWORK",
    "model": "NETWORK",
    "attach_sites": "SITES",
    "out": "PATH",
    "plot": "PATH",
    "svg": "FILE",
    "accuracy_plot": "PATH",
    "corrupted": "FOLDER",
    "report": "FOLDER",
    "resume": "RUN",
    "recipe": "NAME",
    "init": "CHECKPOINT",
    "checkpoint": "CHECKPOINT",
    "compare": "CHECKPOINT",
    "baseline": "CHECKPOINT",
    "layer": "NAME",
    "classes": "NAME",
    "split": "NAME",
    "train_split": "NAME",
    "val_split": "NAME",
    "convention": "NAME",
    "probes": "NAME",
    "corruptions": "NAME",
    "size": "N|HxW",
    "accuracy": "NAME=PERCENT",
    "ray": "ADDRESS",
    "store": "ADDRESS",
}


@dataclass
class CommandLine:
    """What was given. values: (option, the name after its dot, the words of its value), in order."""

    values: list[tuple[Option, str, list[str]]] = field(default_factory=list)
    configs: list[str] = field(default_factory=list)
    print_config: str | None = None
    help: bool = False

    def names(self) -> dict[str, Any]:
        """Return what the options were given, as text, by the option's name."""
        return {option.name: " ".join(words) for option, _, words in self.values}


def read_words(argv: Sequence[str], options: Sequence[Option], prog: str) -> CommandLine:
    """Sort the words of `argv`. Raises UsageError for unknown options, missing values and words too many."""
    known = {option.name: option for option in options}
    line = CommandLine()
    alone: list[str] = []
    queue = list(argv)
    while queue:
        word = queue.pop(0)
        if word == "--":
            alone += queue
            break
        if not is_option(word):
            alone.append(word)
            continue
        spelling, equals, value = word.partition("=")
        spelling = SHORT.get(spelling, spelling)
        name, _, key = spelling.removeprefix("--").partition(".")
        name = name.replace("-", "_")
        if name in OWN:
            _own(line, name, spelling, value, bool(equals), queue)
            continue
        negated = name.removeprefix("no_") if name not in known else ""
        if negated in known and known[negated].kind is bool and negated != name:
            line.values.append((known[negated], "", ["false"]))
            continue
        if name not in known:
            raise _unknown(spelling, name, options, prog)
        option = known[name]
        if key and not option.is_mapping:
            raise UsageError(f"{spelling}: {option.flag} has no parts; expected {option.flag} {metavar(option)}")
        words = [value] if equals else _take(option, key, queue)
        line.values.append((option, _key(key), current(name, words)))
    _assign(alone, options, line, prog)
    return line


def is_option(word: str) -> bool:
    """Return whether a word is an option; negative numbers are values."""
    return len(word) > 1 and word.startswith("-") and not re.match(r"-\.?\d", word)


def metavar(option: Option) -> str:
    """Return what stands for the value in a line of help."""
    if option.kind is bool:
        return ""
    if option.is_mapping:
        return "VALUE"
    if option.positional:
        text = option.name[:-1] if option.element else option.name
        return text.upper()
    if option.choices:
        return "|".join(map(str, option.choices))
    kind = option.element or option.kind
    if kind in (int, float):
        return "N" if kind is int else "X"
    return METAVARS.get(option.name, "TEXT" if kind is str else "PATH")


def tokens(line: CommandLine, below: Mapping[str, Mapping[str, Any] | None] = MappingProxyType({})) -> list[str]:
    """Return the command line as jsonargparse reads it: one word per option, as `--name=value`.

    below: what files and defaults say of the options that are mappings; named parts are laid over it.
    """
    words: list[str] = []
    lists: dict[str, list[str]] = {}
    mappings = dict(below)
    for option, key, values in line.values:
        name = option.name
        if option.element:
            lists[name] = [*lists.get(name, []), *values]
            numbers = option.element in (int, float)
            words.append(f"--{name}=" + (f"[{','.join(lists[name])}]" if numbers else json.dumps(lists[name])))
        elif option.is_mapping and (key or isinstance(parse_value(values[0]), dict)):
            part = parse_value(values[0])
            for piece in reversed(key.split(".") if key else []):
                part = {piece: part}
            mappings[name] = merge(mappings.get(name), part)
            words.append(f"--{name}={json.dumps(mappings[name])}")
        else:
            words.append(f"--{name}={values[0]}")
    if line.print_config is not None:
        words.append("--print_config" + line.print_config)
    return words


def _own(line: CommandLine, name: str, spelling: str, value: str, given: bool, queue: list[str]) -> None:
    """The options that every command has."""
    if name == "help":
        line.help = True
    elif name == "print_config":
        line.print_config = f"={value}" if given else ""
    elif given or (queue and not is_option(queue[0])):
        line.configs.append(value if given else queue.pop(0))
    else:
        raise UsageError(f"{spelling} needs a FILE.yaml")


def _take(option: Option, key: str, queue: list[str]) -> list[str]:
    """Take the option's values from the words that follow."""
    if option.kind is bool:
        return [queue.pop(0)] if queue and queue[0] in ("true", "false") else ["true"]
    if option.element:
        words: list[str] = []
        while queue and not is_option(queue[0]) and (not words or _belongs(queue[0], option)):
            words.append(queue.pop(0))
        return words
    if not queue or is_option(queue[0]):
        raise UsageError(f"{option.flag}{'.' + key if key else ''} needs a value: {metavar(option)}")
    value = queue.pop(0)
    if option.is_mapping and not key and not value.lstrip().startswith("{"):
        name, _, text = value.partition("=")
        example = f"{option.flag}.{name} {text or 'VALUE'}"
        raise UsageError(f"{option.flag} {value}: options are given by name, as {example}")
    return [value]


def _belongs(word: str, option: Option) -> bool:
    """Return whether a word is one more value of a list; one that is nearly a choice is, and its error says which."""
    if option.choices:
        return current(option.name, word) in option.choices or bool(near(word, map(str, option.choices), 1))
    return option.element not in (int, float) or re.fullmatch(r"[-+.\d][-+.,\deE]*", word) is not None


def _key(key: str) -> str:
    """The name after the dot; dashes in its last part are underscores."""
    head, dot, last = key.rpartition(".")
    return head + dot + last.replace("-", "_")


def _assign(alone: list[str], options: Sequence[Option], line: CommandLine, prog: str) -> None:
    """Give the words that stand alone to the positional options, in order."""
    named = {option.name for option, _, _ in line.values}
    waiting = [o for o in options if o.positional and o.name not in named]
    for option in waiting:
        if not alone:
            break
        taken, alone = (alone, []) if option.element else (alone[:1], alone[1:])
        line.values.append((option, "", taken))
    if alone:
        takes = " ".join(f"{metavar(o)}" for o in options if o.positional) or "options only"
        raise UsageError(f"{prog} has no place for {alone[0]!r}; it takes {takes} (`{prog} --help`)")


def missing(options: Sequence[Option], values: dict[str, Any], line: CommandLine, prog: str) -> UsageError | None:
    """Return the error for the first option that must be given and was not; a list may have taken its words."""
    absent = next((o for o in options if o.default is REQUIRED and values[o.name] in (None, [])), None)
    if absent is None:
        return None
    what = metavar(absent) if absent.positional else absent.flag
    greedy = next((o for o, _, words in line.values if o.element is str and not o.positional and len(words) > 1), None)
    hint = f"; {greedy.flag} takes all words up to the next option or --" if greedy is not None else ""
    return UsageError(f"{prog} needs {what}: {absent.help}{hint}")


def _unknown(spelling: str, name: str, options: Sequence[Option], prog: str) -> UsageError:
    if name in FORMER_OPTIONS:
        return UsageError(f"{spelling} is now {FORMER_OPTIONS[name]} (`{prog} --help` shows the options)")
    flags = [o.flag for o in options if not o.positional] + list(OWN.values())
    theirs = AUTHORS.get(name if spelling.startswith("--") else spelling)
    if theirs is not None and any(o.name == theirs.name and (o.positional or o.name != "model") for o in options):
        return UsageError(f"unknown option {spelling}; here it is {theirs.words} (`{prog} --help` shows the options)")
    close = near(spelling, flags) if spelling.startswith("--") else []
    hint = f"; did you mean {' or '.join(close)}?" if close else ""
    return UsageError(f"unknown option {spelling}{hint} (`{prog} --help` shows the options)")
