"""The facts: what the papers and their repositories print, cell by cell, and how each can be computed."""

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from excite.errors import unknown

TITLES: dict[str, str] = {
    "ecanet": "ECA-Net, README: ImageNet",
    "ecanet-paper": "ECA-Net, paper, tables 3 and 4: ImageNet",
    "ecanet-modules": "ECA-Net, paper, table 2: modules on ResNet-50, ImageNet",
    "emca": "EMCA, README: ImageNet, all methods",
    "emca-placement": "EMCA, README: attention in all blocks, the first or the last of each stage",
    "emca-scales": "EMCA, README: scales (S earlier stages, N blocks of each)",
    "emanet-cifar": "EMANet, README: CIFAR-10, 32x32",
    "emanet-voc": "EMANet, README: VOC 2007, Faster R-CNN with C4, 600x600",
    "coco": "ECA-Net (README, paper) and EMCA (README): COCO 2017, 1280x800",
    "senet": "senet.pytorch, README: accuracy",
}
ABLATIONS = "ablations"  # no table of cells: differences of published cells beside comparisons of ours
SOURCES: dict[str, str] = {
    "ECANet": "github.com/BangguWu/ECANet, README",
    "ECA-Net paper": "Wang et al., ECA-Net, CVPR 2020, arXiv:1910.03151",
    "EMCA": "github.com/eslambakr/EMCA, README",
    "EMANet": "github.com/Xsmile-love/pytorch-emanet-master, README",
    "SENet": "github.com/moskomule/senet.pytorch, README",
}
UNITS: dict[str, float] = {"": 1, "%": 1, "M": 1e6, "G": 1e9, "Mi": 2**20, "Gi": 2**30, "img/s": 1}
UNIT_NAMES = {"M": "10^6", "G": "10^9", "Mi": "2^20", "Gi": "2^30"}
# What nobody can compute: it has to be trained or timed.
MEASURED = ("imagenet", "cifar10", "coco", "voc2007", "speed")


@dataclass(frozen=True)
class Cell:
    """One printed number.

    convention: how it was counted (a convention of `excite profile`, "params", ...), or the data set (or "speed") of a
    number that has to be measured. model, options: which network of ours computes it; an empty model: none can, and
    `reason` says why. unit: M, G (decimal), Mi, Gi (binary), %, img/s. published: as printed.
    """

    table: str
    row: str
    column: str
    published: str
    unit: str
    convention: str
    model: str
    options: str
    reason: str
    source: str

    @property
    def measured(self) -> bool:
        """Whether the number needs training or timing."""
        return self.convention in MEASURED

    @property
    def value(self) -> float:
        """The printed number."""
        return float(self.published)

    @property
    def digits(self) -> int:
        """Decimals printed ("4.7e-4" has five)."""
        mantissa, _, exponent = self.published.lower().partition("e")
        return len(mantissa.partition(".")[2]) - int(exponent or 0)


@cache
def cells() -> tuple[Cell, ...]:
    """Return every published number, in the order of the tables."""
    text = (files("excite.measure") / "published.csv").read_text(encoding="utf-8")
    return tuple(Cell(**row) for row in csv.DictReader(text.splitlines()))


def select(name: str) -> list[Cell]:
    """Return one table's cells, all for "all", none for "ablations". Raises UsageError for an unknown table."""
    if name == "all":
        return list(cells())
    if name not in (*TITLES, ABLATIONS):
        raise unknown("table", name, [*TITLES, ABLATIONS])
    return [c for c in cells() if c.table == name]
