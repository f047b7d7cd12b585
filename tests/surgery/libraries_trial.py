"""Hugging Face's and segmentation_models_pytorch's networks with attention attached; prints one line of JSON.

Run as a script; needs transformers and segmentation_models_pytorch. Nothing is downloaded: small networks, made here.
"""

import json
import sys
import tempfile
from typing import Any

import segmentation_models_pytorch as smp
import torch
from transformers import ConvNextConfig, ConvNextForImageClassification, ResNetConfig, ResNetForImageClassification

import excite


def networks() -> dict[str, tuple[torch.nn.Module, str]]:
    """Return name -> (network, preset)."""
    torch.manual_seed(0)
    small = {"hidden_sizes": [16, 32], "depths": [2, 2], "num_labels": 4}
    residual = ResNetConfig(embedding_size=8, layer_type="basic", **small)
    return {
        "transformers ResNet": (ResNetForImageClassification(residual), "residual"),
        "transformers ConvNeXt": (ConvNextForImageClassification(ConvNextConfig(num_stages=2, **small)), "residual"),
        "smp Unet": (smp.Unet("resnet18", encoder_weights=None, classes=2), "residual"),
        "smp DeepLabV3Plus": (smp.DeepLabV3Plus("mobilenet_v2", encoder_weights=None, classes=2), "residual"),
    }


def tensor(output: Any) -> torch.Tensor:
    """Return the logits."""
    return output if isinstance(output, torch.Tensor) else output.logits


def trial(model: torch.nn.Module, preset: str) -> dict[str, object]:
    """Attach, load the bare file, save as the library does, train a step, detach."""
    x = torch.randn(2, 3, 64, 64)
    model.eval()
    with torch.no_grad():
        before, file = tensor(model(x)), {k: v.clone() for k, v in model.state_dict().items()}
        report = excite.attach(model, "eca", sites=preset, input_size=(3, 64, 64))
        kept = model.load_state_dict(file)
        attended = tensor(model(x))
        result: dict[str, object] = {
            "sites": len(report.sites),
            "first": report.sites[0].path,
            "host keys kept": report.kept_tensors == len(file) and not kept.missing_keys,
            "changes": not torch.equal(attended, before),
        }
    with tempfile.TemporaryDirectory() as folder:
        if hasattr(model, "save_pretrained"):
            model.save_pretrained(folder)
    model.train()
    tensor(model(x)).square().mean().backward()
    gradients = [p.grad for n, p in model.named_parameters() if ".attention.gate" in n]
    result["trained"] = bool(gradients) and all(g is not None and bool(g.any()) for g in gradients)
    excite.detach(model)
    model.load_state_dict(file)
    with torch.no_grad():
        result["detached"] = torch.equal(tensor(model.eval()(x)), before)
    return result


if __name__ == "__main__":
    results = {name: trial(*parts) for name, parts in networks().items()}
    sys.stdout.write("\n" + json.dumps(results) + "\n")
