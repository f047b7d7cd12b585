"""`excite import`: somebody's checkpoint as a network of ours."""

import json as json_
from pathlib import Path
from typing import Literal

from excite.errors import UsageError


def import_(
    file: Path,
    *,
    model: str | None = None,
    out: Path | None = None,
    class_names: Path | None = None,
    weights: Literal["auto", "model", "ema"] = "auto",
    overwrite: bool = False,
    json: bool = False,
) -> None:
    """Recognise a checkpoint by its keys and shapes, build its network, load every tensor, and save both.

    Known: ECA-Net, EMCA, EMANet's repository, EPSANet, SA-Net, FcaNet, SRM, senet.pytorch, CBAM and BAM, timm,
    torchvision, ours. Only tensors are read, never code. The result is a .safetensors file
    for excite test, predict, explain, bench and export.

    Args:
        file: the checkpoint: .pth, .pth.tar, .pt, .ckpt or .safetensors.
        model: build this network for the weights instead of the one that the checkpoint names or its keys tell.
        out: the file to write (.safetensors); without it nothing is written.
        class_names: a text file with one class name per line, in the order of the classifier's outputs.
        weights: of a checkpoint with a running average: the model's own, the average, or (auto) the first there is.
        overwrite: replace an output that exists.
        json: print JSON.

    Examples:
        excite import seresnet50.pth.tar
        excite import seresnet50.pth.tar -o se50.safetensors --class-names imagenet.txt
    """
    from excite.checkpoints import import_checkpoint, save_bundle
    from excite.models import describe, spec_of

    _check_out(out, overwrite)
    network, report = import_checkpoint(file, model, weights)
    if class_names is not None:
        describe(network, class_names=_read_names(class_names, spec_of(network).num_classes))
    if out is not None:
        save_bundle(out, network.float())
    if json:
        print(json_.dumps({**report.to_dict(), "out": str(out) if out else None}, indent=2))
        return
    print(report)
    if out is None:
        print("nothing written; give a file to keep it: --out NAME.safetensors")
    else:
        print(f"saved        {out}\nnext         excite predict {out} IMAGE...")


def _check_out(out: Path | None, overwrite: bool) -> None:
    if out is None:
        return
    if out.suffix != ".safetensors":
        raise UsageError(f"--out {out}: the file's name must end in .safetensors")
    if not out.parent.is_dir():
        raise UsageError(f"--out {out}: no folder {str(out.parent)!r}")
    if out.exists() and not overwrite:
        raise UsageError(f"{out} exists; give another name or --overwrite")


def _read_names(path: Path, wanted: int) -> list[str]:
    if not path.is_file():
        raise UsageError(f"no file {str(path)!r} with class names")
    names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if len(names) != wanted:
        raise UsageError(f"{path} has {len(names)} class names; the checkpoint's classifier has {wanted} outputs")
    return names
