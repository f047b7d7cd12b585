"""What a comparison consists of: methods x seeds, everything else equal; written down so that it can go on."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from excite.backbones.names import BACKBONES
from excite.common.checks import shown
from excite.common.files import write_json
from excite.common.options import Option
from excite.engine.config import modernise
from excite.errors import ExciteError, UsageError, unknown
from excite.registry import METHODS
from excite.train.config import TrainConfig

BASELINE = "none"
METHODS_BY_DEFAULT = (BASELINE, "se", "eca", "emca_eca")
DIGITS_EPOCHS = 10  # enough to tell methods apart, and twelve runs end within minutes on two cores
FILE = "plan.json"
MOST_SEEDS = 10_000
# What every run decides for itself; a comparison that set them would not be one.
RESERVED = ("model", "data", "recipe", "seed", "out", "resume", "overwrite", "quiet", "options", "init")


@dataclass(frozen=True)
class Run:
    """One training run of a comparison."""

    method: str
    seed: int
    folder: Path

    @property
    def name(self) -> str:
        """Return the run's name for people."""
        return f"{self.method}, seed {self.seed}"

    @property
    def finished(self) -> bool:
        """Tell whether the run has ended: its summary is written last."""
        return (self.folder / "summary.json").is_file()


@dataclass(frozen=True)
class Plan:
    """A comparison: methods on one backbone, trained on one data set by one recipe, once per seed.

    changes: options of every run that differ from the recipe; options: per method, the method's own options.
    The first method is the baseline that the others are paired with.
    """

    methods: tuple[str, ...]
    backbone: str
    data: str
    recipe: str = "auto"
    seeds: int = 3
    changes: dict[str, Option] = field(default_factory=dict)
    options: dict[str, dict[str, Option]] = field(default_factory=dict)

    def check(self) -> None:
        """Raise UsageError for what can be known to fail before anything is trained."""
        if not self.methods:
            raise UsageError("a comparison needs methods, as --methods none,se,eca")
        if len(set(self.methods)) < len(self.methods):
            raise UsageError(f"a method is named twice in {','.join(self.methods)}")
        if self.seeds < 1:
            raise UsageError(f"--seeds {self.seeds}: at least one run per method is needed")
        foreign = self.backbone.startswith(("timm/", "torchvision/")) or ":" in self.backbone
        if self.backbone not in BACKBONES and not foreign:
            raise unknown("backbone", self.backbone, BACKBONES)
        for method in (*self.methods, *self.options):
            if method not in METHODS:
                raise unknown("method", method, METHODS)
        for name in self.changes:
            if name in RESERVED:
                raise UsageError(f"--train.{name}: a comparison decides that itself")
        self.config(self.methods[0], 0, Path("unused")).check()

    def config(self, method: str, seed: int, folder: Path) -> TrainConfig:
        """Return the configuration of one run."""
        foreign = self.backbone not in BACKBONES
        if foreign:
            attach = None if method == BASELINE else method
            where: dict[str, Option] = {"attach": attach, "attach_options": self.options.get(method, {})}
            model = self.backbone
        else:
            model = self.backbone if method == BASELINE else f"{method}_{self.backbone}"
            where = {"options": self.options.get(method, {})}
        values = {"data": self.data, "seed": seed, "out": str(folder), "quiet": True, **where, **self.changes}
        return TrainConfig.from_recipe(model, self.recipe, **values)

    @property
    def folder(self) -> Path:
        """The folder of a comparison that was given none: compare/BACKBONE-DATA."""
        kind, _, path = self.data.partition(":")
        stem = f"{Path(self.backbone).name}-{Path(path).name if path else kind}"
        return Path("compare") / re.sub(r"[^\w.]+", "-", stem).strip("-")

    def runs(self, folder: Path) -> list[Run]:
        """Return all runs, seed by seed, so that an unfinished comparison is as balanced as it can be."""
        return [
            Run(method, seed, folder / "runs" / f"{method}-seed{seed}")
            for seed in range(self.seeds)
            for method in self.methods
        ]

    def to_dict(self) -> dict[str, object]:
        """Return the plan as plain containers."""
        return {
            "methods": list(self.methods),
            "backbone": self.backbone,
            "data": self.data,
            "recipe": self.recipe,
            "seeds": self.seeds,
            "changes": self.changes,
            "options": self.options,
        }


def make_plan(
    methods: Sequence[str] = METHODS_BY_DEFAULT,
    backbone: str = "resnet20",
    data: str = "digits",
    recipe: str = "auto",
    *,
    seeds: int = 3,
    epochs: int | None = None,
    train: Mapping[str, Option] | None = None,
    options: Mapping[str, Mapping[str, Option]] | None = None,
) -> Plan:
    """Return a plan; the digits, which are for trying things out, take few epochs unless `epochs` says otherwise.

    train: options of every run that differ from the recipe; options: per method, the method's own.
    """
    changes = modernise(train or {})
    if epochs is not None:
        changes["epochs"] = epochs
    elif (data, recipe) == ("digits", "auto"):
        changes.setdefault("epochs", DIGITS_EPOCHS)
    own = {method: dict(values) for method, values in (options or {}).items()}
    return Plan(tuple(methods), backbone, data, recipe, seeds, changes, own)


def save(plan: Plan, folder: Path) -> None:
    """Write the plan into the comparison's folder.

    Where one stands there already the new one must continue it: the same except for more methods or more seeds.
    Raises UsageError where it does not.
    """
    file = folder / FILE
    if file.is_file():
        old = load(folder)
        grown = set(old.methods) <= set(plan.methods) and old.seeds <= plan.seeds
        differing = [n for n in ("backbone", "data", "recipe", "changes") if getattr(old, n) != getattr(plan, n)]
        differing += [method for method, options in old.options.items() if options != plan.options.get(method)]
        if not grown or differing or old.methods[0] != plan.methods[0]:
            what = ", ".join(differing) or "methods and seeds may be added, not taken away"
            raise UsageError(f"{folder} holds another comparison ({what}); choose another --out")
    elif folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder} exists and is no comparison; choose another --out")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(file, plan.to_dict())


def load(folder: Path) -> Plan:
    """Read a comparison's plan. Raises UsageError where there is none, ExciteError where it is broken."""
    file = folder / FILE
    if not file.is_file():
        raise UsageError(f"{folder} is no comparison: it has no {FILE}")
    values = read_values(file)
    known = {
        "methods": list,
        "backbone": str,
        "data": str,
        "recipe": str,
        "seeds": int,
        "changes": dict,
        "options": dict,
    }
    for name, value in values.items():
        if name not in known or not isinstance(value, known[name]) or isinstance(value, bool):
            raise ExciteError(f"{file} is broken: {shown(name)} is {shown(value)}")
    if missing := {"methods", "backbone", "data"} - set(values):
        raise ExciteError(f"{file} is broken: it has no {min(missing)}")
    methods, options = values["methods"], values.get("options", {})
    if strange := [m for m in (*methods, *options) if not isinstance(m, str) or m not in METHODS]:
        raise ExciteError(f"{file} is broken: {shown(strange[0])} is no method")
    if (
        not methods
        or not 1 <= values.get("seeds", 1) <= MOST_SEEDS
        or not all(isinstance(o, dict) for o in options.values())
    ):
        raise ExciteError(f"{file} is broken: methods, seeds and options are not those of a comparison")
    return Plan(**{**values, "methods": tuple(methods), "changes": modernise(values.get("changes", {}))})


def read_values(file: Path) -> dict[str, Any]:  # what JSON holds; whoever reads an entry checks it
    """Return the mapping that a JSON file of a comparison holds. Raises ExciteError where it is broken."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ExciteError(f"{file} is broken: {error}") from None
    except OSError as error:
        raise ExciteError(f"cannot read {file}: {error.strerror or error}") from None
    if not isinstance(values, dict):
        raise ExciteError(f"{file} is broken: it is {shown(values)}, not a mapping")
    return values
