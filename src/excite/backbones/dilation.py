"""Maps that stay large: strides become dilations, as networks for segmentation want (Chen et al., DeepLab, 2017)."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import nn

from excite.backbones.blocks import Block
from excite.errors import UsageError
from excite.types import FeatureMap

BESIDE = ("attention", "squeeze", "inner", "downsample")  # children of a block that are no part of its branch


class SamePool(nn.Module):
    """Average over 2x2 at every position: what is left of an average pool of stride 2."""

    def forward(self, x: FeatureMap) -> FeatureMap:
        """Return the averaged map, of the same size."""
        return F.avg_pool2d(F.pad(x, (0, 1, 0, 1), mode="replicate"), 2, 1)


def dilate(blocks: Sequence[Block], start: int, output_stride: int) -> None:
    """Let the maps shrink to 1/`output_stride` only; later strides become 1, and the 3x3 convolutions after them wider.

    blocks: of all stages; start: how much smaller than the image their input is. Raises UsageError for an
    `output_stride` that no stage has.
    """
    strides = [start]
    for block in blocks:
        strides.append(strides[-1] * block.stride)
    if type(output_stride) is not int or output_stride not in strides:
        known = ", ".join(map(str, sorted(set(strides))))
        raise UsageError(f"option output_stride={output_stride!r}; this network's maps have the strides {known}")
    current, dilation = start, 1
    for block in blocks:
        before = dilation
        if current == output_stride:
            dilation *= block.stride
            _unstride(block)
        else:
            current *= block.stride
        if dilation > 1:
            _widen(block, before, dilation)


def _unstride(block: Block) -> None:
    block.stride = 1
    for name, child in block.named_children():
        if name in BESIDE and name != "downsample":
            continue
        for module in child.modules():
            if isinstance(module, nn.Conv2d):
                module.stride = (1, 1)
            elif isinstance(getattr(module, "stride", None), int):  # a shortcut that pads channels
                setattr(module, "stride", 1)  # noqa: B010  (a module's attributes have no type)
    projection = getattr(block, "downsample", None)
    if isinstance(projection, nn.Sequential) and isinstance(projection[0], nn.AvgPool2d):
        projection[0] = SamePool()


def _widen(block: Block, first: int, later: int) -> None:
    """Dilate the convolutions of the branch: the one that had the stride by `first`, those after it by `later`."""
    convolutions = [
        module
        for name, child in block.named_children()
        if name not in BESIDE
        for module in child.modules()
        if isinstance(module, nn.Conv2d) and module.kernel_size[0] > 1
    ]
    for i, convolution in enumerate(convolutions):
        factor = first if i == 0 else later
        convolution.dilation = (factor, factor)
        convolution.padding = tuple(factor * (size - 1) // 2 for size in convolution.kernel_size)
