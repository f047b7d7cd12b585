"""The page in a browser: it sorts, fits a phone, and asks the network for nothing."""

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from excite.comparison.page import page
from excite.comparison.plan import Plan, make_plan
from excite.comparison.results import Results, Row
from excite.comparison.statistics import paired_gain
from excite.comparison.variants import Variant
from excite.measure.bench import environment as bench_environment

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--disable-quic"]  # fmt: skip


def results() -> Results:
    plan = make_plan("none,se,eca", seeds=2)
    base = {"macs": 1_000_000, "latency_spread": (0.9, 1.1), "step_spread": (0.9, 1.1), "size": 16, "batch": 64}
    rows = []
    for i, (method, accuracy) in enumerate((("none", 0.5), ("se", 0.9), ("eca", 0.7))):
        cost = base | {"parameters": 270_000 + i, "latency_ratio": 1 + i / 10, "step_ratio": 1 + i / 10}
        cost["training_memory"] = 10_000_000 + i
        values = [accuracy, accuracy + 0.01]
        gain = paired_gain(values, [0.5, 0.51]) if i else None
        variant, by_seed = plan.variants[i], dict(enumerate(values))
        rows.append(Row(method, variant, "none", by_seed, by_seed, accuracy, 0.007, gain, cost))
    return Results(plan, rows, 6, 6, None)


HOSTILE = "<script>alert('\"&{{rows}}')</script><img src=x onerror=y>"


def test_page_escapes_whatever_it_shows(tmp_path: Path) -> None:
    """Names of data, networks, methods, options, pictures and machines, in the text and in attributes."""
    whole = page(results(), [])
    found = results()
    methods = ("none", HOSTILE, "eca")
    changes = {HOSTILE: HOSTILE}
    variants = tuple(Variant(name, HOSTILE, {HOSTILE: HOSTILE}, label=name) for name in methods)
    plan = Plan(variants, f"imagefolder:{HOSTILE}", recipe="digits", seeds=2, changes=changes)
    rows = [
        replace(row, name=name, variant=variant, baseline=HOSTILE)
        for row, name, variant in zip(found.rows, methods, variants, strict=True)
    ]
    picture = tmp_path / f"{HOSTILE.replace('/', '')}.png"
    picture.write_bytes(b"no picture")
    environment = {**bench_environment("cpu"), "processor": HOSTILE, "gpu": HOSTILE}
    text = page(Results(plan, rows, 5, 6, environment), [picture])
    assert text.count("<script>") == whole.count("<script>")
    assert text.count("</script>") == whole.count("</script>")
    assert "<img src=x" not in text
    assert text.count("&lt;script&gt;") >= 6
    assert text.count('"results"') == whole.count('"results"')
    assert len(re.findall("<tr>", text)) == len(re.findall("<tr>", whole))  # a name is no place in the page


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium (Debian: apt-get install chromium)")
def test_sorting_in_a_browser(tmp_path: Path) -> None:
    text = page(results(), [])
    click = "<script>heads[6].firstChild.click(); heads[6].firstChild.click();</script></body>"
    (tmp_path / "report.html").write_text(text.replace("</body>", click))
    dom = subprocess.run(
        [str(CHROMIUM), *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", f"file://{tmp_path}/report.html"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    body = dom[dom.index('id="results"') :]
    assert re.findall(r'<th scope="row" data-key="(\w+)"', body)[:3] == ["se", "eca", "none"]
    assert 'aria-sort="descending"' in body


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium (Debian: apt-get install chromium)")
def test_it_fits_a_phone(tmp_path: Path) -> None:
    probe = "<script>document.title = 'w' + document.documentElement.scrollWidth;</script></body>"
    (tmp_path / "report.html").write_text(page(results(), []).replace("</body>", probe))
    common = [str(CHROMIUM), *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--window-size=500,900"]
    dom = subprocess.run([*common, "--dump-dom", f"file://{tmp_path}/report.html"],
                         capture_output=True, text=True, check=True).stdout  # fmt: skip
    assert int(re.search(r"<title>w(\d+)</title>", dom).group(1)) <= 500  # nothing sticks out: tables scroll inside
    picture = tmp_path / "phone.png"
    subprocess.run([*common, f"--screenshot={picture}", f"file://{tmp_path}/report.html"],
                   capture_output=True, check=True)  # fmt: skip
    assert picture.stat().st_size > 5000
