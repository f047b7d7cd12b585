"""Engines: one callable `images [n c h w] -> logits [n classes]`, whatever runs behind it."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from excite.common.extras import require
from excite.export.program import checked

if TYPE_CHECKING:
    import openvino


Engine = Callable[[torch.Tensor], torch.Tensor]


def open_onnx(source: str | bytes) -> tuple[Engine, dict[str, str]]:
    """Open an ONNX file (path) or model (bytes) in onnxruntime on the CPU; return it with its metadata."""
    require("onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    # Else the threads of an idle session spin and halve the speed of whatever runs next, such as another session.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(x: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(session.run(None, {name: x.contiguous().numpy()})[0])

    return run, dict(session.get_modelmeta().custom_metadata_map)


def open_openvino(source: "str | Path | openvino.Model", precision: str = "fp32") -> Engine:
    """Compile an OpenVINO model (object or path to its .xml) for the CPU; precision: "bf16" computes in bfloat16."""
    require("openvino")
    import openvino

    core = openvino.Core()
    model = core.read_model(str(source)) if isinstance(source, str | Path) else source
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    request = core.compile_model(model, "CPU", settings).create_infer_request()

    def run(x: torch.Tensor) -> torch.Tensor:
        out = request.infer([x.contiguous().numpy()], share_inputs=True)
        return torch.from_numpy(next(iter(out.values())).copy())

    return run


def open_torch_program(path: str | Path) -> tuple[Engine, str]:
    """Open a file written by `torch.export.save`; return it with the card that it carries, as JSON text.

    Raises ExciteError for one that holds anything but aten operators and raw weights: it might run code.
    """
    extra = {"excite.json": ""}
    module = torch.export.load(checked(Path(path).read_bytes()), extra_files=extra).module()

    def run(x: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return module(x)

    return run, extra["excite.json"]
