"""Channel scales: the mean weight of every channel over images, over each class, and the weights' distribution."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from excite.explain.gates import GateRecorder, Site

# Sigmoids give 0-1, the residual forms (1 + s, 1 + tanh) up to 2; what lies outside is counted in the end bins.
BINS = 100
RANGE = (0.0, 2.0)

Batch = tuple[torch.Tensor, torch.Tensor | None]


@dataclass
class SiteScales:
    """The weights of one attention module over images.

    mean, std: `[c]`; per_class: mean by class `[classes c]` (NaN rows for classes without an image), or None without
    labels; histogram: counts of `BINS` equal bins over `RANGE`; images: how many were seen.
    """

    name: str
    stage: int
    block: int
    images: int
    mean: torch.Tensor
    std: torch.Tensor
    per_class: torch.Tensor | None
    class_counts: torch.Tensor | None
    histogram: torch.Tensor

    def to_dict(self) -> dict[str, object]:
        """Return plain numbers, the curves among them; None for a spread over one image, or over one class."""
        spread = self.per_class_spread()
        return {
            "name": self.name,
            "stage": self.stage,
            "block": self.block,
            "channels": len(self.mean),
            "images": self.images,
            "mean": float(self.mean.mean()),
            "std_over_channels": float(self.mean.std(correction=0)),
            "std_over_images": float(self.std.mean()) if self.images > 1 else None,
            "class_spread": spread,
            "scales": [round(v, 6) for v in self.mean.tolist()],
        }

    def per_class_spread(self) -> float | None:
        """Return how much classes differ: the standard deviation over classes, averaged over the channels.

        None where fewer than two classes were seen.
        """
        if self.per_class is None:
            return None
        seen = self.per_class[~self.per_class.isnan().any(1)]
        return float(seen.std(0, correction=0).mean()) if len(seen) > 1 else None


class _Sums:
    """Running sums of one site."""

    def __init__(self, site: Site, channels: int, classes: int) -> None:
        self.site, self.n = site, 0
        self.total = torch.zeros(channels, dtype=torch.float64)
        self.squares = torch.zeros(channels, dtype=torch.float64)
        self.by_class = torch.zeros(classes, channels, dtype=torch.float64)
        self.counts = torch.zeros(classes, dtype=torch.float64)
        self.histogram = torch.zeros(BINS, dtype=torch.float64)

    def add(self, weights: torch.Tensor, labels: torch.Tensor | None) -> None:
        w = weights.double().cpu()
        self.n += len(w)
        self.total += w.sum(0)
        self.squares += (w * w).sum(0)
        self.histogram += torch.histc(w.clamp(*RANGE), BINS, *RANGE)
        if labels is not None and len(self.counts):
            self.by_class.index_add_(0, labels, w)
            self.counts.index_add_(0, labels, torch.ones(len(labels), dtype=torch.float64))

    def result(self) -> SiteScales:
        mean = self.total / self.n
        variance = (self.squares / self.n - mean * mean).clamp(min=0)
        labelled = bool(self.counts.sum() > 0)
        # 0/0 makes the NaN rows of unseen classes.
        per_class = self.by_class / self.counts[:, None] if labelled else None
        counts = self.counts.long() if labelled else None
        s = self.site
        return SiteScales(
            s.name, s.stage, s.block, self.n, mean, variance.sqrt(), per_class, counts, self.histogram.long()
        )


def collect_scales(model: nn.Module, batches: Iterable[Batch], num_classes: int = 0) -> list[SiteScales]:
    """Return the channel scales of every attention over batches of (images `[n c h w]`, labels `[n]` or None).

    The images are prepared as the network wants them. Empty where the network weighs no channels. The model's mode is
    left as it was found.
    """
    sums: dict[str, _Sums] = {}
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), GateRecorder(model) as recorder:
            by_name = {site.name: site for site in recorder.sites}
            for images, labels in batches:
                model(images)
                for name, weights in recorder.weights.items():
                    if name not in sums:
                        sums[name] = _Sums(by_name[name], weights.shape[1], num_classes)
                    sums[name].add(weights, labels)
    finally:
        model.train(was_training)
    return [s.result() for s in sums.values()]


def last_of_stages(scales: list[SiteScales]) -> dict[int, SiteScales]:
    """Return the last attention of each stage by stage: what the papers' figures show."""
    return {s.stage: s for s in sorted(scales, key=lambda s: (s.stage, s.block))}
