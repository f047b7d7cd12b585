"""What a comparison consists of: variants x seeds, everything else equal; written down so that it can go on."""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from excite import recipes
from excite.backbones.build import options_of_method
from excite.card import code_refused
from excite.common.checks import shown
from excite.common.files import check_file, write_json
from excite.common.options import Option, check_names
from excite.common.pyfile import is_python
from excite.comparison.training import check_reserved, check_training
from excite.comparison.variants import (
    BASELINE,
    Variant,
    from_entry,
    is_built_in,
    of_backbone,
    parse,
    parse_all,
    split_variants,
)
from excite.engine.config import modernise, refuse_code
from excite.errors import ExciteError, UsageError, unknown
from excite.recipes import comparison as plans
from excite.registry import METHODS
from excite.train.config import TrainConfig

# Any: what JSON and YAML files hold; whoever reads an entry checks it.

BACKBONE = "resnet20"
METHODS_BY_DEFAULT = (BASELINE, "se", "eca", "emca_eca")
DIGITS = ("digits", "auto")  # data and recipe
DIGITS_EPOCHS = 10  # enough to tell methods apart, and twelve runs end within minutes on two cores
FILE = "plan.json"
MOST_SEEDS = 10_000


@dataclass(frozen=True)
class Run:
    """One training run of a comparison."""

    variant: Variant
    seed: int
    folder: Path
    label: str

    @property
    def name(self) -> str:
        """Return the run's name for people."""
        return f"{self.label}, seed {self.seed}"

    @property
    def finished(self) -> bool:
        """Tell whether the run has ended: its summary is written last."""
        return (self.folder / "summary.json").is_file()


@dataclass(frozen=True)
class Plan:
    """A comparison: variants trained on one data set by one recipe, once per seed.

    changes: options of every run that differ from the recipe. The first variant of a backbone is the baseline that the
    backbone's others are paired with. looks: the numbers of seeds at which the table is judged, where it is judged more
    than once. budget: minutes that epochs and images were planned for, None where nothing was; asked: the changes
    without what was planned. named_by_backbone: the folders of all runs have the backbone in their names, as earlier
    versions did it where there were several; else those on the first backbone are without.
    """

    variants: tuple[Variant, ...]
    data: str
    recipe: str = "auto"
    seeds: int = 3
    changes: dict[str, Option] = field(default_factory=dict)
    looks: tuple[int, ...] = ()
    budget: float | None = None
    asked: dict[str, Option] | None = None
    named_by_backbone: bool = False

    @property
    def backbones(self) -> list[str]:
        """The backbones, in order."""
        return list(dict.fromkeys(variant.backbone for variant in self.variants))

    @property
    def names(self) -> list[str]:
        """The variants' names; with the backbone where there are several."""
        return [self.name_of(variant) for variant in self.variants]

    def name_of(self, variant: Variant) -> str:
        """Return a variant's name in this plan."""
        return variant.name if len(self.backbones) == 1 else f"{variant.name} on {variant.backbone}"

    def baseline(self, variant: Variant) -> Variant:
        """Return the variant that this one is paired with: the first on its backbone."""
        return next(other for other in self.variants if other.backbone == variant.backbone)

    @property
    def judged(self) -> int:
        """How often the table is looked at and judged; each look is a chance to be wrong."""
        return looks_at(self.seeds, self.looks)

    @property
    def most_seeds(self) -> int:
        """The seeds that the comparison may grow to."""
        return max(self.seeds, *self.looks, 0)

    def check(self) -> None:
        """Raise UsageError for what can be known to fail before anything is trained."""
        if not self.variants:
            raise UsageError("a comparison needs methods, as --methods none,se,eca")
        _check_seeds(self.seeds)
        if self.most_seeds > MOST_SEEDS:
            option = f"--seeds {self.seeds}" if self.seeds > MOST_SEEDS else f"--until-clear {max(self.looks)}"
            raise UsageError(f"{option}: at most {MOST_SEEDS}")
        for variant in self.variants:
            variant.check()
        self._check_twice()
        self._check_backbones()
        check_reserved(self.changes)
        for variant in self.variants:
            config = self.config(variant, 0, Path("unused"))
            check_training(config, self.changes)
            if not variant.foreign:
                self._check_recipe(config.recipe, variant)
            config.check()

    def _check_twice(self) -> None:
        before: list[Variant] = []
        for variant in self.variants:
            name = self.name_of(variant)
            for other in before:
                if self.name_of(other) == name or self._folder_of(other) == self._folder_of(variant):
                    raise UsageError(f"{name} is named twice; give one of them a label of its own, or leave it out")
                if other.same(variant):
                    raise UsageError(f"{self.name_of(other)} and {name} are the same network; leave one of them out")
            before.append(variant)

    def _check_backbones(self) -> None:
        for variant in self.variants:
            first = self.baseline(variant)
            own, shared = variant.backbone_options, first.backbone_options
            if variant.method == first.method == BASELINE or own == shared:
                continue
            missing = object()
            name = next(key for key in {**own, **shared} if own.get(key, missing) != shared.get(key, missing))
            attached = next((other.name for other in self.variants if other.attached), None)
            remedy = f"give it to all variants or to none, as {BASELINE}:{name}=X,eca:{name}=X"
            if attached is not None:
                remedy = (
                    f"{attached} is attached, and takes options of its method alone; leave {name} out of all variants, "
                    f"and say `options: {{{name}: X}}` in a YAML file for --recipe, which is for all of them"
                )
            raise UsageError(
                f"{first.name} and {variant.name} are not on the same network: they differ in {name}, an option of the "
                f"backbone; {remedy}"
            )

    def _check_recipe(self, recipe: str, variant: Variant) -> None:
        # The options of a recipe are those of all variants, so they can be the backbone's alone.
        options = recipes.load(recipe).get("options", {})
        shared = of_backbone(variant.method, variant.backbone, options)
        for name in options:
            if name in shared:
                continue
            having = [v.method for v in self.variants if name in options_of_method(v.method)]
            remedy = f"a comparison on {variant.backbone} takes another recipe, or another backbone this one"
            if having:
                one = Variant(having[0], options={name: options[name]}).typed
                remedy = f"leave it out of the recipe, and say it of a variant, as --methods {BASELINE},{one}"
            raise UsageError(
                f"--recipe {recipe} sets the option {name!r} of the network, and the backbone {variant.backbone} has "
                f"none: what a recipe sets is for all variants; {remedy}"
            )

    def config(self, variant: Variant, seed: int, folder: Path) -> TrainConfig:
        """Return the configuration of one run; options of the network in a recipe are those of all variants."""
        where: dict[str, Option]
        if variant.foreign or variant.attached:
            attach = None if variant.method == BASELINE else variant.method
            where = {"attach": attach, "attach_sites": variant.sites, "attach_options": dict(variant.options)}
            model = variant.backbone
        else:
            plain = variant.method == BASELINE
            model = variant.backbone if plain else f"{variant.method}_{variant.backbone}"
            where = {"placement": variant.placement}
        values = {"data": self.data, "seed": seed, "out": str(folder), "quiet": True, **where, **self.changes}
        config = TrainConfig.from_recipe(model, self.recipe, **values)
        within = not variant.foreign and not variant.attached
        return replace(config, options={**config.options, **variant.options}) if within else config

    @property
    def folder(self) -> Path:
        """The folder of a comparison that was given none: compare/BACKBONE-DATA."""
        kind, _, path = self.data.partition(":")
        stem = "-".join([*(Path(b).name for b in self.backbones), Path(path).name if path else kind])
        return Path("compare") / re.sub(r"[^\w.]+", "-", stem).strip("-")

    def runs(self, folder: Path) -> list[Run]:
        """Return all runs, seed by seed, so that an unfinished comparison is as balanced as it can be."""
        return [
            Run(variant, seed, folder / "runs" / f"{self._folder_of(variant)}-seed{seed}", self.name_of(variant))
            for seed in range(self.seeds)
            for variant in self.variants
        ]

    def _folder_of(self, variant: Variant) -> str:
        # A backbone that is added later leaves the names of the runs that are there as they are.
        first = variant.backbone == self.variants[0].backbone
        return variant.folder(alone=first and not self.named_by_backbone)

    def to_dict(self) -> dict[str, object]:
        """Return the plan as plain containers."""
        return {
            "variants": [variant.to_dict() for variant in self.variants],
            "data": self.data,
            "recipe": self.recipe,
            "seeds": self.seeds,
            "changes": self.changes,
            "looks": list(self.looks),
            "budget": self.budget,
            "asked": self.asked,
            "named_by_backbone": self.named_by_backbone,
        }


def make_plan(
    methods: str | Sequence[str | Variant] = METHODS_BY_DEFAULT,
    backbone: str | Sequence[str] = BACKBONE,
    data: str = "digits",
    recipe: str = "auto",
    *,
    seeds: int = 3,
    epochs: int | None = None,
    until_clear: int | None = None,
    train: Mapping[str, Option] | None = None,
    options: Mapping[str, Mapping[str, Option]] | None = None,
) -> Plan:
    """Return a plan; the digits, which are for trying things out, take few epochs unless `epochs` says otherwise.

    methods: variants as `excite compare --methods` takes them; backbone: one, or several that take the same variants;
    train: options of every run that differ from the recipe; options: of all variants of a method, which their own
    options override; until_clear: add seeds up to so many until every verdict is clear.
    Raises UsageError for words that are no variants, and for what is said twice.
    """
    changes = modernise(train or {})
    if epochs is not None and changes.get("epochs", epochs) != epochs:
        raise UsageError(f"--epochs {epochs} and --train.epochs {changes['epochs']} are the same option; leave one out")
    if epochs is not None:
        changes["epochs"] = epochs
    elif (data, recipe) == DIGITS:
        changes.setdefault("epochs", DIGITS_EPOCHS)
    names = [name.strip() for name in backbone.split(",")] if isinstance(backbone, str) else list(backbone)
    if recipe in plans.names():
        raise UsageError(f"{recipe} is a comparison plan, not a training recipe: excite compare {recipe}")
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"--backbone {name} is named twice; leave one of them out")
    for part in [] if isinstance(methods, str) else methods:
        if isinstance(part, Variant) and part.backbone not in (BACKBONE, *names):
            raise UsageError(f"{part.name} is a variant on {part.backbone}, and the backbone is {', '.join(names)}")
    variants = [variant for name in names for variant in parse_all(methods, name)]
    for method in options or {}:
        if method not in METHODS:
            raise unknown("method", method, METHODS)
        if all(variant.method != method for variant in variants):
            raise UsageError(f"--options.{method}: {method} is not compared here")
    # As JSON holds them, so that a plan read back is equal.
    variants = [
        replace(v, options=json.loads(json.dumps({**(options or {}).get(v.method, {}), **v.options}))) for v in variants
    ]
    return Plan(tuple(variants), data, recipe, seeds, changes, looks(seeds, until_clear))


TEXTS = (list, str)
PLAN_ENTRIES: dict[str, Any] = {
    "methods": TEXTS, "backbone": TEXTS, "data": str, "recipe": str, "seeds": int, "epochs": int, "train": dict,
    "options": dict,
}  # fmt: skip

WORDS = {TEXTS: "text or a list", str: "text", int: "a whole number", dict: "a mapping of names to values"}


def plan_values(name: str | None, given: Collection[str] = ()) -> dict[str, Any]:
    """Return what a plan says: one that comes with excite, a YAML file, or the plan.json of a comparison.

    They are arguments of `make_plan`. given: those that somebody names beside it.
    Raises UsageError for a name that is none, and for entries that say nothing to a comparison; ExciteError for code
    that a file names and nobody beside it: it is not run.
    """
    if name is None:
        return {}
    if name in METHODS:
        raise UsageError(f"{name} is a method: excite compare --methods none,{name}")
    values = _values_there(Path(name)) if name.endswith(".json") else _values_of_yaml(name)
    values = {key: value for key, value in values.items() if key not in given}
    backbones = values.get("backbone", BACKBONE)
    for backbone in [backbones] if isinstance(backbones, str) else backbones:
        refuse_code({"backbone": backbone}, f"plan {name}")
    refuse_code({"data": values.get("data", "")}, f"plan {name}")
    methods = values.get("methods", [])
    for variant in (parse(text, BACKBONE) for text in split_variants(methods)) if isinstance(methods, str) else methods:
        # A file of one's own method is known from a comparison that was made with it; nobody else may name one.
        if is_python(variant.method) or (
            variant.file and (variant.method not in METHODS or not name.endswith(".json"))
        ):
            raise code_refused(f"plan {name}", variant.file or variant.method, "--methods")
    return values


def _values_of_yaml(name: str) -> dict[str, Any]:
    values = plans.load(name)
    check_names(f"plan {name}", list(values), list(PLAN_ENTRIES))
    for key, value in values.items():
        if not isinstance(value, PLAN_ENTRIES[key]) or isinstance(value, bool):
            raise UsageError(f"plan {name}: {key} is {shown(value)}; expected {WORDS[PLAN_ENTRIES[key]]}")
    backbones = values.get("backbone", BACKBONE)
    if not backbones or not all(isinstance(b, str) for b in backbones):
        raise UsageError(f"plan {name}: backbone is {backbones!r}")
    if isinstance(values.get("methods"), list):
        for entry in values["methods"]:
            if isinstance(entry, dict) and "method" in entry and "backbone" in entry:
                raise UsageError(
                    f"plan {name}: variant {shown(entry['method'])} has a backbone of its own; all variants are "
                    "trained on each backbone of the plan, as backbone: [resnet20, resnet56]"
                )
        values["methods"] = [from_entry(entry, BACKBONE, f"plan {name}") for entry in values["methods"]]
    for method, options in values.get("options", {}).items():
        if not isinstance(options, dict):
            raise UsageError(f"plan {name}: options of {method!r} are {options!r}")
    return values


def _values_there(file: Path) -> dict[str, Any]:
    """Return what the command would say that makes the comparison of a plan.json."""
    if file.name != FILE:
        raise UsageError(
            f"{file} is no plan; a plan is one that comes with excite, a YAML file, or a comparison's {FILE}"
        )
    plan = load(file.parent)
    seeds, until_clear = said(plan)
    methods = [replace(v, backbone=BACKBONE) for v in plan.variants if v.backbone == plan.backbones[0]]
    if list(plan.variants) != [replace(v, backbone=backbone) for backbone in plan.backbones for v in methods]:
        raise UsageError(f"{file} has other variants on each backbone; go on with it in Python, by run_plan")
    return {
        "methods": methods,
        "backbone": plan.backbones,
        "data": plan.data,
        "recipe": plan.recipe,
        "seeds": seeds,
        "until_clear": until_clear,
        "train": {name: value for name, value in plan.changes.items() if (name, value) not in _implied(plan)},
    }


def _implied(plan: Plan) -> list[tuple[str, Option]]:
    """Return the changes that `make_plan` makes to these data by itself; other data that are typed go without."""
    return [("epochs", DIGITS_EPOCHS)] if (plan.data, plan.recipe) == DIGITS else []


def said(plan: Plan) -> tuple[int, int | None]:
    """Return what --seeds and --until-clear say in the command that comes to where a plan stands."""
    most = max(plan.looks, default=0)
    if most < plan.seeds:
        return plan.seeds, None
    for first in plan.looks:
        if plan.seeds in (due := looks(first, most)) and set(due) <= set(plan.looks):
            return first, most
    return plan.seeds, most


def looks(seeds: int, most: int | None) -> tuple[int, ...]:
    """Return the numbers of seeds at which a table that grows to `most` seeds is judged: doubled each time."""
    if most is None:
        return ()
    _check_seeds(seeds)
    if most < seeds:
        raise UsageError(f"--until-clear {most}: a comparison of {seeds} seeds cannot end with fewer")
    numbers = []
    while seeds < most:
        numbers.append(seeds)
        seeds *= 2
    return (*numbers, most)


def _check_seeds(seeds: int) -> None:
    if seeds < 1:
        raise UsageError(f"--seeds {seeds}: at least one run per method is needed")


def looks_at(seeds: int, looks: Sequence[int]) -> int:
    """Return how often a table is judged that has `seeds` seeds now, and is or was judged at `looks` too."""
    return len({*looks, seeds})


def save(plan: Plan, folder: Path) -> Plan:
    """Write the plan into the comparison's folder; return it as it stands there.

    Where one stands there already the new one must continue it: the same except for more variants or more seeds. A
    finished table that grows has been looked at, which its verdicts are corrected for.
    Raises UsageError where it does not continue it.
    """
    file = folder / FILE
    if file.is_file():
        plan = continued(plan, folder)
    elif folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder} exists and is no comparison; choose another --out")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(file, plan.to_dict())
    return plan


def continued(plan: Plan, folder: Path) -> Plan:
    """Return a plan as it goes on with the comparison in a folder. Raises UsageError where that is another one."""
    old = load(folder)
    plan = _caught_up(_as_there(plan, old), old)
    differing = [name for name in ("data", "recipe") if getattr(old, name) != getattr(plan, name)]
    differing += changed(old.changes, plan.changes)
    differing += [old.name_of(v) for v in old.variants if v not in plan.variants]
    first = [plan.baseline(v) for v in old.variants if v in plan.variants]
    if [old.baseline(v) for v in old.variants if v in plan.variants] != first:
        differing.append("another baseline")
    if differing:
        raise another(folder, differing)
    if old.seeds > plan.seeds:
        until = f" --until-clear {max(*plan.looks, old.seeds)}" if plan.looks else ""
        raise UsageError(
            f"{folder} has {old.seeds} seeds, and none can be taken away: go on with --seeds {old.seeds}{until}, or "
            "choose another --out"
        )
    return replace(
        plan,
        variants=_in_order(old.variants, plan.variants),
        looks=tuple(sorted({*_looked(old, plan, folder), *plan.looks})),
        budget=old.budget if plan.budget is None else plan.budget,
        asked=old.asked if plan.asked is None else plan.asked,
        named_by_backbone=old.named_by_backbone,
    )


def another(folder: Path, differing: Sequence[str]) -> UsageError:
    """Return the error for a folder with another comparison."""
    return UsageError(
        f"{folder} holds another comparison ({', '.join(differing)}); variants and seeds may be added, not taken away "
        "or changed; choose another --out"
    )


def changed(there: Mapping[str, Option], here: Mapping[str, Option]) -> list[str]:
    """Return in words which options of the training differ from those of a comparison that is there."""
    return [
        f"--train.{name} {there.get(name, 'as in the recipe')} there, {here.get(name, 'as in the recipe')} here"
        for name in {**there, **here}
        if name not in there or name not in here or there[name] != here[name]
    ]


def _as_there(plan: Plan, old: Plan) -> Plan:
    """Return a plan whose variants are written and labelled as those that are there, whose folders are named so."""
    variants = []
    for variant in plan.variants:
        there = next((v for v in old.variants if v.same(replace(variant, backbone=v.backbone))), variant)
        if variant.label not in ("", there.label):
            there = variant
        variants.append(replace(there, backbone=variant.backbone, file=variant.file or there.file))
    return replace(plan, variants=tuple(variants))


def _in_order(old: Sequence[Variant], new: Sequence[Variant]) -> tuple[Variant, ...]:
    """Return the variants of a comparison that grows: those that are there first, in one order on all backbones."""
    backbones = [variant.backbone for variant in (*old, *new)]
    rows = [replace(variant, backbone="") for variant in (*old, *new)]
    return tuple(sorted(new, key=lambda v: (backbones.index(v.backbone), rows.index(replace(v, backbone="")))))


def _caught_up(plan: Plan, old: Plan) -> Plan:
    """Return a plan of several looks where it stands after those that the comparison has had already."""
    had = {seeds for seeds in plan.looks if seeds < old.seeds} <= set(old.looks)
    return replace(plan, seeds=max(plan.seeds, old.seeds)) if had and old.seeds in plan.looks else plan


def _looked(old: Plan, plan: Plan, folder: Path) -> list[int]:
    """Return the looks at a comparison that have been; those that were only planned may be withdrawn."""
    looked = [seeds for seeds in old.looks if seeds < old.seeds]
    grows = old.seeds < plan.seeds and all(run.finished for run in old.runs(folder))
    return [*looked, old.seeds] if grows else looked


def load(folder: Path) -> Plan:
    """Read a comparison's plan. Raises UsageError where there is none, ExciteError where it is broken."""
    file = folder / FILE
    if not file.is_file():
        raise UsageError(f"{folder} is no comparison: it has no {FILE}")
    try:
        return _plan_of(_modern(read_values(file, MENDED), file), file)
    except UsageError as error:
        raise _broken(file, str(error)) from None


MENDED = "; put a whole one there (results.json holds it, as its plan), or choose another --out"


def _broken(file: Path, what: str) -> ExciteError:
    return ExciteError(f"{file} is broken: {what}{MENDED}")


def _plan_of(values: dict[str, Any], file: Path) -> Plan:
    known: dict[str, Any] = {
        "variants": list,
        "data": str,
        "recipe": str,
        "seeds": int,
        "changes": dict,
        "looks": list,
        "budget": (int, float, type(None)),
        "asked": (dict, type(None)),
        "named_by_backbone": bool,
    }
    for name, value in values.items():
        kind = known.get(name)
        if kind is None or not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise _broken(file, f"{shown(name)} is {shown(value)}")
    if missing := {"variants", "data"} - set(values):
        raise _broken(file, f"it has no {min(missing)}")
    variants = tuple(from_entry(entry, BACKBONE, str(file)) for entry in values["variants"])
    # Whoever types the command in the report would run the file: what comes with excite is in none.
    variants = tuple(replace(v, file="") if is_built_in(v.method) else v for v in variants)
    for variant in variants:
        variant.check(known=False)
    numbers = [values.get("seeds", 1), *values.get("looks", [])]
    whole = all(isinstance(n, int) and not isinstance(n, bool) and 1 <= n <= MOST_SEEDS for n in numbers)
    if not variants or not whole:
        raise _broken(file, "variants and seeds are not those of a comparison")
    several = len({variant.backbone for variant in variants}) > 1
    plan = {"named_by_backbone": several, **values, "variants": variants}
    return Plan(**{**plan, "changes": modernise(values.get("changes", {})), "looks": tuple(values.get("looks", []))})


def _modern(values: dict[str, Any], file: Path) -> dict[str, Any]:
    """A plan of an earlier version has methods, one backbone, and options by method."""
    if "methods" not in values:
        return values
    methods, options, backbone = values["methods"], values.get("options", {}), values.get("backbone")
    if (
        not isinstance(methods, list)
        or not isinstance(options, dict)
        or not isinstance(backbone, str)
        or not all(isinstance(m, str) and isinstance(options.get(m, {}), dict) for m in methods)
        or not all(m in methods for m in options)
    ):
        raise _broken(file, "methods, backbone and options are not those of a comparison")
    # Its runs stand in folders that are named after the methods alone.
    variants = [{"method": m, "label": m, "backbone": backbone, "options": options.get(m, {})} for m in methods]
    rest = {key: value for key, value in values.items() if key not in ("methods", "options", "backbone")}
    return {"variants": variants, **rest}


def read_values(file: Path, remedy: str = "") -> dict[str, Any]:  # what JSON holds; whoever reads an entry checks it
    """Return the mapping that a JSON file of a comparison holds. Raises ExciteError where it is broken."""
    check_file(file)
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ExciteError(f"{file} is broken: {error}{remedy}") from None
    except OSError as error:
        raise ExciteError(f"cannot read {file}: {error.strerror or error}") from None
    if not isinstance(values, dict):
        raise ExciteError(f"{file} is broken: it is {shown(values)}, not a mapping{remedy}")
    return values
