"""Residual blocks as nobody should write them: attached attention is the same fused and module by module."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import excite
from excite import ops

Body = Callable[["Host", torch.Tensor], torch.Tensor]


class Host(nn.Module):
    """A stem, one residual block whose forward is given, a head."""

    def __init__(self, body: Body) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 4)
        self.c1, self.c2 = (nn.Conv2d(8, 8, 3, padding=1, bias=False) for _ in range(2))
        self.n1, self.n2 = nn.BatchNorm2d(8), nn.BatchNorm2d(8)
        self.body = body

    def branch(self, x: torch.Tensor) -> torch.Tensor:
        return self.n2(self.c2(F.relu(self.n1(self.c1(x)))))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(self, self.stem(x)).mean((2, 3)))


def in_place(m: Host, x: torch.Tensor) -> torch.Tensor:
    y = m.branch(x)
    y += x
    return F.relu_(y)


def used_twice(m: Host, x: torch.Tensor) -> torch.Tensor:
    y = m.branch(x)
    return F.relu(y + x) * torch.sigmoid(y)


def z_used_again(m: Host, x: torch.Tensor) -> torch.Tensor:
    z = m.c2(F.relu(m.n1(m.c1(x))))
    return F.relu(m.n2(z) + x) + z


def view_written(m: Host, x: torch.Tensor) -> torch.Tensor:
    y = m.branch(x)
    y[:, :4].mul_(2)
    return F.relu(y + x)


def kept_outside(m: Host, x: torch.Tensor) -> torch.Tensor:
    m.__dict__["last"] = y = m.branch(x)
    return F.relu(y + x) + m.__dict__["last"]


def transposed(m: Host, x: torch.Tensor) -> torch.Tensor:
    return F.relu(m.branch(x).transpose(2, 3).transpose(2, 3) + x)


def recomputed(m: Host, x: torch.Tensor) -> torch.Tensor:
    return F.relu(checkpoint(m.branch, x, use_reentrant=False) + x)


BODIES: list[Body] = [in_place, used_twice, z_used_again, view_written, kept_outside, transposed, recomputed]


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.__name__)
def test_fused_and_module_by_module_agree(body: Body, frozen: bool) -> None:
    model, x = Host(body).double().eval(), torch.randn(4, 3, 18, 18).double()
    with torch.no_grad():
        before = model(x)
    report = excite.attach(model, "eca", input_size=(3, 18, 18))
    assert [s.path for s in report.sites] == ["n2"]
    for p in model.n2.get_submodule("attention").parameters():
        nn.init.normal_(p, std=0.7)
    passes = []
    for mode in ("reference", "fused"):
        twin = copy.deepcopy(model)
        with ops.use(mode):
            with torch.no_grad():
                outputs = [twin(x), twin(x)]
            twin.train()
            twin.n2.train(not frozen)
            y = twin(x)
            y.square().sum().backward()
        passes.append([*outputs, y.detach(), *(p.grad for p in twin.parameters()), *twin.buffers()])
    for a, b in zip(*passes, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-9, atol=1e-9)
    assert not torch.equal(passes[0][0], before)
    assert torch.equal(excite.detach(model)(x), before)
