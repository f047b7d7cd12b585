"""Small valid samples of every format that is read, what each is opened with, and words that matter in it."""

import contextlib
import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image

from excite import load
from excite.card import parse_card
from excite.checkpoints.bundle import save_bundle
from excite.checkpoints.reading import read_checkpoint
from excite.common.files import write_json
from excite.comparison.plan import make_plan, save
from excite.comparison.results import collect
from excite.data import DataBundle, open_data
from excite.data.arrays import ArrayImages
from excite.data.preprocess import Preprocess, read_rgb
from excite.data.shards import verify, write_shards
from excite.detect.config import DetectConfig
from excite.detect.data import open_split
from excite.engine.config import read_run
from excite.errors import ExciteError
from excite.models import NetworkSpec, spec_of
from excite.ops.tail.native import build
from excite.train.config import TrainConfig

TEXT = [
    b"null",
    b"NaN",
    b"1e400",
    b"-1",
    b"99999999999999999999",
    b"[]",
    b"{}",
    b'""',
    b"true",
    b"\xff\xfe",
    b"../../x",
]
YAML = [
    *TEXT,
    b"!!python/object/apply:os.system [id]",
    b"&a [*a]",
    b"<<: *a",
    b"\t",
    b"evil.py:f",
    b"- ",
    b": ",
    b"---\n",
]
XML = [
    b"<!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/passwd'>]>",
    b"&b;",
    b"<object>",
    b"</object>",
    b"<xmin>1e400</xmin>",
    b"nan",
]
PICKLE = [b"cos\nsystem\n", b"(S'id'\ntR.", b"\x80\x04", b"cbuiltins\neval\n", b"}", b"]", b"N", b"."]
GRAPH = [b"Conv", b"Loop", b"../../x", b"/etc/passwd", b"\xff\xff\xff\xff\x0f", b'"-1"', b'"99999999999"', b"images"]
ZIP = [b"PK\x03\x04", b"PK\x05\x06", b"\xff\xff\xff\xff", b"\0\0\0\0"]


@dataclass(frozen=True)
class Format:
    """content: a valid file; open: reads the file at a path, or raises our error; name: the file's, in its folder.

    words: put in by the mutations; values: the content as plain values, where they are changed one by one, and write
    makes a file of them; share: of all mutants, those of slow readers are fewer.
    """

    content: bytes
    open: Callable[[Path], Any]
    name: str
    words: tuple[bytes, ...] = ()
    values: Any = None
    write: Callable[[Any], bytes] | None = None
    share: float = 1.0


def small_network() -> torch.nn.Module:
    torch.manual_seed(0)
    preparation = Preprocess(size=16, resize=16, mean=(0.5,) * 3, std=(0.5,) * 3).to_dict()
    spec = NetworkSpec(
        "eca_resnet20", 3, options={"width": 4}, class_names=["cat", "dog", "hen"], preprocess=preparation
    )
    return spec.build()


def formats(folder: Path, slow: bool) -> dict[str, Format]:
    """Return the formats; `folder` holds what lies beside the samples. slow: those too that take long to make."""
    network = small_network()
    spec = spec_of(network)
    found = {**checkpoints(network, spec, folder), **configurations(spec, folder), **images(), **data(folder)}
    found |= detection(folder) | kernels(folder)
    return found | exported(network, folder) if slow else found


def saved(content: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


def checkpoints(network: torch.nn.Module, spec: NetworkSpec, folder: Path) -> dict[str, Format]:
    state = network.state_dict()
    content = {
        "excite": spec.to_dict(),
        "state_dict": {f"model.{k}": v for k, v in state.items()},
        "excite_config": {"data": "digits"},
    }
    whole = saved(content)
    bundle = folder / "bundle.safetensors"
    save_bundle(bundle, network)
    tensors = bundle.read_bytes()
    length = int.from_bytes(tensors[:8], "little")
    header, body = json.loads(tensors[8 : 8 + length]), tensors[8 + length :]

    def with_header(values: Any) -> bytes:
        text = json.dumps(values).encode()
        return len(text).to_bytes(8, "little") + text + body

    def with_card(card: Any) -> bytes:
        return saved({**content, "excite": card})

    return {
        "ckpt": Format(whole, load, "x.ckpt", (*ZIP, *PICKLE)),
        "ckpt pickle": Format(pickle_of(whole), lambda p: load(repacked(p, whole)), "x.pkl", tuple(PICKLE)),
        "ckpt card": Format(whole, load, "x.ckpt", (), spec.to_dict(), with_card),
        "ckpt old": Format(old_format(state), read_checkpoint, "x.pth", tuple(PICKLE)),
        "safetensors": Format(tensors, load, "x.safetensors", tuple(TEXT)),
        "safetensors header": Format(tensors, load, "x.safetensors", (), header, with_header),
    }


def old_format(state: dict[str, torch.Tensor]) -> bytes:
    stream = io.BytesIO()
    torch.save(dict(list(state.items())[:6]), stream, _use_new_zipfile_serialization=False)
    return stream.getvalue()


def pickle_of(archive: bytes) -> bytes:
    return zipfile.ZipFile(io.BytesIO(archive)).read("archive/data.pkl")


def repacked(path: Path, archive: bytes) -> Path:
    """Write the archive with another pickle, so that sums of bytes do not refuse it before it is read."""
    target = path.with_suffix(".ckpt")
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(target, "w") as new:
        for entry in old.infolist():
            new.writestr(entry.filename, path.read_bytes() if entry.filename == "archive/data.pkl" else old.read(entry))
    return target


def configurations(spec: NetworkSpec, folder: Path) -> dict[str, Format]:
    train, detect = TrainConfig(epochs=2).recorded(), DetectConfig(epochs=2).recorded()

    def text(values: Any) -> bytes:
        return yaml.safe_dump(values, sort_keys=False).encode()

    def run_of(kind: type) -> Callable[[Path], Any]:
        def read(path: Path) -> Any:
            read_run(kind, path.parent)
            kind.from_run(path.parent).check()

        return read

    def recipe(path: Path) -> None:
        TrainConfig.from_recipe(recipe=str(path)).check()

    def card(path: Path) -> None:
        text = path.read_bytes().decode(errors="surrogateescape")
        NetworkSpec.from_dict(parse_card(text, "card"), "card").build()

    plan = make_plan(["none", "eca"], "resnet20", "digits", "auto", seeds=1, epochs=1, train={}, options=None)
    compared = folder / "compared"
    save(plan, compared)
    rows = "epoch,lr,train_loss,val_top1,val_top5\n1,0.1,2.0,0.5,0.9\n"
    summary = {"last_top1": 0.5, "last_top5": 0.9, "seconds": 1.0, "top1": 0.5, "top5": 0.9}
    for run in plan.runs(compared):
        run.folder.mkdir(parents=True)
        (run.folder / "metrics.csv").write_text(rows)
        write_json(run.folder / "summary.json", summary)
    first = next(iter(plan.runs(compared))).folder

    def beside(path: Path) -> Any:
        target = first / path.name
        whole = target.read_bytes()
        target.write_bytes(path.read_bytes())
        try:
            return collect(compared)
        finally:
            target.write_bytes(whole)

    values = spec.to_dict()
    return {
        "config.yaml": Format(text(train), run_of(TrainConfig), "config.yaml", tuple(YAML), train, text),
        "config.yaml detect": Format(text(detect), run_of(DetectConfig), "config.yaml", tuple(YAML), detect, text),
        "recipe": Format(
            text({"epochs": 3, "lr": 0.1}), recipe, "recipe.yaml", tuple(YAML), {"epochs": 3, "lr": 0.1}, text
        ),
        "card": Format(json.dumps(values).encode(), card, "card.json", tuple(TEXT), values, plain_json),
        "metrics.csv": Format(rows.encode(), beside, "metrics.csv", (*TEXT, b",", b"\n", b'"', b"\0")),
        "summary.json": Format(plain_json(summary), beside, "summary.json", tuple(TEXT), summary, plain_json),
    }


def plain_json(values: Any) -> bytes:
    return json.dumps(values).encode()


def picture(kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (9, 11, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


def images() -> dict[str, Format]:
    words = (b"IHDR", b"IDAT", b"IEND", b"\xff\xd8", b"\xff\xc4", b"\xff\xe1Exif", b"MM\0*", b"RIFF", *ZIP[2:])
    exif = Image.Exif()
    exif[0x0112] = 6
    made = {
        "png": picture("PNG"), "jpeg": picture("JPEG", exif=exif), "webp": picture("WEBP"), "gif": picture("GIF"),
        "tiff": picture("TIFF"), "tiff lzw": picture("TIFF", compression="tiff_lzw"), "bmp": picture("BMP"),
    }  # fmt: skip
    return {name: Format(content, read_rgb, f"x.{name.split()[0]}", words) for name, content in made.items()}


def data(folder: Path) -> dict[str, Format]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({"image": [{"bytes": picture("PNG")}] * 3, "label": [0, 1, 0]})
    stream = pa.BufferOutputStream()
    pq.write_table(table, stream)
    columns, shard = stream.getvalue().to_pybytes(), io.BytesIO()
    with tarfile.open(fileobj=shard, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for key in ("a/0", "b/0", "b/1"):
            for suffix, content in (("png", picture("PNG")), ("cls", b"1"), ("json", b'{"label": 1}')):
                entry = tarfile.TarInfo(f"{key}.{suffix}")
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))

    def opened(kind: str, pattern: str, content: bytes) -> Callable[[Path], Any]:
        def read(path: Path) -> None:
            (path.parent / path.name.replace("train", "val")).write_bytes(content)
            bundle = open_data(f"{kind}:{path.parent}{pattern}")
            for index in range(len(bundle.train)):
                bundle.train[index]

        return read

    sealed = shard.getvalue()
    out = folder / "shards"
    parts = {}
    for split in ("train", "val"):
        images, labels = torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.tensor([0, 1])
        parts[split] = ArrayImages(images, labels)
    preparation = Preprocess(8, 8, (0.5,) * 3, (0.5,) * 3).to_dict()
    write_shards(DataBundle("some", parts["train"], parts["val"], ["cat", "dog"], preparation), out)
    manifest, first = (out / "manifest.json").read_bytes(), (out / "train-000000.tar").read_bytes()

    def beside(name: str, whole: bytes) -> Callable[[Path], Any]:
        def read(path: Path) -> None:
            (out / name).write_bytes(path.read_bytes())
            try:
                for check in (lambda: open_data(f"wds:{out}").train[0], lambda: verify(out)):
                    with contextlib.suppress(ExciteError):  # the other one is asked too
                        check()
            finally:
                (out / name).write_bytes(whole)

        return read

    return {
        "shards manifest": Format(
            manifest, beside("manifest.json", manifest), "m.json", tuple(TEXT), json.loads(manifest), plain_json
        ),
        "shards tar": Format(
            first, beside("train-000000.tar", first), "s.tar", (b"ustar", b"\0" * 512, b"7777777"), share=0.5
        ),
        "parquet": Format(columns, opened("parquet", "", columns), "train-0.parquet", (b"PAR1", *ZIP[2:]), share=0.5),
        "wds": Format(
            sealed, opened("wds", "/{train,val}-0.tar", sealed), "train-0.tar", (b"ustar", b"\0" * 512, b"7777777")
        ),
    }


def detection(folder: Path) -> dict[str, Format]:
    root = folder / "coco"
    (root / "annotations").mkdir(parents=True)
    (root / "val").mkdir()
    for name in ("a.png", "b.png"):
        (root / "val" / name).write_bytes(picture("PNG"))
    runs = {"size": [9, 11], "counts": [40, 9, 50]}
    content = {
        "images": [{"id": i, "file_name": n, "width": 11, "height": 9} for i, n in ((1, "a.png"), (2, "b.png"))],
        "categories": [{"id": 1, "name": "cat"}, {"id": 7, "name": "dog"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 7, "bbox": [1, 1, 5, 5], "area": 25.0, "iscrowd": 0,
             "segmentation": [[1, 1, 6, 1, 6, 6, 1, 6]]},
            {"id": 2, "image_id": 2, "category_id": 1, "bbox": [0, 0, 11, 9], "iscrowd": 1, "segmentation": runs},
        ],
    }  # fmt: skip
    voc = folder / "voc"
    for part in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (voc / part).mkdir(parents=True)
    (voc / "ImageSets/Main/val.txt").write_text("a\n")
    (voc / "JPEGImages/a.jpg").write_bytes(picture("JPEG"))
    box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>6</xmax><ymax>6</ymax></bndbox>"
    xml = (
        "<annotation><filename>a.jpg</filename><size><width>11</width><height>9</height><depth>3</depth></size>"
        f"<object><name>cat</name><difficult>0</difficult>{box}</object></annotation>"
    )

    def read(spec: str, target: Path) -> Callable[[Path], Any]:
        def opened(path: Path) -> None:
            target.write_bytes(path.read_bytes())
            dataset = open_split(spec, "val", masks=spec.startswith("coco"))
            for index in range(len(dataset)):
                dataset[index]

        return opened

    annotations = root / "annotations/instances_val.json"
    return {
        "coco": Format(
            plain_json(content), read(f"coco:{root}", annotations), "coco.json", tuple(TEXT), content, plain_json
        ),
        "voc": Format(xml.encode(), read(f"voc:{voc}", voc / "Annotations/a.xml"), "voc.xml", (*XML, *TEXT)),
    }


def exported(network: torch.nn.Module, folder: Path) -> dict[str, Format]:
    from excite.export.convert import to_onnx_bytes
    from excite.export.runtime import describe, open_exported

    card = describe(spec_of(network), "fp32", 16, 1)
    example = torch.zeros(1, 3, 16, 16)
    found: dict[str, Format] = {}
    try:
        import onnx

        model = onnx.load_from_string(to_onnx_bytes(network.eval(), example, dynamic=False))
    except ImportError:
        return found

    def with_card(values: Any) -> bytes:
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        del copy.metadata_props[:]
        entry = copy.metadata_props.add()
        entry.key, entry.value = "excite", json.dumps(values)
        return copy.SerializeToString()

    def run(path: Path) -> None:
        open_exported(path)(example)

    whole = with_card(json.loads(card))
    found["onnx card"] = Format(whole, run, "x.onnx", (), json.loads(card), with_card, share=0.3)
    found["onnx graph"] = Format(whole, run, "y.onnx", tuple(GRAPH), share=0.5)
    found |= openvino(model, card, folder, run)
    program = io.BytesIO()
    torch.export.save(torch.export.export(network.eval(), (example,)), program, extra_files={"excite.json": card})
    found["pt2"] = Format(program.getvalue(), run, "x.pt2", (*ZIP, *PICKLE), share=0.5)
    return found


def openvino(model: Any, card: str, folder: Path, run: Callable[[Path], None]) -> dict[str, Format]:
    """The two files of an OpenVINO network: one is mutated, the other one lies beside it as it was."""
    try:
        import openvino
    except ImportError:
        return {}
    network = openvino.Core().read_model(model.SerializeToString())
    network.set_rt_info(card, "excite")
    openvino.save_model(network, str(folder / "net.xml"), compress_to_fp16=False)
    xml, weights = (folder / "net.xml").read_bytes(), (folder / "net.bin").read_bytes()

    def of_xml(path: Path) -> None:
        path.with_suffix(".bin").write_bytes(weights)
        run(path)

    def of_weights(path: Path) -> None:
        path.with_suffix(".xml").write_bytes(xml)
        run(path.with_suffix(".xml"))

    return {
        "openvino xml": Format(xml, of_xml, "a.xml", (*XML, *TEXT, *GRAPH), share=0.4),
        "openvino bin": Format(weights, of_weights, "b.bin", tuple(ZIP), share=0.1),
    }


def kernels(folder: Path) -> dict[str, Format]:
    cache = folder / "cache"
    cache.mkdir(mode=0o700)
    kept = cache / "tail-0.so"
    build.FLAGS = ("-O0", *build.FLAGS[1:])  # built at once; nothing is computed with them
    try:
        build.build(build.find_compiler(), build.find_openmp(), kept)
    except build.UnavailableError:
        return {}

    def read(path: Path) -> None:
        path.chmod(0o600)
        try:
            build.opened(path)
        except OSError as error:
            raise ExciteError(str(error)) from error

    return {"kernels": Format(kept.read_bytes(), read, "tail-1.so", (build.SEAL, b"\x7fELF", *ZIP[2:]))}
