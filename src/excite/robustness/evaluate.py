"""Run networks over changed images: each image is changed once and shown to all networks that want its size."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import torch

from excite.data.preprocess import Preprocess, Readable
from excite.errors import ExciteError
from excite.explain.networks import Network

Labelled = tuple[torch.Tensor, torch.Tensor]  # uint8 [n c h w], labels [n]
Change = Callable[[torch.Tensor, int], torch.Tensor]


def geometry(network: Network) -> Preprocess:
    """Return how a network's images are read and cut, without its statistics: those that agree share their images."""
    own = network.preprocess
    return Preprocess(own.size, own.resize, channels=own.planes, window=own.window)


def load_pixels(images: Iterable[tuple[Readable, int]], shape: Preprocess) -> Labelled:
    """Return all images at one size, as 8-bit values. Raises ExciteError where there are none."""
    pixels, labels = [], []
    for image, label in images:
        pixels.append(shape.image(image))
        labels.append(label)
    if not pixels:
        raise ExciteError("the data has no images")
    return torch.stack(pixels), torch.tensor(labels)


def changed_batches(data: Labelled, change: Change | None, size: int) -> Iterator[Labelled]:
    """Yield batches of (pixels in [0, 1], labels) with `change(image, its index)` applied to every image."""
    pixels, labels = data
    for start in range(0, len(pixels), size):
        batch = pixels[start : start + size].float() / 255
        if change is not None:
            batch = torch.stack([change(x, start + i) for i, x in enumerate(batch)])
        yield batch, labels[start : start + size]


@torch.no_grad()
def error_rates(
    networks: Sequence[Network],
    data: Mapping[Preprocess, Labelled],
    change: Change | None = None,
    *,
    batch_size: int = 128,
    device: torch.device | str = "cpu",
) -> dict[str, float]:
    """Return the top-1 error (share) of every network by label, on images changed by `change`."""
    wrong = dict.fromkeys((n.label for n in networks), 0)
    total = {}
    for shape, labelled in data.items():
        group = [n for n in networks if geometry(n) == shape]
        for pixels, labels in changed_batches(labelled, change, batch_size):
            for network in group:
                x = network.preprocess.normalise(pixels.to(device))
                wrong[network.label] += int((network.model(x).argmax(1).cpu() != labels).sum())
        total.update({n.label: len(labelled[1]) for n in group})
    return {label: count / total[label] for label, count in wrong.items()}
