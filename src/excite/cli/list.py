"""`excite list`: what is there. Tables of text only, so it answers at once."""

import json as json_

from excite.errors import UsageError, near

KINDS = ("all", "methods", "models", "recipes", "data", "checkpoints")


def list_(what: str = "all", pattern: str = "*", *, json: bool = False) -> None:
    """List the attention methods, backbones, recipes, kinds of data and the authors' public files, with counts.

    Args:
        what: methods, models, recipes, data (specs), checkpoints (public files), all (a summary of everything), or a
            pattern to look for everywhere.
        pattern: a shell pattern that names must match, as 'eca_*'.
        json: print JSON.

    Examples:
        excite list
        excite list models 'eca_*' --json
        excite list checkpoints 'eca_*'
        excite list 'timm/*regnety*'
    """
    import fnmatch

    from excite.backbones.names import BACKBONES, list_models
    from excite.recipes import comparison, detection, summaries
    from excite.registry import METHODS

    if what == "checkpoints":
        _show_checkpoints(pattern, json)
        return
    foreign = next((text for text in (what, pattern) if text.startswith(("timm/", "torchvision/"))), None)
    if foreign is not None:
        _show_foreign(foreign, json)
        return
    searched = what not in KINDS
    if searched:
        close = near(what, KINDS, 1)
        if pattern != "*":
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise UsageError(f"{what!r} is none of {', '.join(KINDS)}{hint}")
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
        sections["comparison plans"] = comparison.summaries()
    if what == "data":
        from excite.data import SPECS
        from excite.detect.data.specs import FORMS

        sections["data"] = {spec.form: spec.summary for spec in SPECS.values()}
        sections["detection data"] = dict(FORMS)
    everything = sections
    sections = {k: {n: t for n, t in v.items() if fnmatch.fnmatchcase(n, pattern)} for k, v in sections.items()}
    if not any(sections.values()):
        names = [name for kind in everything.values() for name in kind] + list(KINDS)
        close = near(pattern, names)
        hint = f"did you mean {' or '.join(map(repr, close))}?" if close else "`excite list` shows everything"
        raise UsageError(f"nothing in {' or '.join(sections)} matches {pattern!r}; {hint}")
    if json:
        print(json_.dumps({name: list(rows) for name, rows in sections.items()}, indent=2))
        return
    for name, rows in sections.items():
        if rows:
            _show(name, rows)
    if what == "all" and pattern == "*":
        print(f"{len(list_models('*'))} models: <method>_<backbone>, as eca_resnet50; `excite list models` names them.")
        print("Other networks: timm/NAME, torchvision/NAME, path/to/file.py:factory, each with --attach METHOD.")


def _show_foreign(pattern: str, json: bool) -> None:
    """List networks of timm or torchvision."""
    import fnmatch

    from excite.common.extras import require

    library, _, rest = pattern.partition("/")
    if library == "timm":
        require("timm")
        import timm

        known = timm.list_models()
    else:
        from torchvision.models import list_models

        known = list_models()
    names = [name for name in known if fnmatch.fnmatchcase(name, rest or "*")]
    if not names:
        close = near(rest, known)
        hint = f"; did you mean {' or '.join(f'{library}/{name}' for name in close)}?" if close else ""
        raise UsageError(f"no network of {library} matches {rest!r}{hint}")
    if json:
        print(json_.dumps({"models": [f"{library}/{name}" for name in names]}, indent=2))
        return
    _show(f"networks of {library}", {f"{library}/{name}": "" for name in names})


def _show_checkpoints(pattern: str, json: bool) -> None:
    import fnmatch

    from excite.checkpoints.public import PUBLIC

    here = _bundled(pattern)
    files = [file for file in PUBLIC if any(fnmatch.fnmatchcase(n, pattern) for n in (file.name, file.network))]
    if not files and not here:
        raise UsageError(
            f"no weights within excite and no public file matches {pattern!r}; `excite list checkpoints` shows them all"
        )
    if json:
        public = [{**file._asdict(), "import": file.command} for file in files]
        print(json_.dumps([*here, *public], indent=2))
        return
    if here:
        print(f"weights that come with excite ({len(here)}); top-1 and top-5 on all test images of their data")
        for row in here:
            print(f"  {row['name']:<36}{row['network']:<18}{row['scores'].replace(' ', ' / '):<15}  {row['place']}")
        print(f"Every command takes such a name: excite predict {here[0]['name']} IMAGE...\n")
    if not files:
        return
    print(f"{len(files)} public files; top-1 and top-5 on ImageNet as their authors publish them")
    for file in files:
        scores = file.scores.replace(" ", " / ") or "-"
        checksum = f"  sha256 {file.sha256}..." if file.sha256 else ""
        print(f"  {file.name:<36}{file.network:<18}{scores:<15}{checksum}\n    {file.place}\n    {file.command}")
    print("\nNothing is downloaded: fetch the file yourself, then import it under the name that it has on your disk.")


def _bundled(pattern: str) -> list[dict[str, str]]:
    """Return the weights within excite that match a pattern, with their score in per cent and their recipe."""
    import fnmatch

    from excite.pretrained import bundled, bundled_card

    rows = []
    for data, networks in bundled().items():
        for network in networks:
            name = f"{network}.{data}"
            if not any(fnmatch.fnmatchcase(n, pattern) for n in (name, network)):
                continue
            trained = bundled_card(network, data).get("trained", {})
            test = trained.get("test", {})
            scores = " ".join(f"{100 * test[k]:.2f}" for k in ("top1", "top5") if k in test)
            how = ", ".join(f"{k} {trained[k]}" for k in ("recipe", "epochs", "seed") if k in trained)
            load = f'excite.create_model("{network}", pretrained="{data}")'
            rows.append({"name": name, "network": network, "scores": scores, "place": how, "load": load})
    return rows


def _show(title: str, rows: dict[str, str]) -> None:
    width = max((len(name) for name in rows), default=0) + 2
    print(f"{len(rows)} {title if len(rows) != 1 else title.removesuffix('s')}")
    for name, text in rows.items():
        print(f"  {name:<{width}}{text}".rstrip())
    print()
