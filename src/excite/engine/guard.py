"""A watch on steps that are not finite: they end the run or are skipped, and the layer where it began is named."""

from collections.abc import Callable

import lightning as L
import torch
from torch import Tensor, nn

from excite.engine.config import RunConfig
from excite.engine.module import NonFiniteLossError, RunModule
from excite.engine.sharding import whole
from excite.errors import ExciteError

MOST_IN_A_ROW = 25  # steps that may be skipped one after another


class GuardCallback(L.Callback):
    """Measures the norm of the gradient, skips steps that are not finite, and finds the layer, each where asked for.

    A step is skipped by all processes alike: they look at the gradient that they have in common. Weights, optimizer and
    the statistics of norms stay as they were before it.
    """

    def __init__(self, config: RunConfig) -> None:
        self.skip, self.trace, self.log = config.non_finite == "skip", config.trace_non_finite, config.grad_norm
        self.scaled = config.precision == "fp16"  # a gradient that overflows is part of finding its scale
        self.accumulate = config.accumulate
        self.in_a_row = 0
        self.buffers: list[tuple[Tensor, Tensor]] = []
        self.outputs: list[tuple[str, Tensor]] = []

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Hook every layer, where the one at fault is to be named."""
        assert isinstance(pl_module, RunModule)
        if not self.trace:
            return
        pl_module.culprit = self._culprit
        for name, layer in pl_module.network.named_modules():
            if not any(True for _ in layer.children()):
                layer.register_forward_hook(self._hook(f"{name} ({type(layer).__name__})"))

    def _hook(self, name: str) -> Callable[[nn.Module, object, object], None]:
        def note(layer: nn.Module, inputs: object, output: object) -> None:
            if isinstance(output, Tensor) and output.is_floating_point():
                self.outputs.append((name, torch.isfinite(output.detach()).all()))

        return note

    def _culprit(self) -> str:
        return next((f"; first not finite: the output of {name}" for name, finite in self.outputs if not finite), "")

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: object, batch_idx: int
    ) -> None:
        """Keep what a forward pass changes."""
        assert isinstance(pl_module, RunModule)
        self.outputs.clear()
        if self.skip and batch_idx % self.accumulate == 0:
            self.buffers = [(buffer, buffer.clone()) for buffer in pl_module.network.buffers()]

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Look at the gradient of a step, before it is clipped. Raises NonFiniteLossError, ExciteError."""
        assert isinstance(pl_module, RunModule)
        learned = [(name, p) for name, p in pl_module.network.named_parameters() if p.grad is not None]
        norm = whole(torch.nn.utils.get_total_norm([p.grad for _, p in learned if p.grad is not None]))
        pl_module.norms.append(norm)
        if self.log:
            pl_module.log("train/grad_norm", norm)
        if not (self.skip or self.trace) or torch.isfinite(norm):
            self.in_a_row = 0
            return
        if self.scaled and not pl_module.lost:
            return
        if not self.skip:
            name = next(
                name for name, p in reversed(learned) if p.grad is not None and not whole(p.grad).isfinite().all()
            )
            where = f", the gradient of {name}"
            raise NonFiniteLossError(
                pl_module.global_step, pl_module.current_epoch, trainer.fit_loop.batch_idx, where, pl_module.last_good
            )
        pl_module.norms.pop()
        pl_module.skipped += 1
        self.in_a_row += 1
        for _, parameter in learned:
            parameter.grad = None  # optimizers pass over what has none
        with torch.no_grad():
            for buffer, before in self.buffers:
                buffer.copy_(before)
        if self.in_a_row >= MOST_IN_A_ROW:
            raise ExciteError(
                f"{self.in_a_row} steps in a row were not finite, up to step {pl_module.global_step}"
                f"{self._culprit()}; {pl_module.last_good}. Try a lower --lr, --clip 1 or --precision fp32"
            )
