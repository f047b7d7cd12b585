"""FcaNet: frequency channel attention."""

import re
from collections.abc import Sequence
from typing import Annotated

from excite.attention import ChannelAttention
from excite.common.checks import Integers, Positive, Rule, check_divides, integers, parts, shown
from excite.errors import UsageError
from excite.gates import Bottleneck
from excite.methods.base import REDUCTION, Method
from excite.methods.widths import hidden_channels, largest_divisor
from excite.spectral import Spectral

# (u, v) of a 7x7 transform, u along h, one digit each: best first ("top"), worst first ("bot"), by frequency ("low").
TABLES = {
    "top": "00 01 60 05 02 10 12 40 50 16 30 04 06 03 35 22 46 63 33 53 55 21 61 52 54 32 31 41 23 20 65 13",
    "low": "00 01 10 11 02 20 21 12 22 03 30 40 04 13 31 05 14 23 32 41 50 06 15 24 33 42 51 60 16 25 34 43",
    "bot": "66 14 34 36 26 43 11 24 44 45 56 15 42 62 25 51 64 13 65 20 23 41 31 32 54 52 61 21 55 53 33 63",
}


Selection = Annotated[str, Rule("text such as top16", lambda text: True)]


def frequency_pairs(frequencies: str) -> list[tuple[int, int]]:
    """Return the (u, v) of a selection such as `top16`. Raises UsageError for anything else."""
    kind, count = frequencies[:3], frequencies[3:]
    if kind not in TABLES or not re.fullmatch(r"[0-9]{1,2}", count) or not 1 <= int(count) <= 32:
        raise UsageError(
            f"fca: frequencies={shown(frequencies)}; expected top, low or bot and a number from 1 to 32: top16"
        )
    return [(int(uv[0]), int(uv[1])) for uv in TABLES[kind].split()[: int(count)]]


def transform_size(size: int | str | Sequence[int] | None) -> tuple[int, int] | None:
    """Return the sides of the transform, None for those of the map. Raises UsageError for anything but one or two."""
    if size is None or (isinstance(size, str) and size.lower() in ("none", "any")):
        return None
    entries = parts(size)
    height, width = integers("fca", "size", entries * 2 if len(entries) == 1 else entries, 2)
    return height, width


def fca(
    channels: int,
    *,
    frequencies: Selection | None = None,
    size: Integers | None = None,
    reduction: Positive = 16,
    bias: bool = False,
    divisor: Positive = 1,
    hidden: Positive | None = None,
) -> ChannelAttention:
    """Build FcaNet's attention over `channels` channels.

    frequencies: top, low or bot (best, lowest, worst of the paper) and their number, which must divide the
    channels; None: top16, the paper's, or where 16 does not divide the channels the most that does; size: side
    of the transform, to which other maps are resampled (released networks: 56, 28, 14, 7 per stage), None: the
    map's own; reduction, bias, divisor, hidden: of the bottleneck, as in `se`.
    """
    pairs = frequency_pairs(f"top{largest_divisor(channels, 16)}" if frequencies is None else frequencies)
    check_divides("fca", "the number of frequencies", len(pairs), channels, "the channels")
    gate = Bottleneck(channels, hidden_channels(channels, reduction, divisor, hidden), bias)
    return ChannelAttention(Spectral(pairs, transform_size(size)), gate, channels)


FCA = Method(
    build=fca,
    equation="s_c = sum_hw x_c[h w] dct_{u_c}[h] dct_{v_c}[w],  w = sigmoid(W2 relu(W1 s)),  y = w * x",
    paper="Qin, Zhang, Wu, Li: FcaNet: Frequency Channel Attention Networks, ICCV 2021, arXiv:2012.11879, section 3",
    dims=(2,),
    needs=(REDUCTION,),
    equals="cfzd/FcaNet",
    differs="released networks resample maps to 56, 28, 14, 7 (size); by default the transform has the map's "
    "size, the same on multiples of 7",
)
