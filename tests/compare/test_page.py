"""The page in a browser: it sorts, fits a phone, and asks the network for nothing."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from excite.comparison.page import page
from excite.comparison.plan import Plan
from excite.comparison.results import Results, Row
from excite.comparison.statistics import paired_gain

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--disable-quic"]  # fmt: skip


def results() -> Results:
    plan = Plan(("none", "se", "eca"), "resnet20", "digits", seeds=2)
    base = {"macs": 1_000_000, "latency_spread": (0.9, 1.1), "throughput_spread": (0.9, 1.1), "size": 16, "batch": 64}
    rows = []
    for i, (method, accuracy) in enumerate((("none", 0.5), ("se", 0.9), ("eca", 0.7))):
        cost = base | {"parameters": 270_000 + i, "latency_ratio": 1 + i / 10, "throughput_ratio": 1 - i / 10}
        cost["training_memory"] = 10_000_000 + i
        values = [accuracy, accuracy + 0.01]
        gain = paired_gain(values, [0.5, 0.51]) if i else None
        rows.append(Row(method, dict(enumerate(values)), dict(enumerate(values)), accuracy, 0.007, gain, cost))
    return Results(plan, rows, 6, 6, None)


def test_page_escapes_what_it_shows() -> None:
    found = results()
    plan = Plan(found.plan.methods, found.plan.backbone, "imagefolder:<script>", seeds=2)
    text = page(Results(plan, found.rows, 6, 6, None), [])
    assert "<script>:" not in text
    assert "imagefolder:&lt;script&gt;" in text


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium (Debian: apt-get install chromium)")
def test_sorting_in_a_browser(tmp_path: Path) -> None:
    text = page(results(), [])
    click = "<script>heads[6].firstChild.click(); heads[6].firstChild.click();</script></body>"
    (tmp_path / "report.html").write_text(text.replace("</body>", click))
    dom = subprocess.run(
        [str(CHROMIUM), *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", f"file://{tmp_path}/report.html"],
        capture_output=True, text=True, check=True, timeout=120,
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
                         capture_output=True, text=True, check=True, timeout=120).stdout  # fmt: skip
    assert int(re.search(r"<title>w(\d+)</title>", dom).group(1)) <= 500  # nothing sticks out: tables scroll inside
    picture = tmp_path / "phone.png"
    subprocess.run([*common, f"--screenshot={picture}", f"file://{tmp_path}/report.html"],
                   capture_output=True, check=True, timeout=120)  # fmt: skip
    assert picture.stat().st_size > 5000
