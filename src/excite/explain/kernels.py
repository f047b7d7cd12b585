"""What an attention learned, where that is few enough numbers to be looked at: ECA kernels, EMCA fusion weights."""

from dataclasses import dataclass

from torch import nn

from excite.explain.gates import find_sites


@dataclass
class Learned:
    """One small learned vector.

    kind: "kernel" (across channels), "fusion" (one weight per scale), "join" (of the local and the global gate).
    """

    site: str
    stage: int
    block: int
    kind: str
    part: str
    values: list[float]

    def to_dict(self) -> dict[str, object]:
        """Return plain values."""
        return dict(vars(self))


def learned_parts(model: nn.Module) -> list[Learned]:
    """Return the ECA kernels (length k) and EMCA fusion weights of `model`, in network order."""
    parts: list[Learned] = []
    for site in find_sites(model):
        for name, module in site.module.named_modules():
            if isinstance(module, nn.Conv1d) and module.in_channels == module.out_channels == 1:
                values = module.weight.detach().flatten().tolist()
                parts.append(Learned(site.name, site.stage, site.block, "kernel", name, values))
            elif type(module).__name__ == "ScaleFusion":
                values = module.weight.detach().flatten().tolist()
                parts.append(Learned(site.name, site.stage, site.block, "fusion", name, values))
        join = getattr(site.module, "join", None)
        if isinstance(join, nn.Parameter):
            parts.append(Learned(site.name, site.stage, site.block, "join", "join", join.detach().tolist()))
    return parts
