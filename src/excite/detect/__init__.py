"""Detection and instance segmentation with attention backbones."""

from excite.detect.card import DetectorCard
from excite.detect.detector import create_detector

__all__ = ["DetectorCard", "create_detector"]
