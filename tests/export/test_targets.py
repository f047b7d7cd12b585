"""What other runtimes take: the check of ONNX files, and what we export passes it."""

from pathlib import Path
from typing import Any

import pytest
import torch

from excite.errors import ExciteError, UsageError
from excite.export.convert import to_onnx_bytes
from excite.export.targets import TARGETS, unsupported
from excite.models import create_model

onnx = pytest.importorskip("onnx")


def model(*kinds: str, opset: int = 18, domain: str = "") -> Any:
    nodes = [onnx.helper.make_node(kind, ["x"], ["x"], domain=domain) for kind in kinds]
    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph(nodes, "graph", [x], [x])
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])


@pytest.mark.parametrize(
    ("made", "target", "words"),
    [
        (model("Relu"), "tensorrt", []),
        (model("Relu", opset=8), "tensorrt", ["opset 8 (it takes 9 to 20)"]),
        (model("Relu", opset=23), "coreml", ["opset 23 (it takes 7 to 20)"]),
        (model("Relu", "Unique", "Unique"), "tensorrt", ["operator Unique"]),
        (model("Where"), "coreml", ["operator Where"]),
        (model("Gelu", domain="com.microsoft"), "tensorrt", ["operator com.microsoft.Gelu"]),
    ],
)
def test_what_is_missing_is_named(made: Any, target: str, words: list[str]) -> None:
    assert unsupported(made, target) == words


def test_graphs_inside_nodes_and_functions_are_looked_at() -> None:
    outer = model("Relu")
    outer.graph.node[0].attribute.append(onnx.helper.make_attribute("body", model("Unique").graph))
    assert unsupported(outer, "tensorrt") == ["operator Unique"]
    own = model("Mine", domain="ours")
    body = [onnx.helper.make_node("Unique", ["x"], ["y"])]
    own.functions.append(
        onnx.helper.make_function("ours", "Mine", ["x"], ["y"], body, [onnx.helper.make_opsetid("", 18)])
    )
    assert unsupported(own, "tensorrt") == ["operator Unique"]


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no file"):
        unsupported(tmp_path / "no.onnx", "tensorrt")
    (tmp_path / "bad.onnx").write_bytes(b"\x00 no model")
    with pytest.raises(ExciteError, match="no ONNX model"):
        unsupported(tmp_path / "bad.onnx", "tensorrt")
    with pytest.raises(UsageError, match="tensorrt"):
        unsupported(model("Relu"), "tensort")


def exported(name: str) -> Any:
    network = create_model(name, widths=(4, 8, 8, 8))
    return onnx.load_from_string(to_onnx_bytes(network, torch.randn(1, 3, 32, 32), dynamic=False))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["se", "srm", "emca_eca", "gct", "cbam", "coord", "ge"])
def test_other_methods_run_in_tensorrt(method: str) -> None:
    assert unsupported(exported(f"{method}_resnet18"), "tensorrt") == []


def test_an_exported_network_runs_there() -> None:
    model = exported("eca_resnet18")
    assert {target: unsupported(model, target) for target in TARGETS} == {target: [] for target in TARGETS}
