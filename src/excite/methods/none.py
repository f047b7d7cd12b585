"""No attention: the baseline of every comparison."""

from torch import nn

from excite.methods.base import Method


def none(channels: int) -> nn.Identity:
    """Return the identity over `channels` channels."""
    return nn.Identity()


NONE = Method(build=none, equation="y = x", paper="the plain network", place="nowhere", identity_at_init=True)
