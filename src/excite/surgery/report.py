"""What `attach` did."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from excite.surgery.site import Site


@dataclass(frozen=True)
class AttachReport:
    """What `attach` did to a network.

    parameters_added, parameters_removed: counts (the latter by replace). macs_before, macs_added: convolutions and
    matrix products for one sample of input_size. kept_tensors, kept_parameters: the host's tensors that are the very
    same after as before. removed: keys of the host's state dict that went with replaced modules. existing: attention
    that the network came with and keeps.
    """

    method: str
    options: Mapping[str, Any]
    sites: tuple[Site, ...]
    input_size: tuple[int, ...]
    parameters_added: int
    parameters_removed: int
    macs_before: int
    macs_added: int
    kept_tensors: int
    kept_parameters: int
    removed: tuple[str, ...]
    existing: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain containers."""
        return asdict(self)

    def __str__(self) -> str:
        size = "x".join(map(str, self.input_size))
        extra = "".join(f" {k}={v}" for k, v in self.options.items())
        lines = [f"{self.method}{extra} attached at {len(self.sites)} sites"]
        width = max(len(s.path) for s in self.sites)
        lines += [f"  {s.path:<{width}}  {s.channels:>5} channels  {s.place} ({s.kind})" for s in self.sites]
        lines.append(f"parameters  +{self.parameters_added:,}" + self._removed())
        share = 100 * self.macs_added / self.macs_before if self.macs_before else 0.0
        lines.append(f"MACs        {self.macs_added:+,} ({share:+.4f} %) at {size}")
        lines.append(f"kept        {self.kept_tensors} tensors, {self.kept_parameters:,} parameters of the host")
        if self.existing:
            lines.append(f"existing    {len(self.existing)} attention modules stay (replace=True swaps them)")
        return "\n".join(lines)

    def _removed(self) -> str:
        if not self.removed:
            return ""
        return f", -{self.parameters_removed:,} with {len(self.removed)} tensors of replaced modules"
