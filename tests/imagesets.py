"""Small sets of images on disk, for tests."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ["cat", "dog"]


def picture(index: int, size: tuple[int, int] = (40, 32)) -> Image.Image:
    rng = np.random.default_rng(index)
    return Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def encoded(index: int, size: tuple[int, int] = (32, 32)) -> bytes:
    buffer = io.BytesIO()
    picture(index, size).save(buffer, format="PNG")
    return buffer.getvalue()


def image_folder(root: Path, per_class: int = 3) -> Path:
    for split in ("train", "val"):
        for label, name in enumerate(CLASSES):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(per_class):
                picture(100 * label + i).save(folder / f"{i}.png")
    return root


def parquet_set(root: Path, rows: int = 6, *, names: bool = True, column: str = "img") -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    root.mkdir(parents=True, exist_ok=True)
    for split in ("train", "test"):
        images = [{"bytes": encoded(i), "path": f"{i}.png"} for i in range(rows)]
        struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        table = pa.table({column: pa.array(images, struct), "label": [i % 2 for i in range(rows)]})
        if names:
            features = {column: {"_type": "Image"}, "label": {"names": CLASSES, "_type": "ClassLabel"}}
            table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
        pq.write_table(table, root / f"{split}.parquet")
    return root


def shards(root: Path) -> str:
    root.mkdir(parents=True, exist_ok=True)
    for split, numbers in (("train", (0, 1)), ("val", (0,))):
        for number in numbers:
            with tarfile.open(root / f"{split}-{number:03d}.tar", "w") as tar:
                for i in range(4):
                    add(tar, f"{number}{i}.png", encoded(i))
                    if i % 2:
                        add(tar, f"{number}{i}.cls", str(i % 2).encode())
                    else:
                        add(tar, f"{number}{i}.json", json.dumps({"label": i % 2}).encode())
    return f"wds:{root}/{{train-{{000..001}},val-000}}.tar"


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))
