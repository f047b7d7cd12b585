"""Convert a network: to a rewritten graph, and from there to ONNX and OpenVINO models in memory."""

import contextlib
import logging
import re
import sys
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import fx, nn

from excite.common.extras import require
from excite.errors import ExciteError
from excite.export.graph import Rewrites, capture, rewrite

if TYPE_CHECKING:
    import onnx
    import openvino

Model = TypeVar("Model")


def prepare(
    model: nn.Module, example: torch.Tensor, *, dynamic: bool, move_squeezes: bool = True
) -> tuple[fx.GraphModule, Rewrites, torch.export.ExportedProgram]:
    """Return the rewritten graph of `model.eval()`, what was rewritten, and the graph as an exported program."""
    graph = capture(model.eval(), example, dynamic)
    done = rewrite(graph, move_squeezes=move_squeezes)
    example = torch.cat([example, example]) if dynamic and example.shape[0] == 1 else example
    shapes = ({0: torch.export.Dim("batch", min=1, max=65536)},) if dynamic else None
    return graph, done, torch.export.export(graph, (example,), dynamic_shapes=shapes)


def onnx_model(program: torch.export.ExportedProgram, dynamic: bool) -> "onnx.ModelProto":
    """Return a program as an ONNX protobuf."""
    require("onnx")
    require("onnxscript")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exported = torch.onnx.export(
            program, dynamo=True, input_names=["images"], output_names=["logits"], optimize=True, verbose=False
        )
    assert exported is not None
    proto = exported.model_proto
    if dynamic:
        proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    return proto


def to_onnx_bytes(model: nn.Module, example: torch.Tensor, *, dynamic: bool, move_squeezes: bool = False) -> bytes:
    """Return `model.eval()` as a serialised ONNX model; onnxruntime gains nothing from moved squeezes."""
    program = prepare(model, example, dynamic=dynamic, move_squeezes=move_squeezes)[2]
    return onnx_model(program, dynamic).SerializeToString()


def to_openvino(
    model: nn.Module, example: torch.Tensor, *, dynamic: bool, move_squeezes: bool = True
) -> "openvino.Model":
    """Return `model.eval()` as an OpenVINO model object."""
    return openvino_model(prepare(model, example, dynamic=dynamic, move_squeezes=move_squeezes)[2], dynamic)


def openvino_model(program: torch.export.ExportedProgram, dynamic: bool) -> "openvino.Model":
    """Return a program as an OpenVINO model object."""
    require("openvino")
    import openvino

    # Through ONNX: its reader keeps a dynamic batch and the names of inputs and outputs. Not `openvino.convert_model`:
    # it reads the same and reports to OpenVINO's makers that somebody did.
    content = onnx_model(program, dynamic).SerializeToString()
    try:
        model = openvino.Core().read_model(content)
    except (openvino.frontend.OpConversionFailure, RuntimeError) as error:
        failed = re.findall(r"^-- (\w+)-\d+ with a message:\n(.*?)(?=^-- |^Summary|\Z)", str(error), re.M | re.S)
        # What reads the output of such an operator fails with it, because its shape is unknown then.
        missing = sorted({op for op, why in failed if "has to be known" not in why})
        raise ExciteError(
            f"OpenVINO cannot read {', '.join(missing) or 'an operator'} of this network as it is used there: "
            "export to onnx or torch-export instead"
        ) from error
    return reduce_apart(model)


def reduce_apart(model: "openvino.Model") -> "openvino.Model":
    """Let reductions keep their dimensions, and squeeze these after; the model computes the same.

    OpenVINO's CPU engine takes a product or sum per channel into the reduction before it. Where the batch is dynamic
    and the result is `[n c]`, it then gives the numbers of the first image to every image (seen in 2026.4): the gates
    of SRM and GCT. A squeeze between the two keeps them apart.
    """
    from openvino import opset13

    for node in model.get_ordered_ops():
        if node.get_type_name().startswith("Reduce") and not node.get_attributes().get("keep_dims", True):
            readers = list(node.output(0).get_target_inputs())
            node.set_attribute("keep_dims", True)
            node.validate_and_infer_types()
            squeezed = opset13.squeeze(node.output(0), node.input_value(1)).output(0)
            for reader in readers:
                reader.replace_source_output(squeezed)
    model.validate_nodes_and_infer_types()
    return model


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
