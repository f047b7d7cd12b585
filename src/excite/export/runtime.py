"""Open an exported file (with its card), or a network as it would run in another engine."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from excite.card import LARGEST_SIDE, CardFields, parse_card
from excite.common.extras import require
from excite.errors import ExciteError, UsageError, unknown
from excite.export.convert import to_onnx_bytes, to_openvino
from excite.export.engines import Engine, open_onnx, open_openvino, open_torch_program
from excite.models import NetworkSpec

ENGINES = ("torch", "onnxruntime", "openvino")
SUFFIXES = {".onnx": "onnx", ".xml": "openvino", ".pt2": "torch-export"}


@dataclass
class ExportedModel:
    """A callable `images [n c h w] -> logits [n classes]` (float32, CPU).

    card: what the network was; input_size: pixels; batch: the batch size it was exported for, None for any. Raises
    ExciteError where the file cannot be run on such images, or gives something else.
    """

    path: Path
    engine: Engine
    card: NetworkSpec
    format: str
    precision: str
    input_size: int
    batch: int | None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits; a fixed batch size is met by cutting and padding."""
        if self.batch is None:
            return self._run(x)
        parts = []
        for chunk in x.split(self.batch):
            missing = self.batch - len(chunk)
            full = torch.cat([chunk, chunk.new_zeros(missing, *chunk.shape[1:])]) if missing else chunk
            parts.append(self._run(full)[: len(chunk)].clone())
        return torch.cat(parts)

    def _run(self, x: torch.Tensor) -> torch.Tensor:
        try:
            logits = self.engine(x)
        except Exception as error:  # each engine has errors of its own
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ExciteError(f"{self.path}: cannot be run on images of shape {list(x.shape)}: {reason}") from error
        if not isinstance(logits, torch.Tensor) or tuple(logits.shape) != (len(x), self.card.num_classes):
            shape = list(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
            raise ExciteError(f"{self.path}: gives {shape}, its card promises {[len(x), self.card.num_classes]}")
        return logits


def describe(card: NetworkSpec, precision: str, input_size: int, batch: int | None) -> str:
    """Return what travels inside an exported file, as JSON."""
    return json.dumps({"card": card.to_dict(), "precision": precision, "input_size": input_size, "batch": batch})


def open_exported(path: str | Path) -> ExportedModel:
    """Open an .onnx, .xml (OpenVINO) or .pt2 (torch.export) file that `excite export` wrote.

    Raises UsageError for another kind of file, ExciteError where it is broken or carries no card.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise UsageError(f"{path}: not an exported network; expected {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise UsageError(f"no file {str(path)!r}")
    try:
        engine, text = _open(path)
    except UsageError:
        raise
    except ExciteError as error:
        raise ExciteError(f"{path}: cannot be opened: {error}") from error
    except Exception as error:
        reason = (str(error).strip().splitlines() or ["damaged"])[0]
        raise ExciteError(f"{path}: cannot be opened: {type(error).__name__}: {reason}") from error
    if not text:
        raise ExciteError(f"{path}: carries no card of excite (class names, preprocessing); export it again")
    return ExportedModel(path, engine, *_description(text, path))


def _description(text: str, path: Path) -> tuple[NetworkSpec, str, str, int, int | None]:
    """Return spec, format, precision, input size and batch size. Raises ExciteError that names what is wrong."""
    info = CardFields(parse_card(text, str(path)), str(path))
    card = NetworkSpec.from_dict(info.values.get("card"), str(path))
    batch = None if info.values.get("batch") is None else info.whole("batch", 1, 65536)
    size = info.whole("input_size", 1, LARGEST_SIDE)
    return card, SUFFIXES[path.suffix], info.text("precision", known=("fp32", "fp16", "bf16", "int8")), size, batch


def _open(path: Path) -> tuple[Engine, str]:
    if path.suffix == ".onnx":
        engine, metadata = open_onnx(str(path))
        return engine, metadata.get("excite", "")
    if path.suffix == ".pt2":
        return open_torch_program(path)
    require("openvino")
    import openvino

    model = openvino.Core().read_model(str(path))
    text = str(model.get_rt_info("excite").value) if model.has_rt_info("excite") else ""
    precision = json.loads(text)["precision"] if text else "fp32"
    return open_openvino(model, precision), text


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
