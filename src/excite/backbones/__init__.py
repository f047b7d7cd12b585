"""Backbones: convolutional networks with a place for attention in every block."""
