"""Losses of classifiers, and weights against classes that have few images."""

from collections.abc import Callable

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F

from excite.train.config import TrainConfig

Loss = Callable[[Tensor, Tensor], Tensor]


class ClassificationLoss(nn.Module):
    """Cross-entropy or focal loss of logits [n c] and labels [n] or shares [n c], with one weight per class or none.

    Focal loss: each class's term is multiplied with (1 - p)^gamma, p its probability (Lin et al., ICCV 2017, eq. 5);
    gamma 0 is the cross-entropy. As there, labels give a mean weighted by their classes, shares a mean over images.
    Where several processes share a step, its images are weighted together, as in one process.
    """

    weight: Tensor | None

    def __init__(self, config: TrainConfig, weight: Tensor | None = None) -> None:
        super().__init__()
        self.gamma = config.focal_gamma if config.loss == "focal" else 0.0
        self.smoothing = config.label_smoothing
        self.register_buffer("weight", weight, persistent=False)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss."""
        labels = targets if targets.dim() == 1 else None
        share = 1.0 if self.weight is None or labels is None else share_of_process(self.weight[labels].sum())
        if self.gamma == 0:
            return share * F.cross_entropy(logits, targets, weight=self.weight, label_smoothing=self.smoothing)
        classes = logits.shape[1]
        shares = targets if labels is None else F.one_hot(labels, classes).to(logits.dtype)
        shares = shares * (1 - self.smoothing) + self.smoothing / classes
        logs = F.log_softmax(logits, 1)
        terms = -shares * logs * (1 - logs.exp()).clamp_min(0) ** self.gamma
        if self.weight is None:
            return terms.sum() / len(logits)
        total = (terms * self.weight).sum()
        return share * total / (len(logits) if labels is None else self.weight[labels].sum())


def share_of_process(weight: Tensor) -> Tensor | float:
    """Return the weight of a process's images by the mean of all processes; 1 in training on one.

    Processes mean their gradients; each one's loss times this has the gradient of the weighted mean over all images.
    """
    if not (distributed.is_available() and distributed.is_initialized() and torch.is_grad_enabled()):
        return 1.0
    whole = weight.detach().clone()
    distributed.all_reduce(whole)
    return weight.detach() * distributed.get_world_size() / whole


def class_weights(labels: Tensor, classes: int) -> Tensor:
    """Return a weight per class, inverse to its images and 1 in the mean over images; 0 for a class of none."""
    counts = torch.bincount(labels[labels >= 0], minlength=classes).float()
    there = counts > 0
    return torch.where(there, counts.sum() / (there.sum() * counts.clamp_min(1)), torch.zeros(()))


def say_balance(labels: Tensor, names: list[str], how: str) -> str:
    """Return in a line how many images the classes have."""
    counts = torch.bincount(labels[labels >= 0], minlength=len(names)).tolist()
    empty = [name for name, count in zip(names, counts, strict=True) if not count]
    least, most = min(c for c in counts if c), max(counts)
    none = f"; without any: {', '.join(empty[:3])}{', ...' if len(empty) > 3 else ''}" if empty else ""
    return f"balance by {how}: classes have {least} to {most} training images{none}"
