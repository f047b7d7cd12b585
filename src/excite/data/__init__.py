"""Labelled images by name: `open_data("digits")`, `open_data("imagefolder:PATH")`, ... (docs/data.md)."""

from excite.data.bundle import DataBundle, Images
from excite.data.specs import SPECS, open_data

__all__ = ["SPECS", "DataBundle", "Images", "open_data"]
