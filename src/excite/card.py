"""The card that travels with a network: enough to build it again and to feed it."""

from dataclasses import asdict, dataclass, field, fields
from typing import Any


@dataclass
class ModelCard:
    """What a checkpoint says of its network.

    name: as given to `create_model`; options: its options; attach: `{"method", "sites", "options"}` where attention was
    attached; preprocess: `{"size", "resize", "mean", "std"}` (pixels; mean and std of images in [0, 1]).
    """

    name: str
    num_classes: int = 1000
    in_channels: int = 3
    options: dict[str, Any] = field(default_factory=dict)
    attach: dict[str, Any] | None = None
    class_names: list[str] | None = None
    preprocess: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the card as plain containers."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ModelCard":
        """Read a card; keys it does not know (a later version's) are passed over."""
        known = {f.name for f in fields(cls)}
        return cls(**{k: v for k, v in values.items() if k in known})
