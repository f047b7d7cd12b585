"""The two residual blocks, with attention at the end of the residual branch."""

import torch
from torch import nn

from excite.inspect.attention import attention_paths, convolves
from excite.ops import norm_act, residual_tail
from excite.types import FeatureMap


def conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """Return a 3x3 convolution without bias that keeps the size (up to the stride)."""
    return nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)


def conv1x1(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """Return a 1x1 convolution without bias."""
    return nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)


class BasicBlock(nn.Module):
    """conv3x3 - bn - relu - conv3x3 - tail, where tail is `relu(attention(bn(z)) + shortcut)`."""

    expansion = 1

    def __init__(
        self,
        in_channels: int,
        planes: int,
        stride: int,
        downsample: nn.Module | None,
        attention: nn.Module | None,
        spatial: nn.Module | None = None,
    ) -> None:
        """Build the block; `spatial` replaces the first 3x3 convolution where given."""
        super().__init__()
        self.conv1 = spatial if spatial is not None else conv3x3(in_channels, planes, stride)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = conv3x3(planes, planes)
        self.bn2 = nn.BatchNorm2d(planes)
        self.attention = attention
        self.downsample = downsample

    @property
    def last_norm(self) -> nn.Module:
        """The norm that attention follows."""
        return self.bn2

    def branch(self, x: FeatureMap) -> FeatureMap:
        """Return the residual branch up to its last convolution."""
        return self.conv2(norm_act(self.conv1(x), self.bn1, self.relu))

    def shortcut(self, x: FeatureMap) -> FeatureMap:
        """Return what is added to the branch."""
        return x if self.downsample is None else self.downsample(x)

    def forward(self, x: FeatureMap) -> FeatureMap:
        """Return the block's output, `[n planes h/stride w/stride]`."""
        return residual_tail(self.branch(x), self.last_norm, self.attention, self.shortcut(x), self.relu)


class Bottleneck(nn.Module):
    """conv1x1 - conv3x3 (with the stride) - conv1x1 - tail, where tail is `relu(attention(bn(z)) + shortcut)`."""

    expansion = 4

    def __init__(
        self,
        in_channels: int,
        planes: int,
        stride: int,
        downsample: nn.Module | None,
        attention: nn.Module | None,
        spatial: nn.Module | None = None,
    ) -> None:
        """Build the block; `spatial` replaces the 3x3 convolution where given."""
        super().__init__()
        self.conv1 = conv1x1(in_channels, planes)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = spatial if spatial is not None else conv3x3(planes, planes, stride)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = conv1x1(planes, planes * self.expansion)
        self.bn3 = nn.BatchNorm2d(planes * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.attention = attention
        self.downsample = downsample

    @property
    def last_norm(self) -> nn.Module:
        """The norm that attention follows."""
        return self.bn3

    def branch(self, x: FeatureMap) -> FeatureMap:
        """Return the residual branch up to its last convolution."""
        x = norm_act(self.conv1(x), self.bn1, self.relu)
        return self.conv3(norm_act(self.conv2(x), self.bn2, self.relu))

    def shortcut(self, x: FeatureMap) -> FeatureMap:
        """Return what is added to the branch."""
        return x if self.downsample is None else self.downsample(x)

    def forward(self, x: FeatureMap) -> FeatureMap:
        """Return the block's output, `[n 4*planes h/stride w/stride]`."""
        return residual_tail(self.branch(x), self.last_norm, self.attention, self.shortcut(x), self.relu)


def initialise(network: nn.Module) -> None:
    """Initialise as the papers do: He normal over the outputs for 2-D convolutions, 1 and 0 for batch norms.

    Attention keeps what its own constructor chose (some start as the identity on purpose), unless it stands for a
    convolution.
    """
    attention = [network.get_submodule(path) for path in attention_paths(network)]
    skipped = {id(part) for module in attention if not convolves(module) for part in module.modules()}
    for module in network.modules():
        if id(module) in skipped:
            continue
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d) and module.affine:
            torch.nn.init.ones_(module.weight)
            torch.nn.init.zeros_(module.bias)
