"""EMCA with the gate of SRM."""

from torch import nn

from excite.methods.base import Method
from excite.methods.emca import PAPER, PLACE, emca
from excite.methods.srm import srm


def emca_srm(channels: int, *, form: str = "paper", scales: int = 0) -> nn.Module:
    """Build EMCA over `channels` channels with the gate of SRM.

    form: "paper" or "released"; scales: 1 + the number of earlier descriptors, 0 for none (networks set it); it has
    no other options.
    """
    return emca(lambda: srm(channels), form=form, scales=scales)


METHOD = Method(
    build=emca_srm,
    equation="z = relu(sum_r v_r t_r),  t_r = (mean, std) of an earlier map, tiled,  "
    "w = sigmoid(norm(a z_mean + b z_std)),  y = w * x",
    paper=PAPER,
    place=PLACE,
    role="network",
)
