"""Convert a network: to a rewritten graph, and from there to ONNX and OpenVINO models in memory."""

import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import fx, nn

from excite.common.extras import require
from excite.export.graph import Rewrites, capture, rewrite

if TYPE_CHECKING:
    import onnx
    import openvino


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

    # Through ONNX: its reader keeps a dynamic batch and the names of inputs and outputs.
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        file.write_bytes(onnx_model(program, dynamic).SerializeToString())
        return openvino.convert_model(str(file))
