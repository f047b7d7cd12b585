"""Engines: one callable `images [n c h w] -> logits [n classes]`, whatever runs behind it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from excite.common.extras import require
from excite.errors import UsageError, unknown

ENGINES = ("torch", "onnxruntime", "openvino")
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


def open_openvino(source: Any, precision: str = "fp32") -> Engine:
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
    """Open a file written by `torch.export.save`; return it with the card that it carries, as JSON text."""
    extra = {"excite.json": ""}
    module = torch.export.load(str(path), extra_files=extra).module()

    def run(x: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return module(x)

    return run, extra["excite.json"]


def open_engine(model: nn.Module, engine: str, example: torch.Tensor, precision: str = "fp32") -> Engine:
    """Return `model` (put into eval mode) running in `engine`: "torch" (eager), "onnxruntime" or "openvino".

    example: images of the batch size that will be run, `[n c h w]`. precision: "fp32", or "bf16" (torch, openvino).
    Raises UsageError for an unknown engine, a missing package, or a precision that the engine lacks.
    """
    if engine not in ENGINES:
        raise unknown("engine", engine, ENGINES)
    if precision not in ("fp32", "bf16"):
        raise UsageError(f"engine precision {precision!r}; expected fp32 or bf16")
    model = model.eval()
    if engine == "torch":
        return _eager(model, precision)
    require(engine)
    from excite.export.write import to_onnx_bytes, to_openvino

    if engine == "openvino":
        return open_openvino(to_openvino(model, example, dynamic=False), precision)
    if precision == "bf16":
        raise UsageError("onnxruntime has no bfloat16 convolutions on the CPU; use openvino or torch for bf16")
    return open_onnx(to_onnx_bytes(model, example, dynamic=False))[0]


def _eager(model: nn.Module, precision: str) -> Engine:
    def run(x: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode(), torch.autocast(x.device.type, torch.bfloat16, enabled=precision == "bf16"):
            return model(x)

    return run
