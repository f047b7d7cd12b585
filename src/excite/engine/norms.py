"""Batch norms whose statistics are those of all processes of a run."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from excite.errors import UsageError
from excite.surgery.carrier import convert_norms

PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class SyncNorm(_BatchNorm):
    """torch's synchronised batch norm, on a CPU too, where torch has none: there it sums by differentiable collectives.

    A norm takes this class within `synchronised`, with its own tensors. timm's dropout and activation follow. It is no
    subclass of torch's: that one is refused on a CPU by DistributedDataParallel.
    """

    process_group = None
    _check_input_dim = nn.SyncBatchNorm._check_input_dim
    _check_non_zero_input_channels = nn.SyncBatchNorm._check_non_zero_input_channels

    def forward(self, input: Tensor) -> Tensor:
        """Normalise a map [n c ...]."""
        on_cpu = input.device.type == "cpu"
        output = self._on_cpu(input) if on_cpu else nn.SyncBatchNorm.forward(self, input)  # type: ignore[arg-type]  # as above
        for name in ("drop", "act"):
            if name in self._modules:
                output = self.get_submodule(name)(output)
        return output

    def _on_cpu(self, x: Tensor) -> Tensor:
        together = torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1
        if not self.training or not together:
            momentum = self._count() if self.training else 0.0
            fresh = self.training or self.running_mean is None
            return F.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, fresh, momentum, self.eps
            )
        values = x.float()
        dims = [d for d in range(x.dim()) if d != 1]
        shape = [-1 if d == 1 else 1 for d in range(x.dim())]
        own = values.new_tensor([x.numel() // x.shape[1]])
        sums = all_reduce(torch.cat([values.sum(dims), own]))
        count, mean = sums[-1], sums[:-1] / sums[-1]
        centred = values - mean.view(shape)
        variance = all_reduce(centred.square().sum(dims)) / count
        if self.running_mean is not None and self.running_var is not None:
            momentum = self._count()
            with torch.no_grad():
                self.running_mean.lerp_(mean, momentum)
                self.running_var.lerp_(variance * count / (count - 1), momentum)
        output = centred * (variance + self.eps).rsqrt().view(shape)
        if self.weight is not None:
            output = output * self.weight.view(shape) + self.bias.view(shape)
        return output.to(x.dtype)

    def _count(self) -> float:
        """Count a batch; return how much it weighs in the running statistics."""
        if self.num_batches_tracked is None:
            return self.momentum or 0.0
        self.num_batches_tracked.add_(1)
        return 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum


@contextlib.contextmanager
def synchronised(network: nn.Module, wanted: bool) -> Iterator[None]:
    """Let the batch norms of a network share their statistics over all processes within the block, if wanted.

    Fused kernels give way to the plain modules there. Raises UsageError for a norm of another kind.
    """
    before: dict[nn.Module, type] = {}

    def convert(model: nn.Module) -> nn.Module:
        for name, norm in model.named_modules():
            if isinstance(norm, _BatchNorm) and not isinstance(norm, nn.SyncBatchNorm | SyncNorm):
                if type(norm) not in PLAIN and type(norm).__name__ != "BatchNormAct2d":
                    raise UsageError(f"--sync-bn: {name} is {type(norm).__name__}, no batch norm that it knows")
                before[norm] = type(norm)
                norm.__class__ = SyncNorm
        return model

    def revert(model: nn.Module) -> nn.Module:
        for norm, kind in before.items():
            norm.__class__ = kind
        return model

    if not wanted:
        yield
        return
    convert_norms(network, convert)
    try:
        yield
    finally:
        convert_norms(network, revert)
