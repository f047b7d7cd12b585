"""What each process of the distributed test does; on its own, so that a fresh process starts without timm."""

import json
from pathlib import Path

import torch
from torch import nn

import excite

CASES = {
    "attached": ("resnet20", "eca", {}),
    "attached emca": ("torchvision/resnet18", "emca_eca", {}),
    "emca": ("emca_eca_resnet20", None, {}),
    "emca released": ("emca_eca_resnet20", None, {"form": "released"}),
}


def train_two_steps(rank: int, path: str, results: str, processes: int = 2) -> None:
    """Take two steps with each network on data of its own and write down what the weights are then."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=processes)
    totals = {}
    for case, (name, method, options) in CASES.items():
        torch.manual_seed(0)
        model = excite.create_model(name, num_classes=4, **options)
        if method:
            excite.attach(model, method)
        wrapped = nn.parallel.DistributedDataParallel(model.train())
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for step in range(2):  # an unused parameter fails in the second step
            optimizer.zero_grad()
            x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(10 * rank + step))
            wrapped(x).square().mean().backward()
            optimizer.step()
        totals[case] = sum(p.detach().double().abs().sum().item() for p in model.parameters())
    Path(f"{results}.{rank}").write_text(json.dumps(totals))
    torch.distributed.destroy_process_group()
