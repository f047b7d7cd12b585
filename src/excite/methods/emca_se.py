"""EMCA with the gate of SE."""

from torch import nn

from excite.methods.base import Method
from excite.methods.emca import PAPER, PLACE, emca
from excite.methods.se import se


def emca_se(
    channels: int,
    *,
    form: str = "paper",
    scales: int = 0,
    reduction: int = 16,
    bias: bool = False,
    divisor: int = 1,
    hidden: int | None = None,
) -> nn.Module:
    """Build EMCA over `channels` channels with the gate of SE.

    form: "paper" or "released"; scales: 1 + the number of earlier descriptors, 0 for none (networks set it); the others
    are those of `se`.
    """
    return emca(
        lambda: se(channels, reduction=reduction, bias=bias, divisor=divisor, hidden=hidden), form=form, scales=scales
    )


METHOD = Method(
    build=emca_se,
    equation="z = relu(sum_r v_r s_r),  s_r = mean of an earlier map, tiled to c channels,  "
    "w = sigmoid(W2 relu(W1 z)),  y = w * x",
    paper=PAPER,
    place=PLACE,
    role="network",
)
