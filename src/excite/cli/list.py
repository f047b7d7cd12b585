"""`excite list`: what is there. Tables of text only, so it answers at once."""

import json as json_

from excite.errors import UsageError

KINDS = ("all", "methods", "models", "recipes")


def list_(what: str = "all", pattern: str = "*", *, json: bool = False) -> None:
    """List the attention methods, backbones and recipes, with counts.

    Args:
        what: methods, models, recipes, all (a summary of everything), or a pattern to look for everywhere.
        pattern: a shell pattern that names must match, as 'eca_*'.
        json: print JSON.

    Examples:
        excite list
        excite list models 'eca_*' --json
    """
    import fnmatch

    from excite.backbones.names import BACKBONES, list_models
    from excite.recipes import detection, summaries
    from excite.registry import METHODS

    searched = what not in KINDS
    if searched:
        if pattern != "*":
            raise UsageError(f"{what!r} is none of {', '.join(KINDS)}")
        what, pattern = "all", what
    sections: dict[str, dict[str, str]] = {}
    if what in ("all", "methods"):
        sections["methods"] = {name: entry.summary for name, entry in METHODS.items()}
    if what == "all":
        sections["backbones"] = {name: entry.summary for name, entry in BACKBONES.items()}
    if what == "models" or searched:
        sections["models"] = dict.fromkeys(list_models("*"), "")
    if what in ("all", "recipes"):
        sections["recipes"] = summaries()
        sections["detection recipes"] = detection.summaries()
    sections = {k: {n: t for n, t in v.items() if fnmatch.fnmatchcase(n, pattern)} for k, v in sections.items()}
    if not any(sections.values()):
        raise UsageError(f"nothing in {' or '.join(sections)} matches {pattern!r}; `excite list` shows everything")
    if json:
        print(json_.dumps({name: list(rows) for name, rows in sections.items()}, indent=2))
        return
    for name, rows in sections.items():
        if rows:
            _show(name, rows)
    if what == "all" and pattern == "*":
        print(f"{len(list_models('*'))} models: <method>_<backbone>, as eca_resnet50; `excite list models` names them.")
        print("Other networks: timm/NAME, torchvision/NAME, path/to/file.py:factory, each with --attach METHOD.")


def _show(title: str, rows: dict[str, str]) -> None:
    width = max((len(name) for name in rows), default=0) + 2
    print(f"{len(rows)} {title if len(rows) != 1 else title.removesuffix('s')}")
    for name, text in rows.items():
        print(f"  {name:<{width}}{text}".rstrip())
    print()
