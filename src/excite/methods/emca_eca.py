"""EMCA with the gate of ECA."""

from torch import nn

from excite.methods.base import Method
from excite.methods.eca import eca
from excite.methods.emca import PAPER, PLACE, emca


def emca_eca(
    channels: int,
    *,
    form: str = "paper",
    scales: int = 0,
    kernel_size: int | str = "adaptive",
    gamma: float = 2,
    b: float = 1,
) -> nn.Module:
    """Build EMCA over `channels` channels with the gate of ECA.

    form: "paper" or "released"; scales: 1 + the number of earlier descriptors, 0 for none (networks set it); the others
    are those of `eca`.
    """
    return emca(lambda: eca(channels, kernel_size=kernel_size, gamma=gamma, b=b), form=form, scales=scales)


METHOD = Method(
    build=emca_eca,
    equation="z = relu(sum_r v_r s_r),  s_r = mean of an earlier map, tiled to c channels,  "
    "w = sigmoid(conv1d_k(z)),  y = w * x",
    paper=PAPER,
    place=PLACE,
    role="network",
)
