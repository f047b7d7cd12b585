"""Checkpoints: ours, the papers' published layouts, timm's and torchvision's."""
