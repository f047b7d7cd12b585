"""Operations on feature maps; whatever may become a fused kernel hides here."""

from excite.ops.mode import use
from excite.ops.recalibrate import along, recalibrate, recalibrate_along
from excite.ops.tail.api import attend, attend_norm, attend_own, described_tail, norm_act, residual_tail
from excite.ops.tail.plan import factored, kernels_on, known, why_not

__all__ = [
    "along",
    "attend",
    "attend_norm",
    "attend_own",
    "described_tail",
    "factored",
    "kernels_on",
    "known",
    "norm_act",
    "recalibrate",
    "recalibrate_along",
    "residual_tail",
    "use",
    "why_not",
]
