"""Post-training quantisation to 8 bits with nncf."""

import contextlib
import logging
import sys
from collections.abc import Sequence
from typing import TypeVar

import torch

from excite.common.extras import require

Model = TypeVar("Model")


def quantise(model: Model, calibration: Sequence[torch.Tensor], *, fixed_batch: bool, input_name: str = "") -> Model:
    """Return an ONNX or OpenVINO model with 8-bit weights and activations.

    calibration: batches `[n c h w]` of real images; fixed_batch: feed them one by one. input_name: for ONNX, whose
    inputs are named.
    """
    require("nncf")
    import nncf

    logging.getLogger("nncf").setLevel(logging.ERROR)
    singles = [x for batch in calibration for x in batch.split(1 if fixed_batch else len(batch))]
    feed = [{input_name: x.numpy()} if input_name else x.numpy() for x in singles]
    # The progress bars of nncf go to standard output, which belongs to the result.
    with contextlib.redirect_stdout(sys.stderr):
        # Maps are positive after a ReLU but not before a gate: mixed uses asymmetric activations.
        return nncf.quantize(model, nncf.Dataset(feed), subset_size=len(feed), preset=nncf.QuantizationPreset.MIXED)
