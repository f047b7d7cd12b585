"""Which modules of a network are attention."""

from torch import nn

from excite.backbones.blocks import is_attention_path

# Modules whose classes come from here are attention; the libraries' own are named one by one.
OURS = ("excite.attention", "excite.methods.")
FOREIGN = (
    "timm.layers.squeeze_excite",
    "timm.layers.eca",
    "timm.layers.cbam",
    "timm.layers.gather_excite",
    "timm.layers.global_context",
    "timm.layers.bottleneck_attn",
    "timm.layers.halo_attn",
    "timm.layers.lambda_layer",
    "timm.layers.non_local_attn",
    "timm.layers.split_attn",
    "timm.layers.selective_kernel",
)
FOREIGN_CLASSES = ("SqueezeExcitation", "SqueezeExcite")


def is_attention(path: str, module: nn.Module) -> bool:
    """Tell whether the module at `path` is an attention module: by its place in our networks or by its class."""
    if isinstance(module, nn.Identity):
        return False
    kind = type(module)
    return (
        is_attention_path(path)
        or kind.__module__.startswith(OURS)
        or kind.__module__ in FOREIGN
        or kind.__name__ in FOREIGN_CLASSES
    )


def attention_paths(model: nn.Module) -> list[str]:
    """Return the paths of a network's attention modules; what lies inside one is part of it."""
    found: list[str] = []
    for path, module in model.named_modules():
        if path and is_attention(path, module) and not (found and path.startswith(found[-1] + ".")):
            found.append(path)
    return found
