"""Detection data, named by a spec: shapes, coco:PATH, voc:PATH, yolo:PATH."""

from excite.detect.data.base import Annotation, DetectionDataset, Sample
from excite.detect.data.specs import open_split

__all__ = ["Annotation", "DetectionDataset", "Sample", "open_split"]
