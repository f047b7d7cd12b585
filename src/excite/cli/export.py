"""`excite export`: a network as a file for another engine."""

import json as json_
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from excite.common.tables import counted
from excite.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor, nn

    from excite.models import NetworkSpec

# Any: entries of a JSON report.


def export(
    checkpoint: str,
    *,
    model: str | None = None,
    format: Literal["onnx", "openvino", "torch-export"] = "onnx",
    out: Path | None = None,
    precision: Literal["fp32", "fp16", "bf16", "int8"] = "fp32",
    dynamic: bool = False,
    size: int | None = None,
    num_classes: int | None = None,
    move_squeezes: bool | None = None,
    data: str | None = None,
    limit: int = 256,
    overwrite: bool = False,
    json: bool = False,
) -> None:
    """Export a checkpoint (or a network by name, with fresh weights) to ONNX, OpenVINO or torch.export.

    Batch norms are folded; for OpenVINO the squeeze moves before a last 1x1 convolution, and gates become 1x1
    convolutions. The file's outputs are compared with the network's before it gets its name; class names and
    preprocessing travel inside. `excite predict FILE IMAGE...` and `excite test FILE` run the result.

    Args:
        checkpoint: a checkpoint, a run directory, or the name of a network.
        model: build this network for the weights instead of the one that the checkpoint names.
        format: the kind of file; .onnx, .xml (with its .bin) or .pt2.
        out: the file to write; by default the checkpoint's name with the format's ending, here.
        precision: fp16 stores half the bytes; bf16 computes in bfloat16; int8 is quantised, with real images.
        dynamic: accept any batch size instead of one image at a time.
        size: image size in pixels; by default what the network was trained on, else 224.
        num_classes: classes of a network given by name; 1000 unless told otherwise.
        move_squeezes: move squeezes before the last convolution and keep gates as convolutions; by default for
            openvino, which gains by it, and not for the others.
        data: data spec; its training images calibrate int8, the accuracy before and after is measured on its validation
            images; int8 takes the data that the run was trained on by default, the others measure none.
        limit: most images of it that are used, for either.
        overwrite: replace an existing file.
        json: print JSON.

    Examples:
        excite export runs/eca_resnet20-digits --format onnx --dynamic --data digits -o eca_digits.onnx
        excite export se_resnet50 --format openvino
    """
    import torch

    from excite.data.preprocess import Preprocess
    from excite.export import FORMATS, export_model, open_exported

    if limit < 1:
        raise UsageError(f"--limit {limit}: at least one image is needed")
    network, card, trained_on = find_network(checkpoint, num_classes, model)
    if card.preprocess and size:  # the file says how images of this size are prepared
        card = replace(card, preprocess=Preprocess.of(card).at(size).to_dict())
    side = size or (card.preprocess["size"] if card.preprocess else 224)
    named = Path(checkpoint)
    name = Path(checkpoint.rstrip("/")).stem if named.exists() else checkpoint.replace("/", "_").replace(":", "_")
    path = out or Path(name + FORMATS[format])
    calibration, held_out = [], []
    if data is not None or precision == "int8":
        from excite.data.specs import RunOf, open_run_data

        run = RunOf(checkpoint, card, trained_on)
        bundle = open_run_data([run], data, limit_train=limit, limit_test=limit)
        preprocess = Preprocess.of(card)
        if precision == "int8":
            calibration = [x for x, _ in preprocess.batches(bundle.train)]
        held_out = list(preprocess.batches(bundle.test))
    result = export_model(
        network,
        card,
        path,
        format=format,
        precision=precision,
        input_size=side,
        dynamic=dynamic,
        move_squeezes=move_squeezes,
        calibration=calibration,
        overwrite=overwrite,
    )
    facts = {"checkpoint": checkpoint, "model": card.name, "out": str(path), "size": side}
    report = facts | {k: v for k, v in result.to_dict().items() if k != "path"} | {"batch": None if dynamic else 1}
    if held_out:
        with torch.inference_mode():
            before = top1(network, held_out)
        report |= {"data": bundle.spec, "split": bundle.test_name, "calibrated_on": "train" if calibration else None}
        report |= {"images": sum(len(y) for _, y in held_out), "top1_before": before}
        report["top1_after"] = top1(open_exported(path), held_out)
    print(json_.dumps(report, indent=2) if json else describe(report))


def top1(run: "Callable[[Tensor], Tensor]", batches: "Sequence[tuple[Tensor, Tensor]]") -> float:
    """Return the share of images whose largest logit is the right one."""
    right = sum(int((run(x).argmax(1) == y).sum()) for x, y in batches)
    return right / sum(len(y) for _, y in batches)


def find_network(
    source: str, num_classes: int | None, model: str | None
) -> "tuple[nn.Module, NetworkSpec, str | None]":
    """Return (network in eval mode, card, data of its run) of a checkpoint (built as `model`), a run, or a name."""
    from excite.checkpoints.reading import is_checkpoint, read_checkpoint

    if is_checkpoint(source):
        from excite.checkpoints.importing import network_of
        from excite.models import spec_of

        if num_classes is not None:
            raise UsageError("--num-classes is for a network given by name; a checkpoint says how many it has")
        checkpoint = read_checkpoint(source)
        network = network_of(checkpoint, model)[0]
        return network, spec_of(network), checkpoint.trained_on
    if Path(source).suffix in (".ckpt", ".safetensors"):
        raise UsageError(f"no checkpoint {source!r}")
    if model is not None:
        raise UsageError(f"--model {model} is for the weights of a checkpoint, and {source} is a network's name")
    from excite.data.preprocess import Preprocess
    from excite.models import NetworkSpec

    classes = 1000 if num_classes is None else num_classes
    spec = NetworkSpec(source, classes, preprocess=Preprocess.usual().to_dict())
    return spec.build().eval(), spec, None


def describe(report: dict[str, Any]) -> str:
    """Return the report as text."""
    done = report["rewrites"]
    batch = "any batch size" if report["batch"] is None else "batch 1"
    lines = [
        f"wrote {report['out']} ({report['megabytes']:.1f} MB, {report['format']}, {report['precision']}, "
        f"{report['size']}x{report['size']}, {batch})",
        f"rewritten: {done['norms_folded']} batch norms folded, {done['squeezes_moved']} squeezes moved before their "
        f"convolution, {done['products_as_convolutions']} products as 1x1 convolutions, "
        f"{done['steps_composed']} pairs of linear steps composed",
        f"checked on {counted(report['images_checked'], 'image')}: largest difference of a logit "
        f"{report['error']:.1e} of the largest logit"
        + (f" (allowed {report['tolerance']:.0e})" if report["tolerance"] else ""),
    ]
    if "top1_after" in report:
        lines.append(
            f"top-1 on {report['images']} images of {report['data']} {report['split']}: "
            f"{report['top1_before']:.2%} before, {report['top1_after']:.2%} after"
        )
    lines.append(f"next: excite predict {report['out']} IMAGE...")
    return "\n".join(lines)
