"""The command line that makes a comparison, exact: read back, it is the same plan."""

import json
import shlex
from dataclasses import replace
from pathlib import Path

from excite.common.options import parse_value
from excite.common.tables import printable
from excite.comparison.plan import FILE, Plan, said
from excite.comparison.variants import in_words, is_built_in, parse, split_variants
from excite.engine.config import is_code
from excite.errors import UsageError
from excite.registry import VARIABLE


def command(plan: Plan, folder: Path | None = None) -> str:
    """Return the command line that makes this comparison, or goes on with it in its folder, where that is given.

    What no line can say (labels, text that is read as something else) is said by the plan.json in that folder.
    """
    methods = ",".join(dict.fromkeys(variant.typed for variant in plan.variants))
    changes = {name: value if isinstance(value, str) else json.dumps(value) for name, value in plan.changes.items()}
    words = ["excite", "compare", "--methods", methods, "--backbone", ",".join(plan.backbones)]
    words += ["--data", plan.data, "--recipe", plan.recipe]
    seeds, until_clear = said(plan)
    words += ["--seeds", str(seeds), *([] if until_clear is None else ["--until-clear", str(until_clear)])]
    for name, text in changes.items():
        words += [f"--train.{name}={text}"] if text.startswith("-") else [f"--train.{name}", text]
    words += ["--out", str(folder)] if folder not in (None, plan.folder) else []
    line = shlex.join(words)
    known = all(parse_value(text) == plan.changes[name] for name, text in changes.items())
    return line if known and line == printable(line) and _says(methods, plan) else _by_file(plan, folder or Path())


def _says(methods: str, plan: Plan) -> bool:
    """Tell whether a line of methods is read as the variants of a plan."""
    try:
        read = [parse(text, backbone) for backbone in plan.backbones for text in split_variants(methods)]
    except UsageError:
        return False
    typed = [replace(v, method=v.file or v.method, label="") for v in plan.variants]
    # A method of ours takes the words for a list as it takes the list.
    typed = [replace(v, options=in_words(v.options)) if is_built_in(v.method) else v for v in typed]
    return read == typed and all(variant.name == variant.written for variant in plan.variants)


def _by_file(plan: Plan, folder: Path) -> str:
    """Return the command that goes on with a comparison by its file; code that no file may name stands in it."""
    words = ["excite", "compare", str(folder / FILE)]
    if any(":" in backbone for backbone in plan.backbones):
        words += ["--backbone", ",".join(plan.backbones)]
    if is_code(plan.data):
        words += ["--data", plan.data]
    files = dict.fromkeys(variant.file for variant in plan.variants if variant.file)
    own = f"{VARIABLE}={shlex.quote(','.join(files))} " if files else ""
    return printable(own + shlex.join(words))
