"""Can convolution, scale, sum and rectifier be one oneDNN primitive on a CPU? (batch 1, last 1x1 of ResNet-50's blocks)

torch carries oneDNN with the sum and the rectifier as post-operations of a convolution, but not a per-channel factor
that is only known at run time. What is left is to fold the factor into the weights of the one image. This times that
against the separate passes.

    python benchmarks/one_primitive.py
"""

import argparse
from collections.abc import Callable

import torch
from record import ORDER_STATISTICS, add_out, ratio_cell, show, table, write

from excite.measure.bench import interleave, ratio

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
    """Print and write ratios to the block without attention."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_out(parser, "one_primitive")
    args = parser.parse_args()
    rows = []
    with torch.inference_mode():
        for shape in SHAPES:
            timings = interleave(variants(*shape), rounds=21, min_time=0.05)
            ratios = [ratio_cell(ratio(timings[name], timings["plain"])) for name in ("separate", "folded")]
            rows.append([f"{shape[0]} to {shape[1]}, {shape[2]}", round(1e6 * timings["plain"].median, 2), *ratios])
    form = "{:.2f} [{:.2f}, {:.2f}]"
    columns = {"channels, side": "", "conv+sum+relu": "{:.0f} us", "conv, scale, sum, relu": form}
    tables = {"ratio": table({**columns, "factor in the weights, conv+sum+relu": form}, rows)}
    show(tables)
    write(args.out, tables, interval=ORDER_STATISTICS, notes=["batch 1"])


if __name__ == "__main__":
    main()
