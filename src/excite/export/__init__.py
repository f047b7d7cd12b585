"""Export: a network as a file that other engines run, with the cost of attention taken out where that pays."""

from excite.export.runtime import ENGINES, ExportedModel, open_engine, open_exported
from excite.export.write import FORMATS, PRECISIONS, ExportResult, export_model

__all__ = [
    "ENGINES",
    "FORMATS",
    "PRECISIONS",
    "ExportResult",
    "ExportedModel",
    "export_model",
    "open_engine",
    "open_exported",
]
