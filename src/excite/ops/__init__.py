"""Operations on feature maps; whatever may become a fused kernel hides here."""

from excite.ops.recalibrate import recalibrate
from excite.ops.tail import residual_tail

__all__ = ["recalibrate", "residual_tail"]
