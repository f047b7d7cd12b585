"""`imagefolder:PATH`: PATH/train/CLASS/*.jpg and PATH/val/CLASS/*.jpg."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from excite.data.bundle import DataBundle, chosen
from excite.data.preprocess import Preprocess, read_rgb
from excite.errors import ExciteError, UsageError

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".pgm", ".webp", ".tif", ".tiff", ".gif"}
VAL_NAMES = ("val", "valid", "validation", "test")


class FolderImages:
    """Files with labels; decoded when asked for."""

    def __init__(self, files: Sequence[Path], labels: Sequence[int]) -> None:
        self.files, self.labels = list(files), list(labels)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return read_rgb(self.files[index]), self.labels[index]

    def name(self, index: int) -> str:
        """Return the file's path."""
        return str(self.files[index])


def open_folder(spec: str, limit_train: int | None = None, limit_val: int | None = None) -> DataBundle:
    """Open a folder of class folders. Raises UsageError for a missing folder, ExciteError for one without classes."""
    root = Path(spec.partition(":")[2]).expanduser()
    if not root.is_dir():
        raise UsageError(f"{spec}: no folder {root}")
    train = root / "train"
    val = next((root / name for name in VAL_NAMES if (root / name).is_dir()), None)
    if not train.is_dir() or val is None:
        inside = sorted(p.name for p in root.iterdir() if p.is_dir())
        raise UsageError(f"{spec}: expected folders train/ and val/ inside {root}, found {inside or 'no folders'}")
    classes = class_folders(train)
    extra = sorted(set(class_folders(val)) - set(classes))
    if extra:
        raise ExciteError(f"{spec}: classes {extra[:5]} are in {val} but not in {train}")
    splits = [_scan(folder, classes, limit) for folder, limit in ((train, limit_train), (val, limit_val))]
    return DataBundle(spec, splits[0], splits[1], classes, Preprocess.usual().to_dict())


def class_folders(folder: Path) -> list[str]:
    """Return the class names: sub-folders, sorted. Raises ExciteError where there is none."""
    names = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not names:
        raise ExciteError(f"{folder} holds no class folders; expected {folder}/CLASS/image.jpg")
    return names


def image_files(folder: Path) -> list[Path]:
    """Return the image files below a folder, sorted by path."""
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())


def _scan(folder: Path, classes: list[str], limit: int | None) -> FolderImages:
    labelled = [(file, label) for label, name in enumerate(classes) for file in image_files(folder / name)]
    if not labelled:
        raise ExciteError(f"{folder} holds no images ({' '.join(sorted(SUFFIXES))})")
    selected = [labelled[i] for i in chosen(len(labelled), limit)]
    return FolderImages([f for f, _ in selected], [c for _, c in selected])
