"""What the configurations of runs share: they are dataclasses, filled from recipes, files and earlier runs."""

import contextlib
import numbers
import os
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Self, TypeVar

from excite.card import code_refused, command_refused, is_plain
from excite.common.checks import LARGEST, MOST, describe, shown
from excite.common.holdout import read_cut
from excite.common.options import Option, Precision, current, flag
from excite.common.pyfile import is_python
from excite.engine.optimizers import check_optimizer
from excite.errors import UsageError, near

# Any: annotations are objects of many classes.

Values = dict[str, Option]  # options by name, as YAML holds them


@dataclass(kw_only=True)
class RunConfig:
    """A training run of any kind.

    Args:
        recipe: a recipe's name or YAML file; auto takes one that fits the data (and network).
        out: run directory; by default runs/ and a name made of network and data, numbered where that exists.
        overwrite: empty the run directory first if it exists.
        resume: go on with the run in this directory, exactly where its last checkpoint stands.
        epochs: passes over the training images.
        batch_size: images per step, of all processes together.
        optimizer: sgd, adam, adamw, or one of timm's by its name there (lamb, lion, muon, ...).
        lr: peak learning rate; auto scales the recipe's with the images per step (the linear rule); find takes that at
            which the loss falls most steeply in a short trial (classifiers).
        momentum: momentum of SGD and its kin (first beta of Adam and its kin).
        nesterov: Nesterov momentum (SGD).
        weight_decay: weight decay.
        no_decay: parameters without weight decay, any of norm, bias, attention.
        schedule: learning rate over the epochs; step and exponential multiply it by gamma, again and again.
        step_epochs: epochs between two drops of the step and exponential schedules.
        milestones: epochs after which the step schedule drops, instead of every step_epochs.
        gamma: factor of a drop.
        warmup_epochs: epochs in which the learning rate rises linearly from 0 to lr.
        warmup_steps: steps in which it rises linearly from a thousandth of lr (at most a third of the run).
        accumulate: batches per optimizer step.
        clip: largest gradient norm; 0 is off.
        ema: decay of the exponential moving average of the weights (0.9999); 0 is off.
        precision: fp32, or mixed precision with bf16 or fp16.
        channels_last: keep maps in channels-last memory order.
        compile: run the network through torch.compile (of a detector, its backbone).
        device: where to run; auto takes a GPU if there is one.
        devices: how many devices of this machine, a process for each; under torchrun leave it out.
        nodes: how many machines, each with so many devices.
        sync_bn: batch norms take their statistics from the images of all processes.
        workers: processes that read images; -1 takes one per processor, less one.
        seed: seed of weights, order and augmentation.
        deterministic: only deterministic algorithms.
        limit_train: use that many training images only.
        limit_val: use that many validation images only.
        limit_batches: end each epoch after that many training batches.
        checkpoint_every: write a checkpoint inside epochs too, after so long or so many steps: 30m, 1000s, 500steps.
        non_finite: what a step does whose loss or gradient is not finite: stop ends the run, skip leaves the step out.
        trace_non_finite: name the layer where it began (slower: every layer is watched).
        grad_norm: record the norm of the gradient, before it is clipped.
        patience: stop after that many validations in a row without a better score; 0 goes on to the last epoch.
        logger: where the numbers go beside metrics.csv; wandb and mlflow are extras of their own.
        skip_unreadable: go on without images that cannot be read; the summary counts them.
        quiet: print nothing.
    """

    # What may differ when a run goes on: how and where it is computed. What is learned may not.
    FREE_ON_RESUME: ClassVar[tuple[str, ...]] = (
        "device", "workers", "precision", "compile", "channels_last", "deterministic", "skip_unreadable", "patience",
        "logger", "devices", "nodes", "checkpoint_every", "non_finite", "trace_non_finite", "grad_norm",
    )  # fmt: skip
    # Options about this very call, not about the run.
    NOT_RECORDED: ClassVar[tuple[str, ...]] = ("out", "overwrite", "resume", "quiet")

    recipe: str = "auto"
    out: str | None = None
    overwrite: bool = False
    resume: str | None = None
    epochs: int = 30
    batch_size: int = 64
    optimizer: str = "sgd"
    lr: float | Literal["auto", "find"] = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 1e-4
    no_decay: list[Literal["norm", "bias", "attention"]] = field(default_factory=list)
    schedule: Literal["cosine", "step", "exponential", "constant"] = "cosine"
    step_epochs: float = 30.0
    milestones: list[int] = field(default_factory=list)
    gamma: float = 0.1
    warmup_epochs: float = 0.0
    warmup_steps: int | None = None
    accumulate: int = 1
    clip: float = 0.0
    ema: float = 0.0
    precision: Precision = "fp32"
    channels_last: bool = False
    compile: bool = False
    device: Literal["auto", "cpu", "cuda"] = "auto"
    devices: int = 1
    nodes: int = 1
    sync_bn: bool = False
    workers: int = -1
    seed: int = 0
    deterministic: bool = False
    limit_train: int | None = None
    limit_val: int | None = None
    limit_batches: int | None = None
    checkpoint_every: str | None = None
    non_finite: Literal["stop", "skip"] = "stop"
    trace_non_finite: bool = False
    grad_norm: bool = False
    patience: int = 0
    logger: Literal["tensorboard", "wandb", "mlflow", "none"] = "tensorboard"
    skip_unreadable: bool = False
    quiet: bool = False

    @classmethod
    def from_run(cls, run: str | Path, **changes: Option) -> Self:
        """Return the configuration of an earlier run, set to resume it. Raises UsageError where there is none."""
        return cls(**{**read_run(cls, run, changes), "resume": str(run), **changes})

    @property
    def stem(self) -> str:
        """The name of a run that was given none."""
        raise NotImplementedError

    @property
    def peak_lr(self) -> float:
        """The learning rate as a number, once it is found."""
        assert not isinstance(self.lr, str)
        return self.lr

    @property
    def images_per_step(self) -> int:
        """The images of an optimizer step, of all processes."""
        return self.batch_size * self.accumulate

    @property
    def processes(self) -> int:
        """The processes of the run, on all machines."""
        return self.devices * self.nodes

    @property
    def own_batch(self) -> int:
        """The images per step of one process."""
        return self.batch_size // self.processes

    def to_dict(self) -> Values:
        """Return all values as plain containers."""
        return asdict(self)

    def recorded(self) -> Values:
        """Return the values that belong to the run, as its config.yaml holds them."""
        return {k: v for k, v in self.to_dict().items() if k not in self.NOT_RECORDED}

    def check(self) -> None:
        """Raise UsageError for the first value that cannot work."""
        check_words(self)
        check_values(type(self), self.to_dict(), flag)
        at_least(self, 1, "epochs", "batch_size", "accumulate", "devices", "nodes")
        at_least(self, 0, "weight_decay", "warmup_epochs", "clip", "seed", "patience")
        if not isinstance(self.lr, str):
            at_least(self, 0, "lr")
        at_least(self, -1, "workers")
        at_most(self, 1024, "workers", "devices")
        at_most(self, 2**16, "nodes")
        at_most(self, LARGEST, "batch_size", "epochs")
        if self.warmup_steps is not None:
            at_least(self, 0, "warmup_steps")
        at_least(self, 1, *(n for n in ("limit_train", "limit_val", "limit_batches") if getattr(self, n) is not None))
        below_one(self, "ema", "momentum")
        check_optimizer(self.optimizer, self.momentum)
        if self.checkpoint_every is not None:
            interval(self.checkpoint_every)
        if self.batch_size % self.processes:
            near_by = max(self.own_batch, 1) * self.processes
            raise UsageError(
                f"--batch-size {self.batch_size} is for all processes together, and {self.processes} cannot share it "
                f"evenly; take {near_by} or {near_by + self.processes}"
            )
        if self.seed >= 2**32:
            raise UsageError(f"--seed must be less than 2**32, got {self.seed}")
        if self.step_epochs <= 0:
            raise UsageError(f"--step-epochs must be more than 0, got {self.step_epochs}")
        if self.gamma <= 0:
            raise UsageError(f"--gamma must be more than 0, got {self.gamma}")
        if self.warmup_epochs and self.warmup_steps:
            raise UsageError("--warmup-epochs and --warmup-steps exclude each other; set one of them to 0")
        if self.resume and self.overwrite:
            raise UsageError("--resume and --overwrite exclude each other")


AnyConfig = TypeVar("AnyConfig", bound=RunConfig)


class Interval(NamedTuple):
    """A time in seconds or a number of steps."""

    seconds: float | None
    steps: int | None


def interval(text: str) -> Interval:
    """Return what 30m, 1000s, 2h or 500steps says. Raises UsageError for anything else."""
    match = re.fullmatch(r"(\d{1,9}) ?(s|m|h|steps?)", text)
    if match is None or not int(match[1]):
        raise UsageError(f"--checkpoint-every {text}: expected a time or a number of steps: 1000s, 30m, 2h, 500steps")
    number, unit = int(match[1]), match[2]
    if unit.startswith("step"):
        return Interval(None, number)
    return Interval(number * {"s": 1, "m": 60, "h": 3600}[unit], None)


def check_words(config: RunConfig) -> None:
    """Raise UsageError for the first value that is not one of the words that its option takes."""
    for name, kind in typing.get_type_hints(type(config)).items():
        inner = typing.get_args(kind)[0] if typing.get_origin(kind) is list else kind
        if typing.get_origin(inner) is not Literal:
            continue
        known = typing.get_args(inner)
        for value in getattr(config, name) if inner is not kind else [getattr(config, name)]:
            if value not in known:
                close = near(str(value), known, 1)
                hint = f"; did you mean {close[0]!r}?" if close else ""
                raise UsageError(f"{flag(name)} {value}: expected one of {', '.join(map(repr, known))}{hint}")


def at_least(config: object, least: int, *names: str) -> None:
    """Raise UsageError for the first of the fields that is less than `least`, or nan."""
    for name in names:
        if not getattr(config, name) >= least:
            raise UsageError(f"{flag(name)} must be at least {least}, got {getattr(config, name)}")


def at_most(config: object, most: int, *names: str) -> None:
    """Raise UsageError for the first of the fields that is more than `most`: a slip that would fill the machine."""
    for name in names:
        if getattr(config, name) > most:
            raise UsageError(f"{flag(name)} must be at most {most}, got {getattr(config, name)}")


def below_one(config: object, *names: str) -> None:
    """Raise UsageError for the first of the fields that is not in [0, 1)."""
    for name in names:
        if not 0 <= getattr(config, name) < 1:
            raise UsageError(f"{flag(name)} must be in [0, 1), got {getattr(config, name)}")


def check_values(kind: type[RunConfig], values: Mapping[str, object], name_of: Callable[[str], str]) -> None:
    """Raise UsageError for the first value that is not of its option's type: the one schema of options.

    name_of: what messages call an option.
    """
    for name, annotation in typing.get_type_hints(kind).items():
        if name in values and not _is(values[name], annotation):
            raise UsageError(f"{name_of(name)} {shown(values[name])}: expected {describe(annotation)}")


def _is(value: object, annotation: Any) -> bool:
    """True where a value is of an option's type; numbers must be finite and of usual size."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return isinstance(value, str | int | float) and value in arguments
    if origin in (typing.Union, types.UnionType):
        return any(_is(value, argument) for argument in arguments)
    if origin is list:
        return isinstance(value, list | tuple) and all(_is(entry, arguments[0]) for entry in value)
    if origin is dict:
        return isinstance(value, Mapping)
    if annotation is bool:
        return isinstance(value, bool)
    if annotation in (int, float):
        kind = numbers.Integral if annotation is int else numbers.Real  # numpy's are among them
        return isinstance(value, kind) and not isinstance(value, bool) and bool(abs(value) <= MOST)  # type: ignore[operator]  # mypy knows no numbers of `numbers`
    if annotation is str:
        return isinstance(value, str | os.PathLike)
    return value is None or annotation is not types.NoneType


def file_values(kind: type[RunConfig], content: object, where: str, given: Iterable[str] = ()) -> Values:
    """Return the values that a recipe's or a run's file holds, under today's names.

    given: options that somebody names beside it. Raises UsageError for what is no mapping of options to values of their
    types, ExciteError where network or data are a Python file and nobody named others: what a file names is not run.
    """
    if not isinstance(content, dict) or not is_plain(content):
        raise UsageError(f"{where} is not a mapping of option: value")
    refuse_code(content, where, given)
    values = check_keys(kind, content, where)
    for name, annotation in typing.get_type_hints(kind).items():
        # In YAML a number such as 1e-4, without a dot, is a text.
        if float in (annotation, *typing.get_args(annotation)) and isinstance(values.get(name), str):
            with contextlib.suppress(ValueError):
                values[name] = float(values[name])
    check_values(kind, values, lambda name: f"{where}: {name}")
    return values


def refuse_code(content: Mapping[str, object], where: str, given: Iterable[str] = ()) -> None:
    """Raise ExciteError where a file names code as network, method or data that nobody names beside it."""
    for option in ("model", "backbone"):
        if ":" in str(content.get(option, "")) and option not in given:
            raise code_refused(where, str(content[option]), flag(option))
    if "attach" not in given and is_python(str(content.get("attach", ""))):
        raise code_refused(where, str(content["attach"]), "--attach")
    data = str(content.get("data", ""))
    if "data" not in given and is_code(data):
        raise command_refused(where, data) if "wds:pipe:" in data else code_refused(where, read_cut(data)[0], "--data")


def is_code(data: str) -> bool:
    """Return whether a data spec names a Python file or a command, which would be run."""
    return is_python(read_cut(data)[0]) or "wds:pipe:" in data


def check_keys(kind: type[RunConfig], values: Values, where: str) -> Values:
    """Return `values` under today's names if each key is an option of `kind`. Raises UsageError with near names."""
    known = [f.name for f in fields(kind)]
    renamed = modernise(values)
    for key in renamed:
        if key not in known:
            close = near(str(key), known)
            raise UsageError(
                f"{where}: unknown option {shown(key)}" + (f"; did you mean {close[0]!r}?" if close else "")
            )
    return renamed


def modernise(values: Mapping[str, Option]) -> Values:
    """Return the values of a recipe or run of an earlier version in today's words.

    accelerator: gpu is device: cuda, a limit of 0 (all images) is none, and values have the words of `current`.
    """
    renamed = {name: current(name, value) for name, value in values.items()}
    if "accelerator" in renamed:
        word = renamed.pop("accelerator")
        renamed.setdefault("device", "cuda" if word == "gpu" else word)
    for name in ("limit_train", "limit_val"):
        if renamed.get(name) == 0:
            renamed[name] = None
    return renamed


def read_run(kind: type[RunConfig], run: str | Path, given: Iterable[str] = ()) -> Values:
    """Return the values in a run directory's config.yaml. Raises UsageError where it is missing or not one.

    given: options that somebody names beside it. Raises ExciteError where none of them replaces a network that is a
    Python file: what a file names is not run.
    """
    import yaml

    file = Path(run) / "config.yaml"
    if not file.is_file():
        raise UsageError(f"{run} is not a run directory: it has no config.yaml")
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: no UTF-8, or a date that is none
        raise UsageError(f"{file} is not YAML: {' '.join(str(error).split())}") from None
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror or error}") from None
    return file_values(kind, content, str(file), given)


def check_resume(config: RunConfig) -> None:
    """Raise UsageError where a run to resume was made with other options than those of `config`.

    How and where the run is computed may change (`FREE_ON_RESUME`), and `epochs` may grow: the learning rate then
    follows the schedule of the new length from where the run stands. A value that is not used is never recorded.
    """
    if config.resume is None:
        return
    for name, before, value in differences(config, config.resume):
        if name != "epochs":
            remedy = f"a resumed run may change {', '.join(map(flag, (*config.FREE_ON_RESUME, 'epochs')))} only"
            raise UsageError(f"{config.resume} was made with {flag(name)} {before}, not {value}; {remedy}")
        if value < before:
            raise UsageError(f"{config.resume} was made with --epochs {before}; they may only grow, got {value}")


def differences(config: RunConfig, run: str | Path) -> list[tuple[str, Any, Any]]:
    """Return [(option, value of the run, value of `config`), ...] where a run directory was made with other options.

    How and where a run is computed (`FREE_ON_RESUME`) makes no difference. Raises UsageError for no run directory.
    """
    kind = type(config)
    before = kind(**read_run(kind, run, ("model", "backbone", "data"))).recorded()
    now = {name: value for name, value in config.recorded().items() if name not in config.FREE_ON_RESUME}
    return [(name, before[name], value) for name, value in now.items() if plain(value) != plain(before[name])]


def plain(value: object) -> object:
    """Return a value as YAML gives it back: tuples are lists there."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    return [plain(v) for v in value] if isinstance(value, list | tuple) else value
