"""Keeping the remarks of libraries out of the output."""

import contextlib
import logging
import warnings
from collections.abc import Iterator

NAMES = ("lightning.pytorch", "lightning.fabric", "lightning", "faster_coco_eval")


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silence Lightning's and the evaluator's notes; errors still come through."""
    before = {name: logging.getLogger(name).level for name in NAMES}
    for name in NAMES:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning.*")
            warnings.filterwarnings(
                "ignore", message=r".*(lr_scheduler\.step|num_workers|does not have many workers).*"
            )
            yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
