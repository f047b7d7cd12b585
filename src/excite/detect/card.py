"""The card that travels with a detector: enough to build it again."""

from dataclasses import asdict, dataclass, field, fields
from typing import Any


@dataclass
class DetectorCard:
    """What a checkpoint says of its detector.

    kind, backbone, num_classes (background included), neck and options: as given to `create_detector`; class_names:
    of the labels 1, 2, ...
    """

    kind: str
    backbone: str
    num_classes: int
    neck: str = "fpn"
    options: dict[str, Any] = field(default_factory=dict)
    class_names: list[str] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the card as plain containers."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "DetectorCard":
        """Read a card; keys it does not know (a later version's) are passed over."""
        known = {f.name for f in fields(cls)}
        return cls(**{k: v for k, v in values.items() if k in known})
