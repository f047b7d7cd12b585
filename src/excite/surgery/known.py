"""Attention that a network may have come with, recognised by its class."""

import re

from torch import nn

# Class names in lower case without underscores: timm's, torchvision's, and what people call theirs.
NAMES = {
    "a2block", "bam", "bamblock", "batnonlocalattn", "blockese", "cbam", "cbamblock", "cbammodule", "cecamodule",
    "channelattention", "channelattn", "coordatt", "coordattn", "ecablock", "ecalayer", "ecamodule",
    "effectivesemodule", "efficientlocalattn", "esemodule", "fcalayer", "gatherexcite", "gct", "globalcontext",
    "lightcbammodule", "lightchannelattn", "multispectralattentionlayer", "nonlocalattn", "nonlocalblock", "sablock",
    "salayer", "scse", "seblock", "selayer", "semodule", "seunit", "shuffleattention", "simplecoordattn",
    "squeezeandexcitation", "squeezeexcitation", "squeezeexcite", "squeezeexciteblock", "squeezeexcitecl", "srmlayer",
    "stripattn",
}  # fmt: skip


def is_attention(module: nn.Module) -> bool:
    """Tell whether a module is channel attention: one of ours, or of a class that is known by name.

    That it maps a feature map to one of the same shape is for the caller to check.
    """
    for cls in type(module).__mro__:
        if cls is nn.Module:
            return False
        home = cls.__module__
        if home == "excite.attention" or home.startswith("excite.methods"):
            return True
        if re.sub(r"[^a-z0-9]", "", cls.__name__.lower()) in NAMES:
            return True
    return False
