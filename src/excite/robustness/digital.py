"""Digital: contrast, elastic deformation, big pixels, JPEG."""

import PIL.Image
import torch
import torch.nn.functional as F
from torchvision.transforms.v2 import functional as tv

from excite.robustness.blur import gaussian

Image = torch.Tensor  # [3 h w] in [0, 1]


def contrast(x: Image, share: float, scale: float, generator: torch.Generator) -> Image:
    """Move every colour towards its mean, keeping `share` of the difference."""
    mean = x.mean((1, 2), keepdim=True)
    return (x - mean) * share + mean


def elastic_transform(x: Image, constants: tuple[float, ...], scale: float, generator: torch.Generator) -> Image:
    """Deform by a random affine map and a smooth random field (Simard et al., ICDAR 2003).

    constants: strength and smoothness of the field and size of the affine part, as shares of the side.
    """
    h, w = x.shape[1:]
    strength, smooth, affine = (c * min(h, w) for c in constants)
    theta = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    # grid_sample's unit is half a side; a third of the side is the distance of the points that the affine map moves.
    theta += (torch.rand(2, 3, generator=generator) * 2 - 1) * affine / min(h, w) * torch.tensor([3.0, 3.0, 1.0])
    field = torch.rand(2, h, w, generator=generator) * 2 - 1
    field = gaussian(field, smooth) * strength * torch.tensor([2 / w, 2 / h])[:, None, None]
    grid = F.affine_grid(theta[None], [1, 3, h, w], align_corners=False) + field.permute(1, 2, 0)
    return F.grid_sample(x[None], grid, mode="bilinear", padding_mode="reflection", align_corners=False)[0]


def pixelate(x: Image, share: float, scale: float, generator: torch.Generator) -> Image:
    """Make the image smaller by averaging, and large again by repeating."""
    h, w = x.shape[1:]
    picture = tv.to_pil_image((x * 255).round().to(torch.uint8))
    # Pillow has the box filter for any ratio; torch's "area" averages whole pixels only.
    small = picture.resize((max(1, int(w * share)), max(1, int(h * share))), PIL.Image.Resampling.BOX)
    return tv.to_dtype(tv.pil_to_tensor(small.resize((w, h), PIL.Image.Resampling.BOX)), torch.float32, scale=True)


def jpeg_compression(x: Image, quality: int, scale: float, generator: torch.Generator) -> Image:
    """Store the image as JPEG of `quality` and read it again."""
    return tv.jpeg((x * 255).round().to(torch.uint8), quality).to(x.dtype) / 255
