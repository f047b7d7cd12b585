"""Write a network as ONNX, OpenVINO or torch.export; check what the file computes before it gets its name."""

import contextlib
import io
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from excite.common.files import replacing
from excite.errors import ExciteError, UsageError, unknown
from excite.export.convert import onnx_model, openvino_model, prepare, quantise
from excite.export.graph import Rewrites
from excite.export.runtime import describe, open_exported
from excite.models import NetworkSpec

FORMATS = {"onnx": ".onnx", "openvino": ".xml", "torch-export": ".pt2"}
PRECISIONS = {
    "onnx": ("fp32", "fp16", "int8"),
    "openvino": ("fp32", "fp16", "bf16", "int8"),
    "torch-export": ("fp32", "fp16", "bf16"),
}
# Largest difference of a logit, relative to the largest logit, that a precision may cost.
TOLERANCES = {"fp32": 1e-4, "fp16": 2e-2, "bf16": 8e-2}


@dataclass(frozen=True)
class ExportResult:
    """What was written. error: largest difference of a logit relative to the largest logit, over the checked images."""

    path: str
    format: str
    precision: str
    error: float
    tolerance: float | None
    images_checked: int
    megabytes: float
    rewrites: Rewrites

    def to_dict(self) -> dict[str, object]:
        """Return the result as plain containers."""
        return asdict(self)


class Cast(nn.Module):
    """float32 outside, another dtype inside."""

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.model, self.dtype = model.to(dtype), dtype

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return float32 logits of float32 images."""
        return self.model(x.to(self.dtype)).float()


def export_model(
    model: nn.Module,
    card: NetworkSpec,
    path: str | Path,
    *,
    format: str = "onnx",
    precision: str = "fp32",
    input_size: int = 224,
    dynamic: bool = False,
    move_squeezes: bool | None = None,
    calibration: Sequence[torch.Tensor] = (),
    overwrite: bool = False,
) -> ExportResult:
    """Export `model` (in eval mode, on the CPU) to `path`; the file carries the card.

    input_size: pixels of the square images; dynamic: any batch size (else 1); move_squeezes: see `excite.export.graph`,
    by default where it pays, for OpenVINO; calibration: batches `[n c h w]` of real images, needed for int8. The file
    is checked against the network on images (real ones where given, else random); where a logit differs by more than
    the precision explains, nothing is written.
    Raises UsageError for combinations that do not exist, ExciteError on a mismatch.
    """
    path = Path(path)
    _check_request(path, format, precision, input_size, calibration, overwrite)
    model = model.eval().cpu()
    images = _check_images(3 if dynamic else 1, card.in_channels, input_size, calibration)
    with torch.no_grad():
        wanted = model(images).float()
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(precision)
    inside = model
    if dtype is not None and format != "openvino":
        import copy

        inside = Cast(copy.deepcopy(model), dtype)
    moves = format == "openvino" if move_squeezes is None else move_squeezes
    _, done, program = prepare(inside, images[:1], dynamic=dynamic, move_squeezes=moves)
    text = describe(card, precision, input_size, None if dynamic else 1)
    try:
        with tempfile.TemporaryDirectory(prefix="excite-export-") as folder:
            draft = Path(folder) / path.name
            _write(program, draft, format, precision, text, dynamic, calibration)
            error = _compare(draft, images, wanted, precision)
            files = sorted(Path(folder).iterdir(), key=lambda f: f.suffix != ".xml")
            size = sum(f.stat().st_size for f in files) / 1e6
            # All or none; what is entered last gets its name first: an .xml must never stand without its .bin.
            with contextlib.ExitStack() as stack:
                for file in files:
                    shutil.copyfile(file, stack.enter_context(replacing(path.parent / file.name)))
    except OSError as full:
        raise ExciteError(f"cannot write {path}: {full.strerror or full}") from full
    tolerance = TOLERANCES.get(precision)
    return ExportResult(str(path), format, precision, error, tolerance, len(images), size, done)


def _check_images(n: int, channels: int, size: int, real: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return real images where there are some (8 bits are calibrated for those alone), else random ones."""
    if real:
        return real[0][:n]
    return torch.randn(n, channels, size, size, generator=torch.Generator().manual_seed(0))


def _check_request(
    path: Path, format: str, precision: str, input_size: int, calibration: Sequence[torch.Tensor], overwrite: bool
) -> None:
    if format not in FORMATS:
        raise unknown("format", format, FORMATS)
    if precision not in PRECISIONS[format]:
        raise UsageError(f"{format} has no precision {precision!r} here; it has: {', '.join(PRECISIONS[format])}")
    if path.suffix != FORMATS[format]:
        raise UsageError(f"{path}: a file of format {format} ends in {FORMATS[format]}")
    if input_size < 1:
        raise UsageError(f"input size {input_size} is not a number of pixels")
    if precision == "int8" and not calibration:
        raise UsageError("int8 needs real images to calibrate with; name a data set with --data")
    if path.exists() and not overwrite:
        raise UsageError(f"{path} exists; choose another name or pass --overwrite")


def _write(
    program: torch.export.ExportedProgram,
    path: Path,
    format: str,
    precision: str,
    text: str,
    dynamic: bool,
    calibration: Sequence[torch.Tensor],
) -> None:
    if format == "torch-export":
        archive = io.BytesIO()  # torch's own way to a file has no words for a full disk
        torch.export.save(program, archive, extra_files={"excite.json": text})
        path.write_bytes(archive.getbuffer())
        return
    if format == "onnx":
        proto = onnx_model(program, dynamic)
        if precision == "int8":
            proto = quantise(proto, calibration, fixed_batch=not dynamic, input_name="images")
        entry = proto.metadata_props.add()
        entry.key, entry.value = "excite", text
        path.write_bytes(proto.SerializeToString())
        return
    model = openvino_model(program, dynamic)
    if precision == "int8":
        model = quantise(model, calibration, fixed_batch=not dynamic)
    import openvino

    model.set_rt_info(text, "excite")
    openvino.save_model(model, str(path), compress_to_fp16=precision == "fp16")


def _compare(path: Path, images: torch.Tensor, wanted: torch.Tensor, precision: str) -> float:
    """Return the relative error of the written file; raise ExciteError where it is too large or not finite."""
    got = open_exported(path)(images).float()
    error = float((got - wanted).abs().max() / wanted.abs().max().clamp_min(1e-12))
    tolerance = TOLERANCES.get(precision)
    # int8 has no bound on a logit; its cost is an accuracy, which the caller measures.
    if got.shape != wanted.shape or not torch.isfinite(got).all() or (tolerance is not None and error > tolerance):
        raise ExciteError(
            f"the exported network disagrees with the original: largest difference {error:.2e} of the largest logit "
            f"(allowed: {tolerance if tolerance is not None else 'finite'}); nothing was written"
        )
    return error
