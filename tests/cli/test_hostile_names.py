"""Names of strangers (classes, files, ids): nothing reaches the terminal raw, nothing leaves the output folder."""

import json
import os
from pathlib import Path

import pytest
import torch
from PIL import Image

from excite.checkpoints import save_bundle
from excite.cli.main import main
from excite.common.files import safe_name, write_text
from excite.common.tables import printable
from excite.models import NetworkSpec

HOW = {"size": 16, "resize": 16, "mean": [0.5] * 3, "std": [0.25] * 3}
CLASSES = sorted([
    "\x1b[31mred\x1b]0;title\x07", "two\nlines", "$\\frac{", "<script>alert(1)<", "[bold][link=x]", "\u202eevil\u2069",
    "..", "con", "x" * 200, "\x9b31m", "zero\u200bwidth", "tab\there", "名前",
])  # fmt: skip
RAW = set("\x1b\x07\x9b\u202e\u2069\u200b\t\r")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network with hostile class names, and a data set whose folders have them."""
    root = tmp_path_factory.mktemp("names")
    names = [name for name in CLASSES if name != ".."]
    for split in ("train", "val"):
        for i, name in enumerate(names):
            folder = root / "data" / split / name
            folder.mkdir(parents=True)
            Image.new("RGB", (16, 16), (20 * i, 0, 0)).save(folder / f"a\x1b[2J{i}.png")
    spec = NetworkSpec("eca_resnet20", len(names), options={"width": 4}, class_names=names, preprocess=HOW)
    torch.manual_seed(0)
    save_bundle(root / "net.safetensors", spec.build(), spec)
    return root


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    code = main([str(word) for word in words])
    captured = capsys.readouterr()
    text = captured.out + captured.err
    assert not RAW & set(text), [c for c in text if c in RAW]
    return code, text


def test_predict(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = run(capsys, "predict", place / "net.safetensors", place / "data/val", "--top", 99)
    assert code == 0
    assert len(text.splitlines()) == len(CLASSES) - 1
    assert "\\x1b[31mred" in text
    assert "two\\nlines" in text


def test_test_and_its_picture(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net, data = place / "net.safetensors", f"imagefolder:{place / 'data'}"
    code, text = run(capsys, "test", net, "--data", data, "--out", tmp_path / "<script>")
    assert code == 0, text
    assert "\\x1b[31mred" in text
    assert (tmp_path / "<script>" / "confusion.png").is_file()


def test_explain(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = next((place / "data/val").rglob("*.png"))
    words = ["explain", place / "net.safetensors", image, "--top", 12, "--data", f"imagefolder:{place / 'data'}"]
    code, _ = run(capsys, *words, "--out", tmp_path / "out")
    assert code == 0
    assert {p.parent for p in tmp_path.rglob("*.png")} == {tmp_path / "out"}


def test_errors(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = run(capsys, "predict", place / "no\x1b[31m\nsuch.ckpt", place / "data")
    assert code == 2
    assert len(text.splitlines()) == 1


def test_detection(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Image ids and names of categories of a results file: pictures stay in --out."""
    ids = [
        "/../../../x",
        "../../y",
        str(tmp_path / "z"),
        "a\0b",
        "n\nl",
        "x" * 900,
        "\u202e",
        "con",
        "",
        7,
        "../../y/.",
    ]
    root = tmp_path / "data"
    (root / "annotations").mkdir(parents=True)
    (root / "images").mkdir()
    Image.new("RGB", (16, 16)).save(root / "images/a.png")
    names = [name[:60] for name in CLASSES]
    content = {
        "images": [{"id": i, "file_name": "a.png", "width": 16, "height": 16} for i in ids],
        "categories": [{"id": i, "name": name} for i, name in enumerate(names, 1)],
        "annotations": [
            {"id": i, "image_id": image, "category_id": i, "bbox": [1, 1, 8, 8], "area": 64, "iscrowd": 0}
            for i, image in enumerate(ids, 1)
        ],
    }
    (root / "annotations/instances_val.json").write_text(json.dumps(content))
    found = [{"image_id": a["image_id"], "category_id": a["category_id"], "bbox": a["bbox"], "score": 0.9}
             for a in content["annotations"]]  # fmt: skip
    (root / "found.json").write_text(json.dumps(found))
    before = set(tmp_path.parent.rglob("*"))
    out = tmp_path / "out"
    code, _ = run(capsys, "detect", "test", "--results", root / "found.json", "--data", f"coco:{root}", "--out", out)
    assert code == 0
    new = [path for path in set(tmp_path.parent.rglob("*")) - before if path.is_file()]
    assert len([p for p in new if p.suffix == ".jpg"]) == len(ids)
    assert all(out in path.parents for path in new)


HOSTILE = [
    "../../x", "/etc/passwd", "a\0b", "a\nb", "x" * 5000, "é" * 5000, "\u202egnp.exe", "con", "NUL.txt", "aux", "", ".",
    "..", ".hidden", "-rf", "a/b\\c", "C:\\x", "a:b", "*?",
    "\udcff", "%2e%2e", "~", "COM1", "trailing.", " ", 7, None, ["x"],
]  # fmt: skip


def test_every_name_of_a_file_is_safe(tmp_path: Path) -> None:
    taken: set[str] = set()
    for name in HOSTILE:
        file = tmp_path / f"{safe_name(name, taken)}.jpg"
        assert os.path.normpath(file) == str(file)
        assert file.parent == tmp_path
        assert not file.name.startswith((".", "-"))
        assert printable(file.name) == file.name
        assert len(os.fsencode(file.name)) < 150
        write_text(file, "x")
    assert len(list(tmp_path.iterdir())) == len(HOSTILE)


@pytest.mark.parametrize(
    "recipe", ["../../x", "/etc/passwd", "a\0b", "x\ny", "x" * 5000, "../x.yaml", "\u202e.yaml", "."]
)
def test_names_of_recipes(recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = run(capsys, "train", "--recipe", recipe, "--out", tmp_path / "out")
    assert code == 2
    assert len(text.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_printable() -> None:
    assert printable("plain, ünï, 名前, עברית, 👩‍💻, nbsp\u00a0") == "plain, ünï, 名前, עברית, 👩‍💻, nbsp\u00a0"
    for text in CLASSES:
        assert not RAW & set(printable(text))
        assert len(printable(text).splitlines()) == 1
    assert printable("\udcff\x00\n\u2028\u0085") == "\\udcff\\x00\\n\\u2028\\x85"
