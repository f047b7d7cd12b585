"""From what a user asks for to the sites that it means."""

import difflib
import re
from collections.abc import Sequence

from excite.errors import UsageError, near
from excite.surgery.find import find
from excite.surgery.graph import Graph
from excite.surgery.locate import locate
from excite.surgery.site import PRESETS, Site

Wanted = str | Sequence[str]


def select(graph: Graph, wanted: Wanted, kind: str | None = None) -> list[Site]:
    """Return the sites that `wanted` names: a preset, a pattern (or several with commas), or a list of either.

    In a pattern `*` stands for anything but a dot, `**` for anything, `[34]` for one of these characters. kind: where
    given ("attention", "conv"), choose among what can be replaced, else among places to add to.
    Raises UsageError where nothing is found, naming what was looked for.
    """
    listed = [s for s in find(graph) if (s.kind == kind if kind else s.place != "instead")]
    names = [wanted] if isinstance(wanted, str) else list(wanted)
    names = [part.strip() for name in names for part in _split(name)]
    if not names:
        raise UsageError("sites is empty; name a preset, a pattern or a list of module paths")
    chosen: dict[tuple[str, str], Site] = {}
    for name in names:
        for site in _preset(graph, listed, name, kind) if name in PRESETS else _named(graph, listed, name, kind):
            chosen[site.path, site.place] = site
    return list(chosen.values())


def _split(name: str) -> list[str]:
    if not isinstance(name, str):
        raise UsageError(f"sites takes a preset, a pattern or a list of module paths, got {name!r}")
    return re.split(r",(?![^\[]*\])", name)


def _preset(graph: Graph, listed: Sequence[Site], name: str, kind: str | None) -> list[Site]:
    found = [s for s in listed if name in s.presets]
    if found:
        return found
    model, count = type(graph.model).__name__, len(graph.trace.nodes)
    if kind == "attention":
        raise UsageError(f"{model} has no attention to replace at {name!r} (looked for {_looked(kind)})")
    others = {p: sum(p in s.presets for s in listed) for p in PRESETS}
    rest = ", ".join(f"{p!r} has {n}" for p, n in others.items() if n) or "the other presets have none either"
    raise UsageError(
        f"no sites {name!r} in {model}: among its {count} operations, looked for {_looked(kind or name)}; "
        f"{rest}; or name modules, for example sites={_example(graph)!r}"
    )


def _looked(what: str) -> str:
    return {
        "attention": "modules whose class is known as channel attention and that keep the shape of a feature map",
        "conv": "the first k x k convolution (not depthwise, not dilated) of every residual branch",
        "residual": "an addition or concatenation of a branch of convolutions and a shortcut",
        "stage-ends": "the last block, or convolution unit, before the map gets smaller",
    }.get(what, "blocks: modules that join branches, or convolution units on the main path")


def _example(graph: Graph) -> str:
    paths = [p for p in graph.modules if p and graph.output(p) is not None]
    return paths[len(paths) // 2] if paths else "features.3"


def _named(graph: Graph, listed: Sequence[Site], name: str, kind: str | None) -> list[Site]:
    expression = re.compile(_translate(name))
    exact = [s for s in listed if expression.fullmatch(s.path)]
    if exact:
        # The same path may be matched again below as a plain module; what is known of the site is kept.
        matched = {s.path for s in exact}
    else:
        matched = set()
    if kind:
        if not exact:
            raise UsageError(f"no {kind} matches {name!r}; there are: {_some([s.path for s in listed])}")
        return exact
    paths = [p for p in graph.modules if p and p not in matched and expression.fullmatch(p)]
    found = exact + [_site(graph, p, listed) for p in paths]
    if not found:
        close = near(name, [*graph.modules, *PRESETS]) or difflib.get_close_matches(name, PRESETS, 1)
        hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
        raise UsageError(
            f"sites={name!r} is no preset ({', '.join(PRESETS)}) and matches no module of {name_of(graph)}; "
            f"{hint}excite.sites(model) lists: {_some([s.path for s in listed])}"
        )
    return found


def name_of(graph: Graph) -> str:
    """Return the class name of the network."""
    return type(graph.model).__name__


def _some(paths: Sequence[str], most: int = 6) -> str:
    shown = ", ".join(paths[:most]) or "none"
    return shown + (f", ... ({len(paths)} in all)" if len(paths) > most else "")


def _translate(pattern: str) -> str:
    """Turn a pattern of paths into a regular expression."""
    parts = re.split(r"(\*\*|\*|\?|\[[^\]]*\])", pattern)
    special = {"**": ".*", "*": r"[^.]*", "?": r"[^.]"}
    return "".join(special.get(p) or (p if p.startswith("[") and p.endswith("]") else re.escape(p)) for p in parts)


def _site(graph: Graph, path: str, listed: Sequence[Site]) -> Site:
    """Return the site of a module that was named. Raises UsageError, saying why, where it cannot be one."""
    calls = graph.calls.get(path, [])
    if not calls:
        raise UsageError(f"{path!r} did not run in the forward pass, so its channels are unknown; name another module")
    if len(calls) > 1:
        raise UsageError(f"{path!r} runs {len(calls)} times in a forward pass; name a module that runs once")
    inside = next((a for a in graph.attention if path.startswith(a + ".")), None)
    if inside is not None:
        raise UsageError(f"{path!r} is inside the attention {inside!r}; name another module, or use replace=True")
    node = calls[0].output
    if node is None or not graph.trace.is_map(node):
        shape = "no single tensor" if node is None else f"a tensor of shape {graph.trace.nodes[node].shape}"
        raise UsageError(
            f"channels unknown: {path!r} returns {shape}, not a feature map [n c *space]; name another module"
        )
    place = locate(graph, node)
    if place is None or place.node != node:
        raise UsageError(f"{path!r} is a container and none of its members returns its output; name one of them")
    made = graph.trace.nodes[node]
    stage = next((s.stage for s in listed if s.size == made.space), 0)
    return Site(place.path, made.shape[1], "named", stage, size=made.space, place=place.side)
