"""What a detector is fed and what becomes of its detections: order, flips, categories, the epoch's figures."""

import pytest
import torch
from torch import nn

from excite.detect.config import DetectConfig
from excite.detect.data.shapes import Shapes
from excite.detect.loading import run_loaders
from excite.detect.module import DetectionModule
from excite.detect.results import to_results


def fed(seed: int, epoch: int, flip: float) -> dict[int | str, tuple[torch.Tensor, torch.Tensor]]:
    """Images and boxes of a training epoch by image id, in the order in which they come."""
    config = DetectConfig(batch_size=2, workers=0, seed=seed, flip=flip, vertical_flip=0.0, colour=0.0)
    loader, _ = run_loaders(Shapes("train", count=12, size=64), None, config)
    loader.sampler.set_epoch(epoch)
    return {
        target["image_id"]: (image, target["boxes"])
        for images, targets in loader
        for image, target in zip(images, targets, strict=True)
    }


def test_order_depends_on_seed_and_epoch() -> None:
    runs = [list(fed(seed, epoch, 0.0)) for seed, epoch in ((0, 0), (0, 1), (1, 0), (0, 0))]
    assert runs[0] == runs[3]
    assert len({tuple(run) for run in runs}) == 3
    assert len({tuple(sorted(run)) for run in runs}) == 1


def test_flips_are_as_often_as_told_and_take_the_boxes_along() -> None:
    straight, mirrored = fed(0, 0, 0.0), fed(0, 0, 1.0)
    for key, (image, boxes) in straight.items():
        assert torch.equal(mirrored[key][0], image.flip(-1))
        width = image.shape[-1]
        expected = torch.stack((width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]), dim=1)
        torch.testing.assert_close(mirrored[key][1], expected)


def test_which_images_are_flipped_depends_on_seed_and_epoch() -> None:
    straight = fed(0, 0, 0.0)
    patterns = []
    for seed, epoch in ((0, 0), (0, 1), (1, 0), (0, 0)):
        flipped = fed(seed, epoch, 0.5)
        patterns.append(tuple(not torch.equal(flipped[key][0], image) for key, (image, _) in straight.items()))
    assert patterns[0] == patterns[3]
    assert len(set(patterns)) == 3
    assert all(1 < sum(pattern) < 11 for pattern in patterns)


def test_detections_have_the_sizes_and_categories_of_the_data() -> None:
    detection = {
        "boxes": torch.tensor([[1.0, 2.0, 4.0, 8.0], [0.0, 0.0, 5.0, 5.0]]),
        "scores": torch.tensor([0.5, 0.25]),
        "labels": torch.tensor([2, 1]),
    }
    first, second = to_results("photo", detection, [7, 90])
    assert first == {"image_id": "photo", "category_id": 90, "bbox": [1.0, 2.0, 3.0, 6.0], "score": 0.5}
    assert (second["category_id"], second["bbox"]) == (7, [0.0, 0.0, 5.0, 5.0])


def test_an_epochs_figures() -> None:
    module = DetectionModule(nn.Identity(), DetectConfig())
    module.sums, module.steps = {"loss": torch.tensor(6.0), "mask": torch.tensor(1.5)}, 3
    assert module.losses == pytest.approx({"loss": 2.0, "mask": 0.5})
    assert module.score({"box_AP": 0.1, "mask_AP": 0.3}) == 0.3
    assert module.score({"box_AP": 0.1}) == 0.1
    assert module.score({"loss": 1.0}) is None
