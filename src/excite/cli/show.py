"""`excite show`: one method's card, a network's, what a data set holds, or all methods as a table or a document."""

import json as json_
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from excite.backbones.names import ALIASES, BACKBONES, all_names, split_name
from excite.common.tables import text_width
from excite.errors import UsageError
from excite.registry import METHODS, resolve_method

if TYPE_CHECKING:
    from excite.cli.method_cards import Card

# Any: options of methods and networks, which those check.

WIDTH = 110
AGREEMENT = (
    "The code named here was run in float64 with weights made by a rule, and ours with the same weights: the first "
    "values, sum and norm of the output agree to 1e-8, the norms of the gradients of the input and of every parameter "
    "to 1e-6, in eval and, where it differs, in train mode. "
    "The numbers are in `tests/golden/modules`, the comparison is `tests/methods/test_golden_modules.py`."
)


def show(
    method: str = "",
    spec: str = "",
    *,
    table: bool = False,
    document: bool = False,
    bibtex: bool = False,
    svg: Path | None = None,
    options: dict[str, Any] = {},  # noqa: B006  (read, never written)
    channels: int = 256,
    size: int = 56,
    limit: int = 1000,
    out: str | None = None,
    json: bool = False,
) -> None:
    """Show what a method computes, its paper, its place, its cost and its options; or what a network or data set is.

    Without a method: --table prints one Markdown line per method, --document the whole reference (docs/methods.md),
    --json all cards.

    Args:
        method: a name of `excite list methods` or `excite list models`, FILE.py:NAME of your own, or the word data.
        spec: after the word data: a data spec, or the path of a folder or file.
        table: a Markdown table of all methods, one line each.
        document: a Markdown document of all methods.
        bibtex: print the method's paper as BibTeX.
        svg: draw the method, or the network, to this file: its parts, their shapes and parameters; its blocks.
        options: options of the method or network, as --options.kernel_size 5, for its cost and its drawing.
        channels: channels of the map that the cost is given for.
        size: side of that map.
        limit: how many images of each split of the data to look at.
        out: the file to write to: some training images of the data, as a contact sheet (.png).
        json: print JSON.

    Examples:
        excite show eca
        excite show emca_eca --channels 512 --size 28
        excite show eca --bibtex
        excite show se --options.reduction 4 --svg se.svg
        excite show emca_eca_resnet18 --options.stages all --svg bank.svg
        excite show eca_resnet50
        excite show data photos --out sheet.png
    """
    if method == "data":
        from excite.cli.show_data import show_data

        show_data(spec, limit, out, json)
        return
    from excite.cli.method_cards import card, cards

    if spec:
        raise UsageError(f"{spec!r} is one word too many; only `excite show data SPEC` takes two")
    if out:
        raise UsageError("--out draws a data set: excite show data SPEC --out FILE.png")
    method = method.lower() if method.lower() in METHODS else resolve_method(method)
    if channels < 1 or size < 1:
        raise UsageError(f"channels and size must be at least 1, got {channels} and {size}")
    if bool(method) + table + document > 1:
        raise UsageError("give a method, --table or --document, not several of them")
    if not method and (bibtex or svg or options):
        raise UsageError("name the method that --bibtex, --svg and --options are about")
    if method and method not in METHODS and is_network(method):
        if bibtex:
            raise UsageError(f"--bibtex takes a method, {method} is a network: excite show METHOD --bibtex")
        _show_network(method, options, svg, json)
        return
    if not (method or table or document or json):
        raise UsageError("name a method (`excite list methods` has them), or give --table or --document")
    if bibtex:
        from excite.cli.bibtex import bibtex as entry_of

        print(entry_of(method))
        return
    shown = [card(method, channels, size, options)] if method else cards(channels, size)
    if svg is not None:
        _draw_method(method, options, (1, channels, *[size] * max(shown[0].dims[0], min(2, shown[0].dims[-1]))), svg)
    if json:
        print(json_.dumps(shown[0].to_dict() if method else [c.to_dict() for c in shown], indent=2))
    elif table:
        print(table_of(shown))
    elif document:
        print(document_of(shown))
    else:
        print(text_of(shown[0]))
        if svg is not None:
            print(f"\n  drawn to      {svg}")


def _draw_method(name: str, options: dict[str, Any], shape: tuple[int, ...], svg: Path) -> None:
    """Write the diagram of a method on a map of this shape."""
    import torch

    from excite.common.files import write_text
    from excite.explain.diagram import module_diagram
    from excite.registry import create_attention

    with torch.device("meta"):
        module = create_attention(name, shape[1], **options)
    write_text(svg, module_diagram(module, name, shape))


def is_network(name: str) -> bool:
    """True for a name of a network of ours, timm's or torchvision's, whatever the case of its letters."""
    return name.startswith(("timm/", "torchvision/")) or name.lower() in all_names() or name.lower() in ALIASES


def _show_network(name: str, options: dict[str, Any], svg: Path | None, json: bool) -> None:
    """Print the page of a network: what it is made of, and what it costs; draw its blocks."""
    import torch

    from excite.inspect.trace import run_on_meta
    from excite.models import NetworkSpec

    known = name.lower() in all_names() or name.lower() in ALIASES
    name = name.lower() if known else name
    method, backbone = split_name(name) if known else ("none", name)
    side = 32 if "_cifar" in backbone or BACKBONES.get(backbone, ("",))[0] == "resnet_small" else 224
    with torch.device("meta"):
        network = NetworkSpec(name, 1000, options=options).build()
    params, macs = sum(p.numel() for p in network.parameters()), run_on_meta(network, (1, 3, side, side)).macs
    if svg is not None:
        from excite.backbones.network import Network
        from excite.common.files import write_text
        from excite.explain.diagram import network_diagram

        if not isinstance(network, Network):
            raise UsageError(f"--svg draws methods and networks of ours; {name} is neither (`excite list models`)")
        write_text(svg, network_diagram(network, name))
    if json:
        facts = {"name": name, "method": method, "backbone": backbone, "size": side, "classes": 1000}
        print(json_.dumps({**facts, "params": params, "macs": macs}, indent=2))
        return
    print(
        f"{name}: {BACKBONES[backbone].summary if backbone in BACKBONES else 'a network of ' + name.partition('/')[0]}"
    )
    print(f"  method        {method}" + (f": {METHODS[method].summary}; excite show {method}" if known else ""))
    print(f"  costs         {params:,} parameters, {macs / 1e6:,.1f} M MACs at {side}x{side}, 1000 classes")
    print(f"  more          excite profile {name}")
    print(f"  train         excite train {name} --data PATH" + ("" if known else " --attach METHOD"))
    if svg is not None:
        print(f"  drawn to      {svg}")


def text_of(card: "Card") -> str:
    """Return a card as text for a terminal."""
    from excite.cli.method_cards import maps

    rows = [
        ("computes", card.equation),
        ("made of", " -> ".join(card.parts) + " -> recalibrate" if card.parts else ""),
        ("paper", card.paper),
        ("sits", card.place),
        ("maps", maps(card.dims)),
        ("at the start", "the identity" if card.identity_at_init else ""),
        ("costs", cost_of(card)),
        ("equals", card.equals),
        ("differs", card.differs),
    ]
    lines, width = [f"{card.name}: {card.summary}", ""], text_width(WIDTH)
    for title, text in rows:
        if text:
            lines += textwrap.wrap(text, width, initial_indent=f"  {title:<14}", subsequent_indent=" " * 16)
    if card.options:
        lines += ["", "  options"]
        longest = max(len(name) for name, _, _ in card.options)
        lines += [f"    {name:<{longest}}  {default}: {kind}" for name, kind, default in card.options]
        if card.about:
            lines += ["", *textwrap.wrap(card.about, width, initial_indent="    ", subsequent_indent="    ")]
    return "\n".join([*lines, "", f"  in Python     {example_of(card)}"])


def cost_of(card: "Card") -> str:
    """Return the cost as a sentence that names its convention."""
    from excite.cli.method_cards import COUNTED

    return f"{card.params:,} parameters and {card.macs:,} {COUNTED} for C={card.channels} at {card.size}x{card.size}"


def example_of(card: "Card") -> str:
    """Return the line of Python that builds the method."""
    return f'excite.create_attention("{card.name}", channels={card.channels})'


def table_of(found: "list[Card]") -> str:
    """Return a Markdown table, one line per method."""
    from excite.cli.method_cards import ROLES, maps, source_link

    at = f"C={found[0].channels}, {found[0].size}×{found[0].size}"
    lines = [
        f"| method | what it is | where | maps | parameters ({at}) | MACs | paper |",
        "|---|---|---|---|---:|---:|---|",
    ]
    for c in found:
        where = c.place if c.name == "none" else ROLES[c.role]
        cells = (f"`{c.name}`", c.summary, where, maps(c.dims), f"{c.params:,}", f"{c.macs:,}", source_link(c.paper))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def agreement_of(found: "list[Card]") -> str:
    """Return a Markdown table of where each method agrees with its original, and what could not be had."""
    lines = ["| method | compared with | what differs or could not be had |", "|---|---|---|"]
    lines += [f"| `{c.name}` | {c.equals or '-'} | {c.differs} |" for c in found if c.name != "none"]
    return "\n".join(lines)


def document_of(found: "list[Card]") -> str:
    """Return the Markdown reference of all methods."""
    from excite.cli.method_cards import COUNTED, maps

    first = found[0]
    parts = [
        "# Methods",
        "",
        "Made by `excite show --document > docs/methods.md`. Every method is built by its name and takes a map "
        "`[n c *space]`:",
        "",
        "```python",
        "import torch",
        "import excite",
        "",
        f'attention = excite.create_attention("eca", channels={first.channels}, kernel_size=5)',
        f"y = attention(torch.randn(2, {first.channels}, 14, 14))",
        "assert y.shape == (2, 256, 14, 14)" if first.channels == 256 else f"assert y.shape[1] == {first.channels}",
        "```",
        "",
        f"MACs are {COUNTED}; element-wise work (pooling, the product with the map) is not in them.",
        "",
        table_of(found),
        "",
        "## Where they agree with their originals",
        "",
        AGREEMENT,
        "",
        agreement_of(found),
    ]
    for card in found:
        parts += ["", f"## {card.name}", "", f"{card.summary[0].upper()}{card.summary[1:]}.", ""]
        parts += [f"    {line}" for line in textwrap.wrap(card.equation, WIDTH, break_on_hyphens=False)]
        parts += ["", f"- Paper: {card.paper}", f"- Place: {card.place}", f"- Maps: {maps(card.dims)}"]
        if card.parts:
            parts += [f"- Made of: `{card.parts[0]}` → `{card.parts[1]}` → recalibrate"]
        parts += ["- At the start: the identity"] if card.identity_at_init else []
        parts += [
            f"- Cost: {card.params:,} parameters, {card.macs:,} MACs (C={card.channels}, {card.size}×{card.size})"
        ]
        if card.options:
            shown = ", ".join(f"`{name}={default}`" for name, _, default in card.options)
            parts += [f"- Options: {shown}", "", card.about]
        parts += ["", "```python", f"attention = {example_of(card)}", "```"]
    return "\n".join(parts)
