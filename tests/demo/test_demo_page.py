"""The page in a browser: nothing is asked of the net, the keyboard does it all, hostile files are harmless."""

import os
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from excite.demo.samples import sample
from excite.demo.view import MOST_BYTES, encoded

pytestmark = pytest.mark.slow
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PICTURES = os.environ.get("EXCITE_SCREENSHOTS")  # a folder for the pictures of the docs
WAIT = 60_000  # milliseconds


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    pytest.importorskip("gradio", reason="the extra demo is not installed")
    work = tmp_path_factory.mktemp("served")
    (work / "secret.txt").write_text("secret")
    command = [sys.executable, "-u", "-m", "excite", "demo", "--port", "0"]
    with subprocess.Popen(command, cwd=work, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            line = server.stdout.readline()
            found = re.match(r"(http://127\.0\.0\.1:\d+)  \(for this machine alone; Ctrl\+C stops it\)", line)
            assert found, line
            wait_for(found.group(1))
            yield found.group(1)
        finally:
            server.terminate()
            server.wait(20)


def wait_for(url: str) -> None:
    for _ in range(100):
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except urllib.error.URLError:
            time.sleep(0.2)
            continue
        return


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine (Debian: apt-get install chromium)")
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with api.sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


class Visit:
    """A page that is open; it remembers what was asked for and what the browser complained about."""

    def __init__(self, browser: Any, url: str, width: int, height: int, **options: Any) -> None:
        self.page = browser.new_page(viewport={"width": width, "height": height}, **options)
        self.asked: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("console", lambda m: self.complaints.append(m.text) if m.type == "error" else None)
        self.page.on("dialog", lambda dialog: self.complaints.append(f"dialog {dialog.message}"))
        self.page.goto(url)
        self.page.locator("section.excite table").nth(1).wait_for(timeout=WAIT)

    def picture(self, name: str, **options: Any) -> None:
        if PICTURES:
            self.page.screenshot(path=str(Path(PICTURES) / name), **options)


@pytest.fixture
def visit(browser: Any, url: str) -> Iterator[Visit]:
    visit = Visit(browser, url, 1280, 900)
    yield visit
    visit.page.close()


def first(visit: Visit) -> Any:
    return visit.page.locator("section.excite").first


def test_nothing_is_asked_of_others(visit: Visit, url: str) -> None:
    visit.page.wait_for_load_state("networkidle")
    elsewhere = [asked for asked in visit.asked if not asked.startswith((url, "data:", "blob:"))]
    assert elsewhere == []
    assert visit.complaints == []


@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)])
def test_it_fits(browser: Any, url: str, width: int, height: int) -> None:
    visit = Visit(browser, url, width, height)
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
    parts = visit.page.locator("section.excite").all()
    assert len(parts) == 2
    for part in parts:
        assert part.bounding_box()["width"] > 300
    for image in visit.page.locator("section.excite img").all():
        assert image.get_attribute("alt")
        assert image.evaluate("i => i.naturalWidth") > 0
    if width < 500:
        visit.picture("demo_phone.png", full_page=True)
    visit.page.close()


def test_the_keyboard_moves_a_stage(visit: Visit) -> None:
    before = first(visit).inner_text()
    assert "Pulled" not in before
    slider = visit.page.get_by_role("slider").last
    slider.focus()
    slider.press("End")
    visit.page.get_by_text("Pulled, it").first.wait_for(timeout=WAIT)
    visit.page.wait_for_load_state("networkidle")
    visit.picture("demo_pulled.png", full_page=True)
    button = visit.page.get_by_role("button", name="Let go")
    button.focus()
    button.press("Enter")
    visit.page.get_by_text("Pulled, it").first.wait_for(state="detached", timeout=WAIT)
    assert first(visit).inner_text() == before


def test_everything_can_be_reached_by_tab(visit: Visit) -> None:
    reached = set()
    visit.page.locator("body").focus()
    for _ in range(60):
        visit.page.keyboard.press("Tab")
        reached.add(
            visit.page.evaluate(
                "(e => (e.getAttribute('aria-label') || e.innerText || e.value || e.type || '').trim())"
                "(document.activeElement)"
            )
        )
    words = "\n".join(reached)
    for part in ("ship", "one (attention off)", "Let go", "range slider for", "Network", "Beside it"):
        assert part.lower() in words.lower(), f"{part} cannot be reached: {sorted(reached)}"


def test_samples_and_the_weights_of_another(visit: Visit) -> None:
    before = first(visit).inner_text()
    visit.page.get_by_role("radio", name="frog").first.focus()
    visit.page.keyboard.press("Space")
    visit.page.wait_for_function(
        "text => document.querySelector('section.excite').innerText !== text", arg=before, timeout=WAIT
    )
    visit.page.get_by_role("radio", name="the weights of the other picture").check()
    visit.page.get_by_text("The other picture").first.wait_for(timeout=WAIT)
    slider = visit.page.get_by_role("slider").last
    slider.focus()
    slider.press("End")
    visit.page.get_by_text("Pulled, it").first.wait_for(timeout=WAIT)


def upload(visit: Visit, name: str, content: bytes) -> None:
    visit.page.get_by_role("button", name="Remove").first.click()
    files = [{"name": name, "mimeType": "image/png", "buffer": content}]
    visit.page.locator("input[type=file]").first.set_input_files(files)


def test_hostile_names_and_files(visit: Visit) -> None:
    upload(visit, "<img src=x onerror=alert(1)>'\"; ..\\..\\x.png", encoded(sample("airplane")))
    visit.page.locator("section.excite table").nth(1).wait_for(timeout=WAIT)
    visit.page.get_by_text("airplane").first.wait_for(timeout=WAIT)
    assert visit.complaints == []
    assert visit.page.locator("img[src=x]").count() == 0
    upload(visit, "no picture.png", b"<html><script>alert(1)</script>")
    visit.page.get_by_role("alert").filter(has_text="The picture cannot be read").first.wait_for(timeout=WAIT)
    assert not [c for c in visit.complaints if "dialog" in c]


def status(url: str, path: str, **headers: str) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url + path, headers=headers), timeout=20) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def test_what_the_server_keeps_to_itself(url: str) -> None:
    for path in ("/etc/passwd", "secret.txt", "../secret.txt", "%2e%2e/secret.txt", "/proc/self/environ"):
        assert status(url, f"/gradio_api/file={path}") in (403, 404), path
    assert status(url, "/docs") == 404
    assert status(url, "/", Host="evil.example") == 400
    with urllib.request.urlopen(url, timeout=20) as answer:
        policy = answer.headers["Content-Security-Policy"]
        text = answer.read().decode()
    assert "default-src 'self'" in policy
    assert "http" not in policy
    assert not re.search(r"<(script|link|img|iframe)\b[^>]*(src|href)=.https?://(?!127\.0\.0\.1)", text)


def test_large_files_are_refused(url: str) -> None:
    boundary = "x7"
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'.encode()
    body = head + b"\0" * (MOST_BYTES + 2**20) + f"\r\n--{boundary}--\r\n".encode()
    request = urllib.request.Request(
        f"{url}/gradio_api/upload", body, {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=30)
    assert refused.value.code == 413
