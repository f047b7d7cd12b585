"""`imagefolder:PATH`: PATH/train/CLASS/*.jpg with val/ and test/ beside it, or PATH/CLASS/*.jpg alone."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from torch import Tensor

from excite.data.labels import find_labels
from excite.data.preprocess import Reading, stored_size
from excite.data.sizes import usual_for
from excite.data.splits import Source, SplitName
from excite.errors import ExciteError, UsageError

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".pgm", ".webp", ".tif", ".tiff", ".gif", ".npy"}
SPLITS: dict[SplitName, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
FOREIGN = {".heic", ".heif", ".avif", ".jxl", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".psd", ".svg"}
JUNK = ("__MACOSX", "lost+found", "$RECYCLE.BIN")  # what archives and file systems leave


class FolderImages:
    """Files with labels; decoded when asked for."""

    reading = Reading()

    def __init__(self, files: Sequence[Path], labels: Sequence[int]) -> None:
        self.files, self.labels = list(files), list(labels)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Image.Image | Tensor, int]:
        return self.reading(self.files[index]), self.labels[index]

    def name(self, index: int) -> str:
        """Return the file's path."""
        return str(self.files[index])

    def size(self, index: int) -> tuple[int, int]:
        """Return width and height, from the file's first bytes. Raises UnreadableImageError."""
        return stored_size(self.files[index])

    def take(self, indices: Sequence[int]) -> "FolderImages":
        """Return these images alone."""
        return FolderImages([self.files[i] for i in indices], [self.labels[i] for i in indices])


class Passed(NamedTuple):
    """What a look through folders left aside; foreign: pictures of kinds that are not read here."""

    junk: list[Path]
    empty: list[Path]
    foreign: dict[Path, None]

    def notes(self) -> list[str]:
        """Return it in words, with counts."""
        words = []
        if self.junk:
            words.append(f"passed over {len(self.junk)} hidden or system entries, such as {self.junk[0].name}")
        if self.empty:
            names = ", ".join(path.name for path in self.empty[:3])
            words.append(f"passed over {len(self.empty)} folders without images: {names}")
        if self.foreign:
            words.append(f"passed over {self.strangers()}")
        return words

    def strangers(self) -> str:
        """Return in words which pictures are not read here, and what to do."""
        kinds = ", ".join(sorted({path.suffix.lower() for path in self.foreign}))
        return f"{len(self.foreign)} pictures ({kinds}) that are not read here; convert them to JPEG or PNG"


def open_folder(spec: str) -> Source:
    """Open a folder of class folders, divided into train, val and test or not.

    Images of val or test may also lie flat beside a file that says their labels (`find_labels`).
    Raises UsageError for a missing folder, ExciteError for one without classes, and where classes seem to lie deeper.
    """
    root = Path(spec.partition(":")[2]).expanduser()
    if not root.is_dir():
        raise UsageError(f"{spec}: no folder {root}" + (", it is a file" if root.is_file() else ""))
    return open_root(spec, root)


def open_root(spec: str, root: Path) -> Source:
    """Open a folder, or the one that is alone in it, as archives have it. Raises what `open_folder` raises."""
    passed = Passed([], [], {})
    notes: list[str] = []
    inner = root
    while (alone := _wrapped(inner)) is not None:
        inner = alone
    if inner != root:
        notes.append(f"took {inner.relative_to(root)}, the only folder in {root}")
    places = split_folders(inner)
    if "train" not in places:
        if places and not set(map(str.lower, _folders(inner))) - {w for words in SPLITS.values() for w in words}:
            raise UsageError(f"{spec}: there is no folder train in {inner}, only {', '.join(_folders(inner))}")
        places = {"train": inner}
    classes = class_folders(places["train"], passed)
    _check_nesting(spec, places["train"], classes)
    splits: dict[SplitName, FolderImages] = {}
    for name, folder in places.items():
        images = _scan(spec, folder, classes, passed, name, notes)
        if images is not None:
            splits[name] = images
    return Source(splits, classes, usual_for, [*notes, *passed.notes()])


def split_folders(root: Path) -> dict[SplitName, Path]:
    """Return the folders that are named as splits are, whatever the case of their letters."""
    names = {name.lower(): root / name for name in _folders(root)}
    places: dict[SplitName, Path] = {}
    for split, words in SPLITS.items():
        folder = next((names[word] for word in words if word in names), None)
        if folder is not None:
            places[split] = folder
    return places


def class_folders(folder: Path, passed: Passed | None = None) -> list[str]:
    """Return the class names: sub-folders that hold images, sorted. Raises ExciteError where there is none.

    passed: takes what was left aside.
    """
    names = []
    passed = passed or Passed([], [], {})
    for path in sorted(folder.iterdir()):
        if is_junk(path):
            passed.junk.append(path)
        elif path.is_dir():
            if next(_images(path, passed.foreign), None) is not None:
                names.append(path.name)
            else:
                passed.empty.append(path)
    if not names:
        lie = next(_images(folder, passed.foreign), None) is not None
        hint = "; its images lie in no class folders: list them with their labels in a file, csv:FILE" if lie else ""
        if lie and folder.name.lower() not in {word for words in SPLITS.values() for word in words}:
            others = [p for p in folder.parent.iterdir() if p != folder and p.is_dir() and not is_junk(p)]
            if any(next(_direct(other), None) is not None for other in others):
                hint = f"; it may be one class of several: name the folder of them, {folder.parent}"
        hint = hint or (f"; there are {passed.strangers()}" if passed.foreign else "")
        raise ExciteError(f"{folder} holds no class folders with images; expected {folder}/CLASS/image.jpg{hint}")
    return names


def is_junk(path: Path) -> bool:
    """True for what archives and systems leave: hidden files (`._x.jpg` too) and folders such as __MACOSX."""
    return path.name.startswith(".") or path.name in JUNK


def image_files(folder: Path, foreign: dict[Path, None] | None = None) -> list[Path]:
    """Return the image files below a folder, sorted by path, without hidden ones.

    foreign: takes the pictures of kinds that are not read here.
    """
    return sorted(_images(folder, foreign))


def _images(folder: Path, foreign: dict[Path, None] | None = None) -> Iterator[Path]:
    for path in folder.rglob("*"):
        suffix = path.suffix.lower()
        if suffix not in SUFFIXES and (foreign is None or suffix not in FOREIGN):
            continue
        inside = path.relative_to(folder)
        if any(map(is_junk, (inside, *inside.parents[:-1]))) or not path.is_file():
            continue
        if suffix in SUFFIXES:
            yield path
        elif foreign is not None:
            foreign[path] = None


def _folders(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not is_junk(path))


def _wrapped(root: Path) -> Path | None:
    """Return the folder in `root` if it holds everything there is, and folders with images of its own."""
    entries = [path for path in root.iterdir() if not is_junk(path)]
    folders = [path for path in entries if path.is_dir()]
    if len(folders) != 1 or any(path.suffix.lower() in SUFFIXES for path in entries) or split_folders(root):
        return None
    return folders[0] if _folders(folders[0]) and not any(_direct(folders[0])) else None


def _direct(folder: Path) -> Iterator[Path]:
    return (p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file() and not is_junk(p))


def _check_nesting(spec: str, folder: Path, classes: list[str]) -> None:
    """Raise ExciteError where the classes seem to be one level deeper: other sub-folders in each class folder."""
    inner = [_folders(folder / name) for name in classes if next(_direct(folder / name), None) is None]
    names = [name for part in inner for name in part]
    if len(inner) == len(classes) and len(names) > len(classes) and len(set(names)) == len(names):
        listed = ", ".join(f"{classes[0]}/{name}" for name in inner[0][:2])
        raise ExciteError(
            f"{spec}: the class folders of {folder} hold no images but folders, as {listed}; classes are "
            f"the folders directly below: name {folder / classes[0]} as the data, move the folders up, or list the "
            "files in csv:FILE"
        )


def _scan(
    spec: str, folder: Path, classes: list[str], passed: Passed, split: SplitName, notes: list[str]
) -> FolderImages | None:
    """Return a split's images; None, with a note, for one that is not for training and has no labels."""
    known = dict(zip(classes, range(len(classes)), strict=True))
    inside = [name for name in _folders(folder) if next(_images(folder / name), None) is not None]
    if split != "train" and not set(inside) & set(classes):  # flat, or in one folder that is no class
        files = image_files(folder)
        labels = find_labels(folder, files, known)
        if labels is not None:
            notes.append(f"{split}: {len(files)} images with their labels from {labels.file.name}")
            return FolderImages(files, labels.labels)
        if not files:
            passed.empty.append(folder)
            return None
        if len(inside) < 2:
            notes.append(
                f"passed over {folder.name}/: its {len(files)} images have no labels (no class folders, and no file "
                "that lists them)"
            )
            return None
    extra = sorted(set(inside) - set(classes))
    if extra:
        raise ExciteError(f"{spec}: classes {extra[:5]} are in {folder} but not in the training images")
    labelled = [(file, known[name]) for name in inside for file in image_files(folder / name, passed.foreign)]
    loose = sum(1 for _ in _direct(folder))
    if loose:
        notes.append(f"passed over {loose} images of {folder} that lie in no class folder")
    return FolderImages([file for file, _ in labelled], [label for _, label in labelled])
