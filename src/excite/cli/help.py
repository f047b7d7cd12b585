"""The help of a command: its options in groups, and examples."""

import textwrap
from collections.abc import Callable, Sequence
from typing import Any

from excite.cli.signature import REQUIRED, Option, examples, section
from excite.cli.words import metavar
from excite.common.tables import text_width

# Any: commands are functions of every signature.

GROUPS: dict[str, str] = {
    "model": "model options placement attach attach_sites attach_options init pretrained weights num_classes "
    "start in_channels kind neck neck_attention neck_attention_options frozen_stages frozen_norms freeze "
    "freeze_backbone_epochs checkpoint methods backbone layer compare baseline class_names channels move_squeezes",
    "data": "data split val_fraction test_fraction train_split val_split limit limit_train limit_val limit_batches "
    "size resize window cache min_size max_size augment padding flip vertical_flip colour mixup cutmix randaugment "
    "corruptions severities corrupted probes results comparisons masks skip_unreadable max_bad decoder classes source "
    "shard_size images image_bytes",
    "optimisation": "recipe epochs batch_size optimizer lr momentum nesterov weight_decay no_decay schedule "
    "step_epochs milestones gamma warmup_epochs warmup_steps backbone_lr_factor layer_decay loss focal_gamma "
    "balance label_smoothing ema accumulate clip best patience val_every seed seeds until_clear budget train "
    "sync_bn non_finite trace_non_finite grad_norm",
    "hardware": "device devices nodes strategy workers precision channels_last compile deterministic threads jobs ray "
    "store engine mode memory task rounds warmup min_time dynamic gpus card utilisation step_rate decode_rate cores "
    "gpus_per_node inside between storage host port",
    "output": "out overwrite resume checkpoint_every quiet logger json format top pictures threshold report plot "
    "accuracy_plot accuracy csv depth convention only table document bibtex svg verify private license message",
}
GROUP_OF = {name: group for group, names in GROUPS.items() for name in names.split()}
COLUMN = 30  # where explanations start
NARROW, INDENT = 70, 6  # in fewer columns than that they have lines of their own, so far from the left


def help_text(function: Callable[..., Any], prog: str, options: Sequence[Option]) -> str:
    """Return what `--help` prints."""
    alone = [o for o in options if o.positional]
    lines = [" ".join(["usage:", prog, *map(_usage, alone), "[options]"]), ""]
    lines += _paragraphs(section(function.__doc__ or "", ""))
    if alone:
        lines += [line for o in alone for line in _option(metavar(o) + ("..." if o.element else ""), o)]
    for group in GROUPS:
        members = [o for o in options if not o.positional and GROUP_OF.get(o.name, "output") == group]
        if members:
            lines += ["", f"{group}:", *(line for o in members for line in _option(_spelling(o), o))]
    lines += ["", "always:"]
    lines += entry("--config FILE.yaml", "options from a file; those on the command line win")
    lines += entry("--print_config", "print the options as such a file and stop")
    lines += entry("-h, --help", "print this and stop")
    lines += entry("--", "ends the options; the words after it stand alone")
    commands = examples(function)
    if commands:
        lines += ["", "examples:", *(f"  {command}" for command in commands)]
    return "\n".join(lines)


def _usage(option: Option) -> str:
    text = metavar(option) + ("..." if option.element else "")
    return text if option.default is REQUIRED else f"[{text}]"


def _spelling(option: Option) -> str:
    if option.kind is bool:
        return f"--no-{option.flag[2:]}" if option.default is True else option.flag
    if option.is_mapping:
        return f"{option.flag}.NAME VALUE"
    dots = "..." if option.element else ""
    short = "-o, " if option.name == "out" else ""
    return f"{short}{option.flag} {metavar(option)}{dots}"


def _option(left: str, option: Option) -> list[str]:
    text = option.help.removesuffix(".")
    default = option.default
    if option.kind is bool and default is True:
        text = f"do not {text}"
    elif default is not REQUIRED and default:
        shown = " ".join(map(str, default)) if isinstance(default, list) else default
        text += f" (default: {shown})"
    return entry(left, text)


def entry(left: str, text: str, column: int = COLUMN) -> list[str]:
    """Return a name and its explanation, in a column of its own where the terminal is wide enough."""
    width = text_width(100)
    column = column if width >= NARROW else INDENT
    indent = " " * column
    lines = textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=indent) or [indent]
    if len(left) + 4 > column:
        return [f"  {left}", *lines]
    return [f"  {left:<{column - 2}}{lines[0][column:]}".rstrip(), *lines[1:]]


def _paragraphs(lines: Sequence[str]) -> list[str]:
    text = "\n".join(lines).strip()
    wrapped: list[str] = []
    for paragraph in text.split("\n\n"):
        wrapped += [*textwrap.wrap(" ".join(paragraph.split()), text_width(100)), ""]
    return wrapped
