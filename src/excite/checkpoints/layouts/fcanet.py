"""FcaNet: `att.fc` and the constant DCT basis `att.dct_layer.weight`, which may be absent."""

from typing import Any

from excite.checkpoints.layouts.base import BLOCK, Layout, State
from excite.checkpoints.layouts.spectrum import frequencies_of, sizes_of

CONSTANT = "a constant (the cosine basis) that is rebuilt here"


def _options(state: State) -> dict[str, Any]:
    """Return selection and sizes: from the basis where the file has it, else those of the released networks."""
    return {"frequencies": frequencies_of(state, "top16"), "size": sizes_of(state, (56, 28, 14, 7))}


FCANET = Layout(
    name="FcaNet (cfzd/FcaNet, and the copy in EMANet's repository)",
    mark=r"layer1\.0\.att\.fc\.0\.weight",
    rules=[
        (BLOCK + r"att\.fc\.0\.", r"\1attention.gate.reduce."),
        (BLOCK + r"att\.fc\.2\.", r"\1attention.gate.expand."),
    ],
    ignore=[(r"layer\d+\.\d+\.att\.dct_layer\.weight", CONSTANT)],
    method="fca",
    options=_options,
)
