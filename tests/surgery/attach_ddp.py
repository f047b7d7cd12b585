"""What each process of the distributed test does; on its own, so that a fresh process starts without timm."""

import os
from pathlib import Path

import torch
from torch import nn

import excite


def train_two_steps(rank: int, path: str, method: str, results: str) -> None:
    """Take two steps on data of its own and write down what the weights are then."""
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=2)
    torch.manual_seed(0)
    model = excite.create_model("resnet20", num_classes=4)
    excite.attach(model, method)
    wrapped = nn.parallel.DistributedDataParallel(model.train())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(2):  # an unused parameter fails in the second step
        optimizer.zero_grad()
        x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(10 * rank + step))
        wrapped(x).square().mean().backward()
        optimizer.step()
    total = sum(p.detach().double().abs().sum().item() for p in model.parameters())
    Path(f"{results}.{rank}").write_text(repr(total))
    torch.distributed.destroy_process_group()
