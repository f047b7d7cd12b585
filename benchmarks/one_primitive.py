"""Can convolution, scale, sum and rectifier be one oneDNN primitive on a CPU? (batch 1, last 1x1 of ResNet-50's blocks)

torch carries oneDNN with the sum and the rectifier as post-operations of a convolution, but not a per-channel factor
that is only known at run time. What is left is to fold the factor into the weights of the one image. This times that
against the separate passes.

    python benchmarks/one_primitive.py
"""

from collections.abc import Callable

import torch

from excite.measure.bench import environment, interleave, ratio
from excite.measure.bench.environment import in_words

SHAPES = ((64, 256, 56), (128, 512, 28), (256, 1024, 14), (512, 2048, 7))
CONV = ([0, 0], [1, 1], [1, 1], 1)
POINTWISE = torch.ops.mkldnn._convolution_pointwise


def variants(c_in: int, c_out: int, side: int) -> dict[str, Callable[[], torch.Tensor]]:
    """Return the three ways for one block, on the same numbers."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    h, shortcut = (draw(1, c, side, side).to(memory_format=torch.channels_last) for c in (c_in, c_out))
    weight, bias, factor = 0.05 * draw(c_out, c_in, 1, 1), draw(c_out), draw(c_out).sigmoid()
    packed = torch.ops.mkldnn._reorder_convolution_weight(weight, *CONV, [1, c_in, side, side])

    def plain() -> torch.Tensor:
        return POINTWISE.binary(h, shortcut, packed, bias, *CONV, "add", 1.0, "relu", [], None)

    def separate() -> torch.Tensor:
        y = POINTWISE(h, packed, bias, *CONV, "none", [], "")
        return torch.relu_(y.mul_(factor.view(1, -1, 1, 1)).add_(shortcut))

    def folded() -> torch.Tensor:
        scaled = weight * factor.view(-1, 1, 1, 1)
        return POINTWISE.binary(h, shortcut, scaled, bias * factor, *CONV, "add", 1.0, "relu", [], None)

    torch.testing.assert_close(separate(), folded(), rtol=1e-4, atol=1e-4)
    return {"plain": plain, "separate": separate, "folded": folded}


def main() -> None:
    """Print a Markdown table of ratios to the block without attention."""
    print(f"{in_words(environment())}\n")
    print("| channels, side | conv+sum+relu | conv, scale, sum, relu | factor in the weights, conv+sum+relu |")
    print("|---|---:|---:|---:|")
    with torch.inference_mode():
        for shape in SHAPES:
            timings = interleave(variants(*shape), rounds=21, min_time=0.05)
            ratios = [ratio(timings[name], timings["plain"]) for name in ("separate", "folded")]
            cells = [f"{r.value:.2f} [{r.ci_low:.2f}, {r.ci_high:.2f}]" for r in ratios]
            microseconds = f"{1e6 * timings['plain'].median:.0f} us"
            print(f"| {shape[0]} to {shape[1]}, {shape[2]} | {microseconds} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
