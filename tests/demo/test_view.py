"""What the page shows, without a page: numbers, HTML, samples, uploads."""

import io
import pickle
import socket
import zlib
from importlib.util import find_spec

import pytest
import torch

import excite
from excite.cli.main import main
from excite.data.preprocess import UnreadableImageError
from excite.demo.page import render
from excite.demo.samples import SAMPLES, SIDE, sample
from excite.demo.view import MOST_BYTES, encoded, look, read_upload, stages_of
from excite.explain import Network, find_sites, open_networks, pulled
from excite.models import describe
from excite.pretrained import bundled

without_gradio = pytest.mark.skipif(find_spec("gradio") is None, reason="the extra demo is not installed")
PREPARED = {"size": 32, "resize": 32, "mean": [0.5] * 3, "std": [0.25] * 3}


@pytest.fixture(scope="module")
def eca() -> Network:
    return open_networks(["eca_resnet20.cifar10"])[0]


def untrained(name: str, **changes: object) -> Network:
    torch.manual_seed(0)
    model = excite.create_model(name, num_classes=3).eval()
    return Network(name, name, model, describe(model, preprocess=PREPARED, **changes))


def test_as_it_is(eca: Network) -> None:
    view = look(eca, sample("ship"), {1: 0.0, 2: 0.0, 3: 0.0, 4: 1.0})  # the network has no stage 4
    x = eca.preprocess.batch([sample("ship")])
    with torch.no_grad():
        expected = eca.model(x)[0].softmax(0)
    top = expected.topk(5)
    assert [g.name for g in view.guesses] == [eca.class_name(int(i)) for i in top.indices]
    assert [g.before for g in view.guesses] == pytest.approx(top.values.tolist(), abs=1e-5)
    assert [g.before for g in view.guesses] == [g.after for g in view.guesses]
    assert view.after is None
    assert sorted(view.weights) == [1, 2, 3]
    assert view.notes == []


@pytest.mark.parametrize("other", [None, "frog"])
def test_pulled(eca: Network, other: str | None) -> None:
    picture = None if other is None else sample(other)
    view = look(eca, sample("ship"), {2: 1.0}, picture)
    x = eca.preprocess.batch([sample("ship")])
    with torch.no_grad():
        if picture is None:
            with pulled(eca.model, {2: 1.0}):
                expected = eca.model(x)[0].softmax(0)
            assert torch.equal(view.moved[2], torch.ones(32))
        else:
            theirs = look(eca, picture, {}).weights
            torch.testing.assert_close(view.moved[2], theirs[2])
            assert not torch.allclose(view.moved[2], view.weights[2], atol=1e-3)
            expected = None
    assert torch.equal(view.moved[1], view.weights[1])  # before the stage nothing moves
    assert not torch.equal(view.moved[3], view.weights[3])  # behind it maps and weights do
    names = eca.card.class_names
    assert names is not None
    if expected is not None:
        for guess in view.guesses:
            assert guess.after == pytest.approx(float(expected[names.index(guess.name)]), abs=1e-5)
    assert view.after is not None
    assert view.after_name == max(view.guesses, key=lambda guess: guess.after).name


def test_the_weights_of_the_same_picture_change_nothing(eca: Network) -> None:
    view = look(eca, sample("ship"), {1: 1.0, 2: 1.0, 3: 1.0}, sample("ship"))
    for guess in view.guesses:
        assert guess.after == pytest.approx(guess.before, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "note", "drawn"),
    [
        ("resnet20", "it has no attention: there is nothing to pull", False),
        ("gc_resnet20", "there are no channel weights to draw", False),
        ("psa_resnet50_cifar", "takes the place of a convolution", True),
    ],
)
def test_what_is_missing_is_said(name: str, note: str, drawn: bool) -> None:
    view = look(untrained(name), sample("car"), {1: 1.0})
    assert any(note in said for said in view.notes)
    assert bool(view.weights) == drawn
    assert note[1:] in render(view)


def test_attention_that_adds_can_be_switched_off() -> None:
    network = untrained("gc_resnet20")
    for parameter in network.model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    view = look(network, sample("car"), {1: 1.0, 2: 1.0, 3: 1.0})
    assert [g.after for g in view.guesses] != [g.before for g in view.guesses]


def test_names_of_others_are_text() -> None:
    hostile = '<script>alert("x")</script>\x1b[31m'
    network = untrained("eca_resnet20", class_names=[hostile] * 3)
    network.label = "<img src=x onerror=alert(1)>"
    page = render(look(network, sample("bird"), {1: 0.5}))
    assert "<script" not in page
    assert "<img src=x" not in page
    assert "\x1b" not in page
    assert "&lt;script&gt;" in page
    assert "http" not in page.replace("data:image", "")
    assert page.count("<img alt=") == page.count("<img ") == 2


def test_stages_are_those_of_all_networks() -> None:
    assert stages_of([untrained("resnet20")]) == []
    assert stages_of([untrained("resnet20"), untrained("eca_resnet20"), untrained("eca_resnet18")]) == [1, 2, 3, 4]


def test_samples_are_drawn_alike_every_time() -> None:
    pictures = {name: sample(name) for name in SAMPLES}
    for name, picture in pictures.items():
        assert picture.size == (SIDE, SIDE)
        assert picture.mode == "RGB"
        assert picture.tobytes() == sample(name).tobytes()
    assert len({picture.tobytes() for picture in pictures.values()}) == len(SAMPLES)


def test_bundled_networks_know_a_sample() -> None:
    """A page whose first picture no network recognises would teach nothing."""
    sources = [f"{name}.{data}" for data, names in bundled().items() for name in names]
    networks = open_networks(sources)
    assert len({network.label for network in networks}) == len(sources) >= 4
    right = 0
    for network in networks:
        logits = network.model(network.preprocess.batch([sample("ship"), sample("airplane")]))
        right += sum(
            network.class_name(int(i)) == name for i, name in zip(logits.argmax(1), ["ship", "airplane"], strict=True)
        )
    assert right >= len(networks)


def bomb(side: int) -> bytes:
    """A PNG whose header promises `side` by `side` pixels."""
    chunk = b"IHDR" + side.to_bytes(4) * 2 + bytes([1, 0, 0, 0, 0])
    header = (13).to_bytes(4) + chunk + zlib.crc32(chunk).to_bytes(4)
    return b"\x89PNG\r\n\x1a\n" + header + bytes(4) + b"IDAT" + zlib.crc32(b"IDAT").to_bytes(4)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "cannot identify"),
        (b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", "cannot identify"),
        (pickle.dumps({"a": 1}), "cannot identify"),
        (b"\0" * (MOST_BYTES + 1), "more than 8 MB"),
        (bomb(8000), "8000 x 8000 pixels; 40 million are the most"),
        (encoded(sample("ship"))[:900], ""),
    ],
    ids=["empty", "svg", "pickle", "too many bytes", "too many pixels", "cut off"],
)
def test_uploads_that_are_refused(content: bytes, reason: str) -> None:
    with pytest.raises(UnreadableImageError, match=f"cannot read image that was uploaded: .*{reason}"):
        read_upload(content)


def test_uploads_that_are_read() -> None:
    for kind in ("PNG", "JPEG", "WEBP", "BMP", "GIF"):
        buffer = io.BytesIO()
        sample("frog").save(buffer, kind)
        assert read_upload(buffer.getvalue()).size == (SIDE, SIDE)


@without_gradio
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--port", "70000"], "--port must be from 0 (a free one) to 65535, got 70000"),
        (["nowhere.ckpt"], "no checkpoint 'nowhere.ckpt'"),
        (["eca_resnet20.cifar10", "--model", "resnet20"], "does not fit"),
        (["eca_resnet20.cifar10", "--host", "203.0.113.9"], "cannot listen on 203.0.113.9 port 7860"),
    ],
)
def test_wrong_words_are_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", *words]) in (1, 2)
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


@without_gradio
def test_a_taken_port_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["demo", "eca_resnet20.cifar10", "--port", str(port)]) == 2
    assert f"cannot listen on 127.0.0.1 port {port}: " in capsys.readouterr().err


def test_sites_are_left_without_hooks(eca: Network) -> None:
    look(eca, sample("ship"), {1: 1.0}, sample("frog"))
    assert not any(module._forward_hooks for module in eca.model.modules())
    assert len(find_sites(eca.model)) == 9
