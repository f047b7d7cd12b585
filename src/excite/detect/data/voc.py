"""Pascal VOC: ImageSets/Main/<split>.txt, Annotations/<name>.xml, JPEGImages/<name>.jpg (Everingham et al. 2010).

Also as exports have it: folders called annotations and images, files side by side, a folder per split, or no lists.
"""

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from xml.parsers import expat

from excite.common.checks import shown
from excite.common.files import check_file
from excite.data.folder import is_junk, split_folders
from excite.data.preprocess import UnreadableImageError, stored_size
from excite.detect.data.base import Annotation, DetectionDataset, Sample, check_not_empty, clip_box
from excite.detect.data.division import divide
from excite.detect.data.schema import LONGEST_NAME, Fields, is_inside
from excite.errors import ExciteError, UsageError

ANNOTATIONS = ("Annotations", "annotations", "xmls", "xml", "labels")
IMAGES = ("JPEGImages", "images", "Images", "imgs")
ENDINGS = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")
LINE = "line"  # attribute in which the line of an element is kept


def splits(root: Path) -> list[str]:
    """Return the names of the splits (not the per-category lists, which are called <category>_<split>)."""
    return sorted(p.stem for p in (root / "ImageSets" / "Main").glob("*.txt") if "_" not in p.stem)


def open_voc(root: Path, split: str) -> DetectionDataset:
    """Read one split. Raises UsageError for a missing list or an empty set, ExciteError for broken contents.

    Without lists the splits are folders named train, val (valid) and test; without these a fifth of the images is val.
    The category names are all those that the annotations use, in alphabetical order.
    """
    files, everything = _files(root, split)
    class_names = category_names(everything)
    if not class_names:
        raise UsageError(f"voc:{root}: no object in any file of {everything[0].parent}")
    label_of = {n: i for i, n in enumerate(class_names, start=1)}
    skipped: list[str] = []
    samples = [_sample(path, label_of, skipped) for path in files]
    return check_not_empty(DetectionDataset(samples, class_names, skipped=skipped), f"split {split!r} of voc:{root}")


def _files(root: Path, split: str) -> tuple[list[Path], list[Path]]:
    """Return the annotation files of a split, and those of all splits. Raises UsageError where a folder is missing."""
    folder = annotation_folder(root)
    if splits(root) or (root / "ImageSets").is_dir():
        folder = folder or root / "Annotations"
        return [folder / f"{name}.xml" for name in read_split(root, split)], sorted(folder.glob("*.xml"))
    places = {name: inner for name, place in split_folders(root).items() if (inner := annotation_folder(place))}
    if places:
        members = {name: sorted(place.glob("*.xml")) for name, place in places.items()}
        chosen = next((files for name, files in members.items() if name == split), None)
        if chosen is None:
            raise UsageError(f"voc:{root} has no split {split!r}; splits there: {', '.join(places)}")
        return chosen, [file for files in members.values() for file in files]
    if folder is None:
        inside = ", ".join(sorted(p.name for p in root.iterdir() if not is_junk(p))) or "nothing"
        raise UsageError(
            f"voc:{root}: no folder {root / ANNOTATIONS[0]} (or {', '.join(ANNOTATIONS[1:])}) with .xml files; there "
            f"is {inside}"
        )
    files = sorted(folder.glob("*.xml"))
    return divide(files, split, f"voc:{root}"), files


def annotation_folder(place: Path) -> Path | None:
    """Return the folder below (or at) `place` that holds annotation files; None where none does."""
    for folder in (*(place / name for name in ANNOTATIONS), place):
        if folder.is_dir() and next(folder.glob("*.xml"), None) is not None:
            return folder
    return None


def read_split(root: Path, split: str) -> list[str]:
    """Return the image names of a split. Raises UsageError when the list is missing or empty."""
    path = root / "ImageSets" / "Main" / f"{split}.txt"
    if not path.is_file():
        known = splits(root)
        have = f"splits there: {', '.join(known)}" if known else "that folder has no lists"
        raise UsageError(f"no file {path}; {have}")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ExciteError(f"{path} is not UTF-8 text: {error}") from None
    names = [line.split()[0] for line in text.splitlines() if line.strip()]
    if not names:
        raise UsageError(f"{path} names no image")
    for name in names:
        if not is_inside(name) or len(name) > LONGEST_NAME:
            raise ExciteError(f"{path}: {shown(name)} is not the name of a file in {root / 'Annotations'}")
    return names


def category_names(files: Sequence[Path]) -> list[str]:
    """Return the names of all objects in annotation files, sorted."""
    names: set[str] = set()
    for path in files:
        for element in read_xml(path).iter("object"):
            names.add(_text(element, "name", path))
    return sorted(names)


def read_xml(path: Path) -> ET.Element:
    """Read an XML file; every element knows its line. Raises ExciteError when it is missing or broken."""
    builder = ET.TreeBuilder()
    parser = expat.ParserCreate()
    parser.StartElementHandler = lambda tag, a: builder.start(tag, {**a, LINE: str(parser.CurrentLineNumber)})
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    check_file(path)
    try:
        parser.Parse(path.read_bytes(), True)
    except FileNotFoundError:
        raise ExciteError(f"annotation file {path} is missing") from None
    except OSError as error:
        raise ExciteError(f"cannot read {path}: {error.strerror or error}") from None
    except (ValueError, LookupError) as error:  # of an encoding that Python does not know, or that is not a text
        raise ExciteError(f"{path}: broken XML: {error}") from None
    except expat.ExpatError as error:
        message = expat.errors.messages.get(error.code, "not XML")
        raise ExciteError(f"{path}, line {error.lineno}, column {error.offset}: broken XML: {message}") from None
    return builder.close()


def _text(element: ET.Element, name: str, path: Path) -> str:
    text = element.findtext(name)
    if text is None or not text.strip():
        raise ExciteError(f"{path}, line {element.get(LINE)}: <{shown(element.tag)[1:-1]}> has no <{name}>")
    if len(text) > LONGEST_NAME:
        raise ExciteError(f"{path}, line {element.get(LINE)}: <{name}> is longer than {LONGEST_NAME} characters")
    return text.strip()


def _number(element: ET.Element, name: str, path: Path) -> float:
    text = _text(element, name, path)
    try:
        return float(text)
    except ValueError:
        child = element.find(name)
        line = (element if child is None else child).get(LINE)
        raise ExciteError(f"{path}, line {line}: <{name}> is {text!r}, not a number") from None


def _sample(path: Path, label_of: dict[str, int], skipped: list[str]) -> Sample:
    tree = read_xml(path)
    image, size = _image(path), tree.find("size")
    sides = {} if size is None else {key: _number(size, key, path) for key in ("width", "height")}
    if size is None or not any(sides.values()):  # some tools write no size, or zeros
        try:
            width, height = stored_size(image)
        except UnreadableImageError as error:
            raise ExciteError(f"{path} has no <size>, and {image} cannot be read: {error.reason}") from None
    else:
        width, height = Fields(sides, f"{path}, line {size.get(LINE)}: <size>").size()
    sample = Sample(path.stem, width, height, path=image)
    for element in tree.findall("object"):
        annotation = _annotation(element, path, sample, label_of, skipped)
        if annotation is not None:
            sample.annotations.append(annotation)
    return sample


def _image(path: Path) -> Path:
    """Return the image that an annotation file is about: of the same name, in a folder beside it or next to it."""
    places = [path.parent.parent / name for name in IMAGES] + [path.parent, path.parent.parent]
    candidates = [place / f"{path.stem}{suffix}" for place in places for suffix in ENDINGS]
    file = next((c for c in candidates if c.is_file()), None)
    if file is None:
        expected = next((place for place in places if place.is_dir()), places[0])
        raise ExciteError(f"{path} is about an image that is missing: {expected / f'{path.stem}{ENDINGS[0]}'}")
    return file


def _annotation(
    element: ET.Element, path: Path, sample: Sample, label_of: dict[str, int], skipped: list[str]
) -> Annotation | None:
    """Read one object, or say in `skipped` why it is left out."""
    name = _text(element, "name", path)
    corners = element.find("bndbox")
    if corners is None:
        raise ExciteError(f"{path}, line {element.get(LINE)}: object {name!r} has no <bndbox>")
    xmin, ymin, xmax, ymax = (_number(corners, k, path) for k in ("xmin", "ymin", "xmax", "ymax"))
    # VOC counts pixels from 1 and includes both ends, so the box starts half a step before xmin: at xmin - 1 from 0.
    box = clip_box((xmin - 1, ymin - 1, xmax - xmin + 1, ymax - ymin + 1), sample.width, sample.height)
    if xmax <= xmin or ymax <= ymin or box is None:
        where = f"{path.name}, line {corners.get(LINE)}"
        skipped.append(f"{where}: {name} box ({xmin:g}, {ymin:g}, {xmax:g}, {ymax:g}) has no area inside the image")
        return None
    difficult = element.findtext("difficult", "0").strip() in ("1", "true")
    return Annotation(box, label_of[name], box[2] * box[3], difficult=difficult)
