"""The page itself: Gradio's widgets around `look` and `render`, served on this machine, asking nothing of the net."""

import os
import socket
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from excite.common.extras import require
from excite.data.preprocess import UnreadableImageError
from excite.demo.page import STYLE, render, render_error
from excite.demo.samples import SAMPLES, sample
from excite.demo.view import MOST_BYTES, encoded, look, read_upload, stages_of
from excite.errors import ExciteError, UsageError
from excite.explain.intervention import Amounts
from excite.explain.networks import Network

if TYPE_CHECKING:
    import fastapi
    import gradio
    import uvicorn
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Any: gradio is an extra, so its classes are not named here.

TITLE = "What channel attention does"
INTRODUCTION = (
    "Pick a picture and two networks. Each stage of a network multiplies its channels by weights. A slider pulls the "
    "weights of one stage: all the way to the right they are one, so that the stage has no attention, or those of "
    "another picture. All of it runs on this machine; pictures are forgotten when the page is stopped."
)
ONE, OTHER = "one (attention off)", "the weights of the other picture"
NONE = "none"
LOOPBACK = ("127.0.0.1", "::1", "localhost")
# The page may load and ask this server alone; Gradio's code makes functions of text, and styles in place.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; "
    "frame-ancestors 'none'; form-action 'none'; base-uri 'self'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class Views:
    """The networks of a page, and what its widgets are answered: HTML for the first and the second network."""

    def __init__(self, networks: Sequence[Network]) -> None:
        self.networks = {network.label: network for network in networks}
        self.stages = stages_of(networks)
        self._lock = threading.Lock()  # hooks hang on the networks, and matplotlib's settings on the process

    def update(
        self, path: str | None, target: str, other_path: str | None, first: str, second: str, *amounts: float
    ) -> tuple[str, str]:
        """Return both parts of the page. amounts: the sliders', in the order of `stages`."""
        try:
            picture = _picture(path)
            other = _picture(other_path) if target == OTHER else None
        except UnreadableImageError as error:
            return render_error(f"The picture cannot be read: {error.reason}."), ""
        pulls = dict(zip(self.stages, map(float, amounts), strict=True))
        return self._part(first, picture, other, pulls), self._part(second, picture, other, pulls)

    def _part(self, label: str, picture: Image.Image | None, other: Image.Image | None, pulls: Amounts) -> str:
        if label not in self.networks or picture is None:
            return ""
        try:
            with self._lock:
                return render(look(self.networks[label], picture, pulls, other))
        except ExciteError as error:
            return render_error(str(error))


def build(networks: Sequence[Network]) -> "gradio.Blocks":
    """Return the page for some networks, not yet served. Raises MissingLibraryError without the extra `demo`."""
    gr = _gradio()
    views = Views(networks)
    files = _samples()
    names, labels = list(files), list(views.networks)
    with gr.Blocks(title="excite demo", analytics_enabled=False, delete_cache=(600, 3600)) as page:
        gr.Markdown(f"# {TITLE}\n\n{INTRODUCTION}")
        with gr.Row():
            with gr.Column(min_width=300):
                picture = _image(gr, "Picture", files[names[0]])
                sample_name = gr.Radio(names, value=names[0], label="Or a sample, drawn by excite")
            with gr.Column(min_width=300):
                sliders = [
                    gr.Slider(0, 1, value=0, step=0.05, label=f"Stage {stage}: how far its weights are pulled")
                    for stage in views.stages
                ]
                target = gr.Radio([ONE, OTHER], value=ONE, label="Pulled towards")
                reset = gr.Button("Let go: all stages as they are")
                with gr.Column(visible=False) as second_picture:
                    other = _image(gr, "The other picture", files[names[1]])
                    other_name = gr.Radio(names, value=names[1], label="Or a sample")
        with gr.Row():
            first = gr.Dropdown(labels, value=labels[0], label="Network", filterable=False, min_width=200)
            beside = labels[1] if len(labels) > 1 else NONE
            second = gr.Dropdown([*labels, NONE], value=beside, label="Beside it", filterable=False, min_width=200)
        outputs = []
        with gr.Row():
            for label in ("first network", "second network"):
                with gr.Column(min_width=320):  # on a phone they stand under each other
                    outputs.append(gr.HTML(label=label))
        inputs = [picture, target, other, first, second, *sliders]
        quiet = {"show_progress": "hidden", "api_visibility": "private"}
        gr.on(
            [page.load, *(widget.change for widget in inputs)], views.update, inputs, outputs,
            trigger_mode="always_last", concurrency_limit=1, **quiet,
        )  # fmt: skip
        for radio, image in ((sample_name, picture), (other_name, other)):
            radio.input(lambda name: str(files[name]), radio, image, **quiet)
        target.change(lambda value: gr.Column(visible=value == OTHER), target, second_picture, **quiet)
        reset.click(lambda: [0] * len(sliders), None, sliders, **quiet)
    return page


def _samples() -> dict[str, Path]:
    """Draw the samples into Gradio's folder; return their files by name."""
    folder = Path(tempfile.mkdtemp(dir=os.environ.get("GRADIO_TEMP_DIR")))
    files = {name: folder / f"{name}.png" for name in SAMPLES}
    for name, file in files.items():
        file.write_bytes(encoded(sample(name)))
    return files


class Guard:
    """Middleware that puts `HEADERS` on every answer."""

    def __init__(self, app: "ASGIApp") -> None:
        self.app = app

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Answer a request."""
        from starlette.datastructures import MutableHeaders

        async def with_headers(message: "Message") -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        await self.app(scope, receive, with_headers)


def application(page: "gradio.Blocks", host: str, port: int) -> "fastapi.FastAPI":
    """Return the web application of a page: uploads limited, answers that let the page load nothing from elsewhere.

    On a loopback address only that address is answered to, so that no web site reaches the page by another name.
    """
    gr = _gradio()
    from fastapi import FastAPI
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    if host in LOOPBACK:
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost", "[::1]"])
    app.add_middleware(Guard)
    fonts = ["system-ui", "sans-serif"]
    theme = gr.themes.Base(primary_hue="blue", font=fonts, font_mono=["ui-monospace", "monospace"])
    return gr.mount_gradio_app(
        app, page, path="", server_name=host, server_port=port, footer_links=[], run_history=False, allowed_paths=[],
        max_file_size=MOST_BYTES, ssr_mode=False, mcp_server=False, pwa=False, enable_monitoring=False, theme=theme,
        css=STYLE, show_error=False,
    )  # fmt: skip


@contextmanager
def server(networks: Sequence[Network], host: str, port: int) -> Iterator["tuple[uvicorn.Server, str, socket.socket]"]:
    """Yield (server, its address as a URL, its socket) of the page; uploaded pictures are deleted on leaving.

    port: 0 takes a free one. Raises UsageError for an address that cannot be had.
    """
    require("gradio", "uvicorn")
    listening = _listen(host, port)
    import uvicorn

    port = listening.getsockname()[1]
    with listening, tempfile.TemporaryDirectory(prefix="excite-demo-") as folder, _pictures_in(folder):
        app = application(build(networks), host, port)
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)
        yield uvicorn.Server(config), f"http://{f'[{host}]' if ':' in host else host}:{port}", listening


@contextmanager
def _pictures_in(folder: str) -> Iterator[None]:
    before = os.environ.get("GRADIO_TEMP_DIR")
    os.environ["GRADIO_TEMP_DIR"] = folder
    try:
        yield
    finally:
        if before is None:
            os.environ.pop("GRADIO_TEMP_DIR")
        else:
            os.environ["GRADIO_TEMP_DIR"] = before


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(
            f"cannot listen on {host} port {port}: {reason}; try another --port (0 takes a free one) or --host"
        ) from error
    return listening


def _gradio() -> Any:  # an extra: its module has no type here
    require("gradio")
    import gradio

    return gradio


def _image(gr: Any, label: str, file: Path) -> Any:
    image = gr.Image(str(file), label=label, type="filepath", sources=["upload", "clipboard"], height=240, buttons=[])
    # Gradio would open the file before `read_upload` does, and say nothing of what is no picture.
    image.preprocess = lambda payload: None if payload is None else payload.path
    return image


def _picture(path: str | None) -> Image.Image | None:
    """The picture in a file of Gradio's; it is read here, by content, and its name is never looked at."""
    return None if path is None else read_upload(_first_bytes(Path(path)))


def _first_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MOST_BYTES + 1)
