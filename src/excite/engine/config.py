"""What the configurations of runs share: they are dataclasses, filled from recipes, files and earlier runs."""

from dataclasses import fields
from pathlib import Path
from typing import Any

from excite.errors import UsageError, near


def flag(name: str) -> str:
    """Return the option of a field, as --batch-size."""
    return f"--{name.replace('_', '-')}"


def at_least(config: object, least: int, *names: str) -> None:
    """Raise UsageError for the first of the fields that is less than `least`."""
    for name in names:
        if getattr(config, name) < least:
            raise UsageError(f"{flag(name)} must be at least {least}, got {getattr(config, name)}")


def below_one(config: object, *names: str) -> None:
    """Raise UsageError for the first of the fields that is not in [0, 1)."""
    for name in names:
        if not 0 <= getattr(config, name) < 1:
            raise UsageError(f"{flag(name)} must be in [0, 1), got {getattr(config, name)}")


def check_keys(kind: Any, values: dict[str, Any], where: str) -> dict[str, Any]:
    """Return `values` if each key is a field of the dataclass `kind`. Raises UsageError with near names."""
    known = [f.name for f in fields(kind)]
    for key in values:
        if key not in known:
            close = near(key, known)
            raise UsageError(f"{where}: unknown option {key!r}" + (f"; did you mean {close[0]!r}?" if close else ""))
    return values


def read_run(kind: Any, run: str | Path) -> dict[str, Any]:
    """Return the values in a run directory's config.yaml. Raises UsageError where it is missing or not one."""
    import yaml

    file = Path(run) / "config.yaml"
    if not file.is_file():
        raise UsageError(f"{run} is not a run directory: it has no config.yaml")
    values = yaml.safe_load(file.read_text(encoding="utf-8"))
    if not isinstance(values, dict):
        raise UsageError(f"{file} is not a mapping of option: value")
    return check_keys(kind, values, str(file))
