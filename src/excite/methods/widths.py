"""How wide the inner layers of a method are."""


def round_channels(value: float, divisor: int) -> int:
    """Round to the nearest multiple of `divisor`, at least one multiple, never more than 10 % down."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def hidden_channels(channels: int, reduction: int, divisor: int = 1, hidden: int | None = None, least: int = 1) -> int:
    """Return the hidden units of a bottleneck: `hidden` where it is given, else channels / reduction, at least `least`.

    divisor: they are rounded to its multiples (timm: 8). The originals divide whole numbers; only this rule rounds.
    """
    if hidden is not None:
        return hidden
    return max(least, channels // reduction if divisor == 1 else round_channels(channels / reduction, divisor))


def largest_divisor(whole: int, most: int) -> int:
    """Return the largest divisor of `whole` that is at most `most`."""
    return max(d for d in range(1, min(whole, most) + 1) if whole % d == 0)
