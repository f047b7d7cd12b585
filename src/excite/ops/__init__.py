"""Operations on feature maps; whatever may become a fused kernel hides here."""

from excite.ops.eligible import factored, why_not
from excite.ops.mode import use
from excite.ops.recalibrate import recalibrate
from excite.ops.tail import described_tail, norm_act, residual_tail

__all__ = ["described_tail", "factored", "norm_act", "recalibrate", "residual_tail", "use", "why_not"]
