"""What all comparisons of these tests share: their costs are measured in a moment."""

from collections.abc import Iterator
from functools import partial

import pytest

from excite.comparison import cost


@pytest.fixture(scope="package", autouse=True)
def _costs_in_a_moment() -> Iterator[None]:
    """Measure as always, with fewer images and rounds: what is measured takes longer than the training otherwise."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cost, "measure", partial(cost.measure, batch=4, rounds=3, min_time=0.001))
        yield
