"""Detection recipes."""

from excite.recipes.collection import RecipeCollection

_COLLECTION = RecipeCollection(__name__, "detection recipe")
names, text, load, summaries = _COLLECTION.names, _COLLECTION.text, _COLLECTION.load, _COLLECTION.summaries
