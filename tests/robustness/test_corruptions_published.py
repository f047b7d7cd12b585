"""The corruptions against numbers of the published code: statistics of the difference image, every family and severity.

Chance is drawn from other generators than in the published code, so that means over repetitions are compared, with a
tolerance of five standard errors of that chance. What depends on no chance must agree to a fraction of a grey level.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import picture

from excite.robustness import corrupt
from excite.robustness.tables import FAMILIES

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "corruptions.json").read_text())
REPEATS = {32: 6, 224: 2}
# Slack of (mean, mean absolute and root mean square difference, ratio of gradients, correlation) beside chance.
SLACK = np.array([0.0006, 0.0006, 0.0006, 0.006, 0.0006])
# The published frost is cut from photographs, ours is drawn: only alike.
DRAWN = np.array([0.03, 0.03, 0.03, 0.5, 0.05])


def statistics(clean: np.ndarray, changed: np.ndarray) -> list[float]:
    difference = changed - clean

    def gradient(image: np.ndarray) -> float:
        return np.abs(np.diff(image, axis=1)).mean() + np.abs(np.diff(image, axis=0)).mean()

    return [
        difference.mean(),
        np.abs(difference).mean(),
        np.sqrt((difference**2).mean()),
        gradient(changed) / gradient(clean),
        np.corrcoef(clean.ravel(), changed.ravel())[0, 1],
    ]


def measured(family: str, side: int, severity: int, images: int, repeats: int) -> np.ndarray:
    rows = []
    for index in range(images):
        clean = picture(side, index) / 255
        pixels = torch.from_numpy(clean).permute(2, 0, 1).float()
        for seed in range(repeats):
            changed = corrupt(pixels, family, severity, seed=seed, index=index)
            rows.append(statistics(clean, changed.permute(1, 2, 0).double().numpy()))
    return np.array(rows).mean(0)


@pytest.mark.parametrize(
    ("side", "severities"),
    [(32, (1, 2, 3, 4, 5)), (224, (1, 5)), pytest.param(224, (2, 3, 4), marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("family", FAMILIES)
def test_severities_are_those_of_the_published_code(family: str, side: int, severities: tuple[int, ...]) -> None:
    images = GOLDEN["images"][str(side)]
    for severity in severities:
        golden = GOLDEN["severities"][f"{family} {side}"][severity - 1]
        repeats = 1 if golden["repeats"] == 1 else REPEATS[side]
        ours = measured(family, side, severity, images, repeats)
        spread = 1 / (images * repeats) + 1 / (images * golden["repeats"])
        tolerance = 5 * np.array(golden["chance"]) * np.sqrt(spread) + SLACK * (1 + np.abs(golden["mean"]))
        if family == "frost":
            tolerance += DRAWN * (1 + np.abs(golden["mean"]))
        off = np.abs(ours - golden["mean"]) / tolerance
        assert off.max() <= 1, f"severity {severity}: {GOLDEN['statistics'][off.argmax()]} {ours} for {golden['mean']}"
