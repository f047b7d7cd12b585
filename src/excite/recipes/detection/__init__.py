"""Detection recipes."""

from excite.recipes.shelf import Shelf

_SHELF = Shelf(__name__, "detection recipe")
names, text, load, summaries = _SHELF.names, _SHELF.text, _SHELF.load, _SHELF.summaries
