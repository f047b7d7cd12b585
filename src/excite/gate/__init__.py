"""Gates: `descriptor [n c k] -> weights [n c]`, one per file; the activation is part of the gate."""

from excite.gate.bottleneck import Bottleneck
from excite.gate.full import FullMatrix
from excite.gate.local import LocalConv
from excite.gate.plain import Plain
from excite.gate.scalar import ScalarPerChannel

__all__ = ["Bottleneck", "FullMatrix", "LocalConv", "Plain", "ScalarPerChannel"]
