"""Operations on feature maps; whatever may become a fused kernel hides here."""

from excite.ops.eligible import factored, why_not
from excite.ops.mode import use
from excite.ops.recalibrate import recalibrate
from excite.ops.select import kernels_on
from excite.ops.tail import attend, described_tail, norm_act, residual_tail

__all__ = [
    "attend",
    "described_tail",
    "factored",
    "kernels_on",
    "norm_act",
    "recalibrate",
    "residual_tail",
    "use",
    "why_not",
]
