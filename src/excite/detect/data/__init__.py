"""Detection data, named by a spec: shapes, coco:PATH, voc:PATH."""

from excite.detect.data.base import DetectionDataset, Sample, Thing
from excite.detect.data.specs import open_split

__all__ = ["DetectionDataset", "Sample", "Thing", "open_split"]
