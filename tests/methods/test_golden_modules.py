"""Every method against numbers computed from its original implementation, in float64."""

from collections.abc import Callable
from typing import Any, NamedTuple

import goldens
import pytest
import torch
from torch import nn

import excite


class Case(NamedTuple):
    """A golden file, how we build the same module, and (reference, ours) pieces of keys, applied in order."""

    file: str
    method: str
    options: dict[str, Any] = {}  # noqa: RUF012
    names: tuple[tuple[str, str], ...] = ()
    channels: int = 64


MIXER = (
    ("3.0.fn.0.", "depthwise."),
    ("3.0.fn.2.", "depthwise_norm."),
    ("3.1.fn.0.running", "soft_norm.norm.running"),
    ("3.1.fn.0.num", "soft_norm.norm.num"),
    ("3.1.fn.0.weight_readjust", "soft_norm.readjust_weight"),
    ("3.1.fn.0.bias_readjust", "soft_norm.readjust_bias"),
    ("3.1.fn.0.", "soft_norm."),
    ("3.1.fn.1.", "pointwise."),
    ("3.1.fn.3.", "pointwise_norm."),
)
BRANCHES = tuple((f"conv_{i + 1}.", f"branches.{i}.") for i in range(4))
SE = (("se.fc.0.", "gate.reduce."), ("se.fc.2.", "gate.expand."))

CASES = [
    Case("psa__c64_s1", "psa", {}, (*BRANCHES, ("se.fc1.", "gate.reduce."), ("se.fc2.", "gate.expand."))),
    Case(
        "ma__c64_s1",
        "ma",
        {},
        (
            *SE,
            *BRANCHES,
            *MIXER,
            *((f"s.{i}.0.", f"s.{i}.conv.") for i in range(4)),
            *((f"s.{i}.2.", f"s.{i}.norm.") for i in range(4)),
        ),
    ),
]


def rename(key: str, names: tuple[tuple[str, str], ...]) -> str:
    for theirs, ours in names:
        key = key.replace(theirs, ours, 1)
    return key


def load(module: nn.Module, data: dict[str, Any], names: tuple[tuple[str, str], ...]) -> None:
    """Fill by the reference's names, rename, and load strictly; a shape may differ by axes of size one."""
    own = module.state_dict()
    state = {rename(k, names): v for k, v in goldens.fill_state(data).items()}
    missing = {k for k in own if k not in state and not k.endswith("num_batches_tracked")}
    assert not missing, missing
    assert set(state) <= set(own), set(state) - set(own)
    module.load_state_dict({k: state[k].reshape(own[k].shape) if k in state else own[k] for k in own})


def check(module: nn.Module, data: dict[str, Any], names: tuple[tuple[str, str], ...]) -> None:
    learned = sum(p.numel() for p in module.parameters())
    assert learned == data["param_count"]
    for mode in ("eval", "train"):
        if mode not in data:
            continue
        load(module, data, names)
        module.train(mode == "train")
        module.zero_grad(set_to_none=True)
        x = goldens.make_input(data).requires_grad_()
        out = module(x)
        expected = data[mode]
        goldens.check_output(out, expected)
        loss = out.square().mean()
        assert goldens.close(loss.item(), expected["loss"], expected["loss"], 1e-8)
        loss.backward()
        assert goldens.close(float(x.grad.norm()), expected["grad_input_l2"], expected["grad_input_l2"], 1e-6)
        own = dict(module.named_parameters())
        grads: Callable[[str], torch.Tensor | None] = lambda key: own[rename(key, names)].grad  # noqa: E731, B023
        if expected["grad_l2"]:
            goldens.check_gradients(data, expected["grad_l2"], grads)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.file)
def test_equals_the_original(case: Case) -> None:
    data = goldens.load(f"modules/{case.file}")
    module = excite.create_attention(case.method, case.channels, **case.options).double()
    check(module, data, case.names)


def test_soft_norm_equals_the_original() -> None:
    from excite.methods.soft_norm import SoftNorm

    names = (
        ("running", "norm.running"),
        ("num_b", "norm.num_b"),
        ("weight_readjust", "readjust_weight"),
        ("bias_readjust", "readjust_bias"),
    )
    check(SoftNorm(2, 16).double(), goldens.load("modules/ma__softban_c16"), names)
