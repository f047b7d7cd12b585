"""Will another runtime take an ONNX file? Its opset and operators beside what that runtime documents.

No runtime is asked, so a file can be checked where none is installed. Sources: the operator table of onnx-tensorrt for
TensorRT 10.0; the table of ML Program operators of onnxruntime's CoreML provider. An operator that TensorRT lacks is an
error there; CoreML leaves it to the CPU.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from excite.common.extras import require
from excite.errors import ExciteError, UsageError, unknown

if TYPE_CHECKING:
    import onnx


class Target(NamedTuple):
    """What a runtime documents: the first and last opset, and operators."""

    opsets: tuple[int, int]
    operators: frozenset[str]


SHARED = """
Add AveragePool Cast Clip Concat Constant Conv Div Elu Erf Exp Gemm GlobalAveragePool GlobalMaxPool HardSigmoid Identity
InstanceNormalization LayerNormalization LeakyRelu MatMul Max MaxPool Mul PRelu Pow Reciprocal ReduceMax ReduceMean
ReduceSum Relu Reshape Resize Shape Sigmoid Slice Softmax Softplus Split Sqrt Squeeze Sub Tanh Tile Transpose Unsqueeze
"""
TENSORRT = """
Abs And ArgMax ArgMin BatchNormalization ConstantOfShape DequantizeLinear Dropout Einsum Equal Expand Flatten Gather
GatherElements GatherND Greater GreaterOrEqual GroupNormalization HardSwish Less LessOrEqual Log Min Mod Neg Not Or Pad
QuantizeLinear Range ReduceL1 ReduceL2 ReduceMin ReduceProd ScatterND Sum TopK Where
"""
COREML = "Ceil Cos DepthToSpace Gelu GatherND Range Round Sin"
TARGETS = {
    "tensorrt": Target((9, 20), frozenset((SHARED + TENSORRT).split())),
    "coreml": Target((7, 20), frozenset((SHARED + COREML).split())),
}


def unsupported(source: "str | Path | onnx.ModelProto", target: str) -> list[str]:
    """Return what a target ("tensorrt", "coreml") does not document of an ONNX model: opset, domains, operators.

    An empty list: nothing. Raises UsageError for an unknown target, ExciteError for a file that is no ONNX model.
    """
    if target not in TARGETS:
        raise unknown("target", target, TARGETS)
    model = read(source) if isinstance(source, str | Path) else source
    first, last = TARGETS[target].opsets
    found = [
        f"opset {entry.version} (it takes {first} to {last})"
        for entry in model.opset_import
        if entry.domain in ("", "ai.onnx") and not first <= entry.version <= last
    ]
    kinds = {(node.domain, node.op_type) for node in nodes(model.graph.node)}
    # What the model itself defines is made of operators that are looked at below.
    own = {(function.domain, function.name) for function in model.functions}
    kinds = {kind for kind in kinds if kind not in own}
    kinds |= {(n.domain, n.op_type) for function in model.functions for n in nodes(function.node)} - own
    for domain, kind in sorted(kinds):
        if domain not in ("", "ai.onnx"):
            found.append(f"operator {domain}.{kind}")
        elif kind not in TARGETS[target].operators:
            found.append(f"operator {kind}")
    return found


def nodes(some: "Iterable[onnx.NodeProto]") -> "Iterable[onnx.NodeProto]":
    """Yield nodes, and those of the graphs inside them."""
    for node in some:
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from nodes(graph.node)


def read(path: str | Path) -> "onnx.ModelProto":
    """Read an ONNX file without its weights where these lie beside it. Raises UsageError or ExciteError."""
    require("onnx")
    import onnx

    if not Path(path).is_file():
        raise UsageError(f"no file {str(path)!r}")
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf has errors of its own
        raise ExciteError(f"{path}: no ONNX model: {error}") from error
    if not model.graph.node:
        raise ExciteError(f"{path}: no ONNX model: it holds no operator")
    return model
