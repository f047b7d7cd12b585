"""The shapes everything is made of. Letters: n batch, c channels, k numbers per channel, then space."""

from typing import TypeAlias

import torch

FeatureMap: TypeAlias = torch.Tensor
"""`[n c l]`, `[n c h w]` or `[n c d h w]`: a batch of maps."""

Descriptor: TypeAlias = torch.Tensor
"""`[n c k]`: what a squeeze keeps of each channel."""

Weights: TypeAlias = torch.Tensor
"""`[n c]`: one factor per channel, what a gate returns."""

Strips: TypeAlias = tuple[torch.Tensor, ...]
"""`[n c h]`, `[n c w]`, one per space axis in their order: a number per channel and place along that axis."""
