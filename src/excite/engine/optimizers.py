"""Optimizers by name: torch's SGD, Adam and AdamW, and those of timm's factory."""

import inspect
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from excite.common.extras import missing
from excite.errors import UsageError, near

if TYPE_CHECKING:
    import torch

# Any: parameter groups, as torch takes them.

USUAL_MOMENTUM = 0.9
OWN = ("sgd", "adam", "adamw")
# Of timm's: those that need a GPU's library, and kron, which draws numbers that no seed of a run governs.
LEFT_OUT = ("fused*", "bnb*", "kron*")


@cache
def timm_optimizers() -> tuple[str, ...]:
    """Return the names of timm's optimizers that a run can use; none where timm is not installed."""
    if find_spec("timm") is None:
        return ()
    from timm.optim import get_optimizer_info, list_optimizers

    names: list[str] = list_optimizers(exclude_filters=list(LEFT_OUT))
    return tuple(name for name in names if name not in OWN and not get_optimizer_info(name).second_order)


def check_optimizer(name: str, momentum: float) -> None:
    """Raise UsageError for a name that is not one, with near names, and for a momentum that it cannot have."""
    if name in OWN:
        return
    known = timm_optimizers()
    if name in known:
        if momentum != USUAL_MOMENTUM and not _takes_momentum(name):
            raise UsageError(f"--momentum {momentum}: the optimizer {name} has none to set; leave {USUAL_MOMENTUM}")
        return
    close = near(name, (*OWN, *known))
    words = ", ".join(map(repr, OWN))
    more = "one of timm's, as lamb, lion or muon" if known else f"one of timm's ({missing('timm')})"
    hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
    raise UsageError(f"--optimizer {name}: expected {words} or {more}{hint}")


def _usual_betas(name: str) -> tuple[float, ...] | None:
    from timm.optim import get_optimizer_class, get_optimizer_info

    if not get_optimizer_info(name).has_betas:
        return None
    return inspect.signature(get_optimizer_class(name, bind_defaults=False)).parameters["betas"].default


def _takes_momentum(name: str) -> bool:
    """True where momentum means what it means for SGD or Adam: adan and novograd average by betas of their own."""
    from timm.optim import get_optimizer_info

    return get_optimizer_info(name).has_momentum or (_usual_betas(name) or (None,))[0] == USUAL_MOMENTUM


def build_optimizer(
    name: str, groups: list[dict[str, Any]], lr: float, momentum: float, nesterov: bool, weight_decay: float
) -> "torch.optim.Optimizer":
    """Return the optimizer of these parameter groups.

    momentum: of SGD and its kin; of Adam and its kin the first beta.
    """
    import torch

    if name == "sgd":
        return torch.optim.SGD(
            groups, lr=lr, momentum=momentum, nesterov=nesterov and momentum > 0, weight_decay=weight_decay
        )
    if name in OWN:
        kind = torch.optim.Adam if name == "adam" else torch.optim.AdamW
        return kind(groups, lr=lr, betas=(momentum, 0.999), weight_decay=weight_decay)
    from timm.optim import create_optimizer_v2

    betas = _usual_betas(name)
    own = {"betas": (momentum, *betas[1:])} if betas and _takes_momentum(name) else {}
    return create_optimizer_v2(groups, opt=name, lr=lr, weight_decay=weight_decay, momentum=momentum, **own)
