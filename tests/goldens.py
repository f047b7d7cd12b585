"""Numbers computed from the original implementations, and the rule that rebuilds every weight they were made with.

A file's `state` is packed: groups `[prefixes, items]`, an item `[suffix, shape]` or `[suffix, shape, "const"]`.
"""

import json
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

FOLDER = Path(__file__).parent / "golden"
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def load(name: str) -> dict[str, Any]:
    """Read `modules/<name>` or `models/<name>`; the gradients of a file may lie in a second one."""
    data = json.loads((FOLDER / f"{name}.json").read_text())
    if "grad_l2_file" in data:
        data["grad_l2"] = json.loads((FOLDER / name).with_name(data["grad_l2_file"]).read_text())["grad_l2"]
    return data


def entries(data: Mapping[str, Any]) -> list[tuple[str, tuple[int, ...], bool]]:
    """Return (reference key, shape, is constant) in the order of the reference's state dict."""
    return [
        (prefix + item[0], tuple(item[1]), len(item) > 2)
        for prefixes, items in data["state"]
        for prefix in prefixes
        for item in items
    ]


def fill(key: str, shape: tuple[int, ...], keys: set[str]) -> np.ndarray:
    """Return the value of one entry of the reference's state dict."""
    n = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(shape)
    leaf = key.rsplit(".", 1)[-1]
    prefix = key[: len(key) - len(leaf)]
    if key.endswith("running_var"):
        return 0.5 + np.abs(n)
    if key.endswith("num_batches_tracked"):
        return np.zeros(shape, dtype=np.int64)
    if key.endswith(("running_mean", "bias")):
        return 0.1 * n
    if leaf == "weight" and prefix + "running_mean" in keys:
        return 1 + 0.1 * n
    return n * np.sqrt(2 / np.prod(shape[1:])) if len(shape) >= 2 else 0.1 * n


def fill_state(data: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Return the reference's state dict (float64), without its constant entries."""
    items = entries(data)
    keys = {key for key, _, _ in items}
    return {k: torch.as_tensor(np.asarray(fill(k, shape, keys))) for k, shape, const in items if not const}


def make_input(data: Mapping[str, Any]) -> torch.Tensor:
    """Return the input of the golden run, float64."""
    return torch.from_numpy(np.random.RandomState(0).standard_normal(data["input_shape"]))


def learned_keys(data: Mapping[str, Any]) -> list[str]:
    """Return the reference keys that `grad_l2` is aligned with."""
    return [key for key, _, const in entries(data) if not const and not key.endswith(STATISTICS)]


def close(value: float, expected: float, scale: float, relative: float) -> bool:
    """Compare with a tolerance relative to `scale`, the largest value compared."""
    return abs(value - expected) <= relative * max(scale, 1e-30)


def check_output(out: torch.Tensor, expected: Mapping[str, Any], relative: float = 1e-8) -> None:
    """Compare an output with a golden `eval` or `train` record (module or model)."""
    out = out.detach()
    if "first10" in expected:
        assert list(out.shape) == expected["shape"]
        first = out.reshape(out.shape[0], -1)[:, :10].flatten().tolist()
        wanted = np.asarray(expected["first10"], dtype=np.float64).flatten().tolist()
    else:
        assert list(out.shape) == expected["out_shape"]
        wanted = list(expected["first"])
        first = out.flatten()[: len(wanted)].tolist()
    scale = max(abs(v) for v in wanted)
    for value, want in zip(first, wanted, strict=True):
        assert close(value, want, scale, relative), (value, want)
    l2 = float(out.norm())
    assert close(l2, expected["l2"], expected["l2"], relative)
    assert close(float(out.sum()), expected["sum"], expected["l2"], relative)


def check_gradients(
    data: Mapping[str, Any],
    gradients: list[float | None],
    grad_of: Callable[[str], torch.Tensor | None],
    relative: float = 1e-6,
) -> None:
    """Compare gradient norms: `grad_of(reference key)` against the recorded list.

    A gradient that is mathematically zero was recorded as rounding noise, hence the absolute part.
    """
    keys = learned_keys(data)
    floor = 1e-12 * max(g for g in gradients if g is not None)
    for key, expected in zip(keys, gradients, strict=True):
        gradient = grad_of(key)
        if expected is None:
            assert gradient is None or float(gradient.norm()) == 0, key
            continue
        assert gradient is not None, key
        assert abs(float(gradient.norm()) - expected) <= relative * expected + floor, (
            key,
            float(gradient.norm()),
            expected,
        )
