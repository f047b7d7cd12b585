"""Pascal VOC: ImageSets/Main/<split>.txt, Annotations/<name>.xml, JPEGImages/<name>.jpg (Everingham et al. 2010)."""

import xml.etree.ElementTree as ET
from pathlib import Path
from xml.parsers import expat

from excite.common.checks import shown
from excite.detect.data.base import Annotation, DetectionDataset, Sample, check_not_empty, clip_box
from excite.detect.data.schema import LONGEST_NAME, Fields, is_inside
from excite.errors import ExciteError, UsageError

LINE = "line"  # attribute in which the line of an element is kept


def splits(root: Path) -> list[str]:
    """Return the names of the splits (not the per-category lists, which are called <category>_<split>)."""
    return sorted(p.stem for p in (root / "ImageSets" / "Main").glob("*.txt") if "_" not in p.stem)


def open_voc(root: Path, split: str) -> DetectionDataset:
    """Read one split. Raises UsageError for a missing list or an empty set, ExciteError for broken contents.

    The category names are all those that the annotations folder uses, in alphabetical order.
    """
    names = read_split(root, split)
    class_names = category_names(root)
    if not class_names:
        raise UsageError(f"voc:{root}: no object in any file of {root / 'Annotations'}")
    label_of = {n: i for i, n in enumerate(class_names, start=1)}
    skipped: list[str] = []
    samples = [_sample(root, name, label_of, skipped) for name in names]
    return check_not_empty(DetectionDataset(samples, class_names, skipped=skipped), f"split {split!r} of voc:{root}")


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


def category_names(root: Path) -> list[str]:
    """Return the names of all objects in the annotations folder, sorted."""
    names: set[str] = set()
    for path in sorted((root / "Annotations").glob("*.xml")):
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


def _sample(root: Path, name: str, label_of: dict[str, int], skipped: list[str]) -> Sample:
    path = root / "Annotations" / f"{name}.xml"
    tree = read_xml(path)
    size = tree.find("size")
    if size is None:
        raise ExciteError(f"{path}: no <size>")
    line = f"{path}, line {size.get(LINE)}: <size>"
    width, height = Fields({key: _number(size, key, path) for key in ("width", "height")}, line).size()
    candidates = [root / "JPEGImages" / f"{name}{suffix}" for suffix in (".jpg", ".jpeg", ".png", ".JPG")]
    file = next((c for c in candidates if c.is_file()), None)
    if file is None:
        raise ExciteError(f"{path} is about an image that is missing: {candidates[0]}")
    sample = Sample(name, width, height, path=file)
    for element in tree.findall("object"):
        annotation = _annotation(element, path, sample, label_of, skipped)
        if annotation is not None:
            sample.annotations.append(annotation)
    return sample


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
