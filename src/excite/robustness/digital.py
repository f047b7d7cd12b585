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

    constants: strength and smoothness of the field, and how far the three points of the affine map move, in pixels.
    """
    h, w = x.shape[1:]
    strength, smooth, affine = (c * scale for c in constants)
    centre, third = torch.tensor([w // 2, h // 2], dtype=torch.float64), min(h, w) // 3
    points = torch.stack([centre + third, centre + torch.tensor([third, -third]), centre - third])  # (x, y)
    moved = points + (torch.rand(3, 2, generator=generator, dtype=torch.float64) * 2 - 1) * affine
    # Where each pixel of the result comes from: the affine map that takes the moved points back.
    back = torch.linalg.solve(torch.cat([moved, torch.ones(3, 1, dtype=torch.float64)], dim=1), points)
    rows, columns = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    homogeneous = torch.stack([columns, rows, torch.ones_like(rows)], dim=-1).double()
    x = sample(x, homogeneous @ back, "reflect")
    field = torch.rand(2, h, w, generator=generator) * 2 - 1
    field = gaussian(field, smooth, truncate=3, border="symmetric") * strength
    return sample(x, homogeneous[..., :2] + field.permute(1, 2, 0), "symmetric")


def sample(x: torch.Tensor, places: torch.Tensor, border: str) -> torch.Tensor:
    """Return `x` `[c h w]` read at `places` `[h w 2]` (x, y in pixels), linear between pixels, mirrored outside."""
    h, w = x.shape[1:]
    size = torch.tensor([w, h], dtype=places.dtype)
    # grid_sample mirrors at the last pixel where corners are aligned, and behind it where they are not.
    aligned = border == "reflect"
    grid = 2 * places / (size - 1) - 1 if aligned else (2 * places + 1) / size - 1
    return F.grid_sample(
        x[None], grid[None].to(x.dtype), mode="bilinear", padding_mode="reflection", align_corners=aligned
    )[0]


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
