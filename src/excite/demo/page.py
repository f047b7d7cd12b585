"""A view as HTML: a table of guesses with bars, and pictures inside the page. Every name is escaped."""

import base64
import html
import tempfile
from collections.abc import Sequence
from pathlib import Path

from excite.common.tables import printable
from excite.demo.view import Guess, View
from excite.explain.cam import CamResult
from excite.explain.cam_figure import CamRow, plot_cams
from excite.explain.figures import plot_stages

AS_IS, PULLED = "as it is", "pulled"

STYLE = """
.excite {--first: #0072b2; --second: #d55e00; font-size: 1rem}
.excite h3 {margin: .2rem 0; overflow-wrap: anywhere}
.excite table {width: 100%; border-collapse: collapse; margin: .5rem 0}
.excite th, .excite td {padding: .2rem .4rem; border: 0; text-align: right; vertical-align: middle}
.excite th:first-child {text-align: left; min-width: 6rem; font-weight: 400; overflow-wrap: anywhere}
.excite thead th {font-size: .85rem; border-bottom: 1px solid currentColor}
.excite caption, .excite figcaption {text-align: left; font-size: .85rem; margin-bottom: .2rem}
.excite td.bars {width: 38%}
.excite .bar {display: block; height: .5rem; margin: .1rem 0; min-width: 1px; border-radius: 1px}
.excite .first {background: var(--first)}
.excite .second {background: var(--second)}
.excite figure {margin: .8rem 0}
.excite img {width: 100%; max-width: 34rem; height: auto; background: #fff; border-radius: 4px}
.excite .error {border-left: 4px solid #d55e00; padding-left: .6rem}
"""


def text(name: object) -> str:
    """Return what somebody else wrote, safe inside HTML."""
    return html.escape(printable(name))


def render(view: View) -> str:
    """Return one network's part of the page."""
    pulled = view.after is not None
    notes = "".join(f"<p>{text(note[0].upper() + note[1:])}.</p>" for note in view.notes)
    return (
        f'<section class="excite" aria-label="{text(view.label)}"><h3>{text(view.label)}</h3>'
        f"<p>{_sentence(view)}</p>{_table(view.guesses, pulled)}{_cams(view)}{_scales(view)}{notes}</section>"
    )


def render_error(message: str) -> str:
    """Return a part of the page that says what went wrong."""
    return f'<section class="excite"><p class="error" role="alert">{text(message)}</p></section>'


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _sentence(view: View) -> str:
    first = view.guesses[0]
    said = f"It says <b>{text(first.name)}</b>, {_percent(first.before)}."
    if view.after is None:
        return said
    now = max(view.guesses, key=lambda guess: guess.after)
    verb = "still" if now.name == first.name else "now"
    return f"{said} Pulled, it {verb} says <b>{text(now.name)}</b>, {_percent(now.after)}."


def _table(guesses: Sequence[Guess], pulled: bool) -> str:
    heads = f'<th scope="col">{AS_IS}</th>' + (f'<th scope="col">{PULLED}</th>' if pulled else "")
    rows = []
    for guess in guesses:
        bars = f'<span class="bar first" style="width:{100 * guess.before:.1f}%"></span>'
        cells = f"<td>{_percent(guess.before)}</td>"
        if pulled:
            bars += f'<span class="bar second" style="width:{100 * guess.after:.1f}%"></span>'
            cells += f"<td>{_percent(guess.after)}</td>"
        rows.append(
            f'<tr><th scope="row">{text(guess.name)}</th>{cells}<td class="bars" aria-hidden="true">{bars}</td></tr>'
        )
    return (
        "<table><caption>The most probable classes</caption>"
        f'<thead><tr><th scope="col">class</th>{heads}<td class="bars"></td></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def _cams(view: View) -> str:
    results: list[CamResult] = [view.before]
    names = [view.before_name]
    alt = f"Grad-CAM of {view.before_name}"
    if view.after is not None:
        results.append(view.after)
        names.append(view.after_name)
        alt += f", and of {view.after_name} when pulled"
    row = CamRow("the image", view.label, view.pixels, results, names)
    caption = "Where it looks (Grad-CAM)" + (f": {AS_IS}, then {PULLED}" if view.after is not None else "")
    with tempfile.TemporaryDirectory() as folder:
        return _figure(plot_cams([row], Path(folder) / "cam.png"), alt, caption)


def _scales(view: View) -> str:
    if not view.weights:
        return ""
    curves = {AS_IS: view.weights} | ({PULLED: view.moved} if view.after is not None else {})
    alt = "; ".join(
        f"stage {stage}: mean weight {float(weights.mean()):.2f}"
        + (f", pulled {float(view.moved[stage].mean()):.2f}" if view.after is not None else "")
        for stage, weights in view.weights.items()
    )
    caption = "What each channel is multiplied by, in the last attention of each stage"
    with tempfile.TemporaryDirectory() as folder:
        return _figure(plot_stages(curves, Path(folder) / "scales.png"), alt, caption)


def _figure(picture: Path, alt: str, caption: str) -> str:
    data = base64.b64encode(picture.read_bytes()).decode()
    return (
        f'<figure><figcaption>{text(caption)}</figcaption><img alt="{text(alt)}" '
        f'src="data:image/png;base64,{data}"></figure>'
    )
