"""A package's recipes: YAML files, each with a header that says where it comes from, its command, time and score."""

from importlib.resources import files
from pathlib import Path
from typing import Any

from excite.errors import UsageError, unknown

# Any: options of every kind, as YAML holds them.


class RecipeCollection:
    """The YAML files of a package; kind is what messages call one of them."""

    def __init__(self, package: str, kind: str) -> None:
        self.package, self.kind = package, kind

    def names(self) -> list[str]:
        """Return the names of the recipes that come with the package."""
        found = (p.name for p in files(self.package).iterdir())
        return sorted(name.removesuffix(".yaml") for name in found if name.endswith(".yaml"))

    def text(self, name: str) -> str:
        """Return a recipe's YAML: a name of ours, or the path of a file. Raises UsageError for neither."""
        if name in self.names():
            return files(self.package).joinpath(f"{name}.yaml").read_text(encoding="utf-8")
        if name.endswith((".yaml", ".yml")):
            path = Path(name)
            if not path.is_file():
                known = ", ".join(self.names())
                raise UsageError(f"no recipe file {name}; a {self.kind} is one of {known} or a YAML file")
            return path.read_text(encoding="utf-8")
        raise unknown(self.kind, name, self.names())

    def load(self, name: str) -> dict[str, Any]:
        """Return a recipe's values. Raises UsageError for an unknown recipe or one that is not a YAML mapping."""
        import yaml

        try:
            values = yaml.safe_load(self.text(name))
        except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: no UTF-8, or a date that is none
            raise UsageError(f"recipe {name} is not YAML: {' '.join(str(error).split())}") from None
        if not isinstance(values, dict):
            raise UsageError(f"recipe {name} must be a mapping of option: value")
        return values

    def summaries(self) -> dict[str, str]:
        """Return each recipe's first header line by name."""
        return {name: self.text(name).splitlines()[0].removeprefix("#").strip() for name in self.names()}
