"""The comparisons that come with excite: published ablations, each one command."""

from excite.recipes.collection import RecipeCollection

_COLLECTION = RecipeCollection(__name__, "comparison plan")
names, text, load, summaries = _COLLECTION.names, _COLLECTION.text, _COLLECTION.load, _COLLECTION.summaries
