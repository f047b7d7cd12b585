"""Squeezes: `[n c *space] -> descriptor [n c k]`, one per file."""

from excite.squeeze.mean import Mean

__all__ = ["Mean"]
