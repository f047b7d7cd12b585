"""Detection recipes: YAML files, each with a header that says where it comes from, its command, time and score."""

from importlib.resources import files
from pathlib import Path
from typing import Any

from excite.errors import UsageError, unknown


def names() -> list[str]:
    """Return the names of the recipes that come with the package."""
    return sorted(p.name.removesuffix(".yaml") for p in files(__name__).iterdir() if p.name.endswith(".yaml"))


def text(name: str) -> str:
    """Return a recipe's YAML: a name of ours, or the path of a file. Raises UsageError for neither."""
    if name in names():
        return files(__name__).joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        if not path.is_file():
            raise UsageError(f"no recipe file {name}; a detection recipe is one of {', '.join(names())} or a YAML file")
        return path.read_text(encoding="utf-8")
    raise unknown("detection recipe", name, names())


def load(name: str) -> dict[str, Any]:
    """Return a recipe's values. Raises UsageError for an unknown recipe or one that is not a YAML mapping."""
    import yaml

    try:
        values = yaml.safe_load(text(name))
    except yaml.YAMLError as error:
        raise UsageError(f"recipe {name} is not YAML: {error}") from None
    if not isinstance(values, dict):
        raise UsageError(f"recipe {name} must be a mapping of option: value")
    return values


def summaries() -> dict[str, str]:
    """Return each recipe's first header line by name."""
    return {name: text(name).splitlines()[0].removeprefix("#").strip() for name in names()}
