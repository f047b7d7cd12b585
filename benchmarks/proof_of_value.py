"""Record seeded losses of short trainings, to show that a change of structure changes no number.

python benchmarks/proof_of_value.py record before.json   # in the old tree
python benchmarks/proof_of_value.py check before.json    # in the new one: prints what differs, exit 1 if anything does

A record holds 20 losses of SGD for methods, backbones, kernels and precisions, a detector, and attached networks,
as exact hexadecimal floats. Compare records of one machine only: other processors round differently.
"""

import contextlib
import json
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

import excite
from excite import ops

STEPS = 20
# name, options, kernels ("fused" or "reference"), precision
NETWORKS: list[tuple[str, dict, str, str]] = [
    ("resnet20", {}, "fused", "32"),
    ("eca_resnet20", {}, "fused", "32"),
    ("eca_resnet20", {}, "reference", "32"),
    ("se_resnet20", {}, "fused", "bf16"),
    ("srm_resnet20", {}, "fused", "32"),
    ("fca_resnet20", {}, "reference", "32"),
    ("cbam_resnet20", {}, "fused", "32"),
    ("gct_resnet20", {}, "fused", "bf16"),
    ("emca_eca_resnet20", {}, "fused", "32"),
    ("emca_se_resnet20", {"form": "released"}, "reference", "32"),
    ("eca_resnet18_cifar", {"placement": "last"}, "fused", "32"),
    ("se_mobilenet_v2_cifar", {"width_mult": 0.35}, "fused", "32"),
    ("psa_resnet50_cifar", {"blocks_per_stage": (1, 1, 1, 1)}, "fused", "32"),
    ("bam_resnet18_cifar", {}, "fused", "32"),
    ("timm/resnet10t", {"attach": "eca"}, "fused", "32"),
    ("timm/regnetx_002", {"attach": "se"}, "reference", "32"),
]


def losses(model: nn.Module, step: Callable[[int], torch.Tensor]) -> list[str]:
    """Return the loss of every step of SGD, exactly."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    found = []
    for i in range(STEPS):
        optimizer.zero_grad()
        loss = step(i)
        loss.backward()
        optimizer.step()
        found.append(float(loss.detach().double()).hex())
    return found


def classification(name: str, options: dict, kernels: str, precision: str) -> list[str]:
    """Train on seeded noise."""
    torch.manual_seed(0)
    model = excite.create_model(name, num_classes=10, **options).train()
    side = 64 if "/" in name else 32

    def step(i: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(100 + i)
        x = torch.randn(8, 3, side, side, generator=generator)
        y = torch.randint(10, (8,), generator=generator)
        half = torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()
        with ops.use(kernels), half:
            return F.cross_entropy(model(x).float(), y)

    return losses(model, step)


def detection() -> list[str]:
    """Train a small RetinaNet on seeded noise and boxes."""
    torch.manual_seed(0)
    model = excite.create_detector("retinanet", "eca_resnet20", 3, min_size=(64,), max_size=64).train()

    def step(i: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(100 + i)
        images = [torch.rand(3, 64, 64, generator=generator) for _ in range(2)]
        corner = torch.rand(2, 2, generator=generator) * 30
        boxes = torch.cat([corner, corner + 20], dim=1)
        targets = [{"boxes": boxes[j : j + 1], "labels": torch.tensor([1 + j])} for j in range(2)]
        return sum(model(images, targets).values())  # type: ignore[return-value]

    return losses(model, step)


def record() -> dict[str, list[str]]:
    """Return every case with its losses."""
    torch.set_num_threads(1)
    found = {}
    for case in NETWORKS:
        key = " ".join(map(str, case))
        found[key] = classification(*case)
        print(key, float.fromhex(found[key][-1]), flush=True)
    found["detection"] = detection()
    return found


def main() -> None:
    what, path = sys.argv[1], Path(sys.argv[2])
    found = record()
    if what == "record":
        path.write_text(json.dumps(found, indent=1) + "\n")
        return
    before = json.loads(path.read_text())
    wrong = [key for key in sorted({*before, *found}) if before.get(key) != found.get(key)]
    print("\n".join(f"differs: {key}" for key in wrong) or f"identical: {len(found)} cases of {STEPS} losses")
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    main()
