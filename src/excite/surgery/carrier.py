"""How a module carries attention: its class is exchanged for a subclass, its own tensors stay under their own names.

`layer1.0.bn3` stays a batch norm with the key `layer1.0.bn3.weight`; the attention is its child and adds keys such as
`layer1.0.bn3.attention.gate.conv.weight`. No hook runs in a forward pass, so copies, pickles, compiled and exported
graphs and networks cut up by others (detection bodies) keep the attention.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import cache, wraps
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from excite.errors import ExciteError, UsageError
from excite.ops import attend_norm, attend_own

# The carriers are mixed in before a host's class that is known at run time only: `type: ignore` and `Any` in this file
# stand where a method or attribute of that class is used.
QUANTISED = ("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized", "torch.ao.nn.sparse.quantized", "torchao.")


class Carrier:
    """What all carriers have in common: a child module with the attention, and how they travel and load."""

    carried_base: type[nn.Module]
    carried_side: str
    carried_name: str
    makes_new: bool  # whether every call of the host returns a new map, which nobody else holds
    host_forward: Callable[..., Any] | None = None
    in_host: bool = False  # while a forward of the host's own runs
    __dict__: dict[str, Any]

    @property
    def carried(self) -> nn.Module:
        """The attention."""
        return self._modules[self.carried_name]  # type: ignore[attr-defined]

    def __dir__(self) -> list[str]:
        """List the attributes without the one that refuses (see `_refuse_conversion`): jit.trace reads all of them."""
        return [name for name in super().__dir__() if name != "qconfig"]

    def __setattr__(self, name: str, value: Any) -> None:
        """Take another forward of the host's (tools that fuse norms set one) as the host's, not as the carrier's."""
        if name == "forward":
            self.__dict__["host_forward"] = value
        else:
            super().__setattr__(name, value)

    def _run(self, *args: Any, **kwargs: Any) -> Any:
        """Run the host."""
        if self.host_forward is None:
            return self._host(*args, **kwargs)
        if torch.compiler.is_compiling():
            return self.host_forward(*args, **kwargs)
        # What was set may wrap the forward that it found, which was the carrier's: that one runs the bare host then.
        self.__dict__["in_host"] = True
        try:
            return self.host_forward(*args, **kwargs)
        finally:
            self.__dict__.pop("in_host", None)

    def _host(self, *args: Any, **kwargs: Any) -> Any:
        """Run the host as its class says."""
        return super().forward(*args, **kwargs)  # type: ignore[misc]

    def __prepare_scriptable__(self) -> nn.Module:
        """Refuse torch.jit.script, which cannot follow a call of the parent class."""
        raise UsageError(
            "TorchScript cannot script a network that carries attention: use torch.export, torch.jit.trace or ONNX, or "
            "script it before attaching, without attention"
        )

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        """Copy and pickle by the host's own class: the subclass is made again on arrival."""
        return _rebuild, (self.carried_base, self.carried_side, self.carried_name), self.__getstate__()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """A checkpoint of the bare host has no attention here: keep what is there and ask for nothing."""
        mine = f"{prefix}{self.carried_name}."
        if not any(key.startswith(mine) for key in state_dict):
            state_dict.update(_tensors(self.carried, mine))
        super()._load_from_state_dict(state_dict, prefix, *args)  # type: ignore[misc]


def _of_host_inside(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Make a carrier's forward the bare host's where a wrapper that took hold of it calls it, also after a detach."""

    @wraps(forward)
    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(self, Carrier):
            return type(self).forward(self, *args, **kwargs)
        return self._host(*args, **kwargs) if self.in_host else forward(self, *args, **kwargs)

    return run


class After(Carrier):
    """A module whose output is recalibrated."""

    @_of_host_inside
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the host module's output, through the attention."""
        attention = self._modules[self.carried_name]  # type: ignore[attr-defined]
        y = self._run(*args, **kwargs)
        return attend_own(y, attention) if self.makes_new and self._is_plain() else attention(y)

    def _is_plain(self) -> bool:
        """Tell whether the host runs by its class alone, without a forward of its own or a class put on top."""
        return self.host_forward is None and "carried_base" in vars(type(self))


class AfterNorm(After):
    """A batch norm whose output is recalibrated: norm, squeeze and scaling in one where that is exact and pays."""

    @_of_host_inside
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the normalised map, through the attention."""
        if len(args) == 1 and not kwargs and type(args[0]) is torch.Tensor and self._is_plain():
            attention = self._modules[self.carried_name]  # type: ignore[attr-defined]
            out = attend_norm(args[0], self, self.carried_base, attention)  # type: ignore[arg-type]
            if out is not None:
                return out
        return super().forward(*args, **kwargs)


class Before(Carrier):
    """A module whose input is recalibrated."""

    @_of_host_inside
    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """Return what the host module makes of its input, recalibrated."""
        return self._run(self._modules[self.carried_name](x), *args, **kwargs)  # type: ignore[attr-defined]


class PortAfter(Carrier):
    """A module whose output is recalibrated in the context of earlier descriptors; see `network`."""

    @_of_host_inside
    def forward(self, *args: Any, context: Any = None, **kwargs: Any) -> Any:
        """Return the recalibrated output and its descriptor."""
        y = self._run(*args, **kwargs)
        return self._modules[self.carried_name](y, _given(context))  # type: ignore[attr-defined]


class PortBefore(Carrier):
    """A module whose input is recalibrated in the context of earlier descriptors."""

    @_of_host_inside
    def forward(self, x: torch.Tensor, *args: Any, context: Any = None, **kwargs: Any) -> Any:
        """Return what the host module makes of the recalibrated input, and the input's descriptor."""
        x, descriptor = self._modules[self.carried_name](x, _given(context))  # type: ignore[attr-defined]
        return self._run(x, *args, **kwargs), descriptor


def _given(context: Any) -> Any:
    if context is None:
        raise ExciteError(
            "EMCA reads the descriptors of earlier blocks, so the network must be called as a whole: model(x), "
            "not a part of it such as its forward_features or a body cut out of it"
        )
    return context


class Instead:
    """Attention in the place of a module of the host; the module is kept aside, outside of the state dict."""

    carried_base: type[nn.Module]
    replaced: tuple[nn.Module]
    __dict__: dict[str, Any]

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        """Copy and pickle by the attention's own class."""
        return _rebuild, (self.carried_base, "instead", ""), self.__getstate__()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """A checkpoint of the bare host has the replaced module's tensors here: they go to it, aside."""
        given = {k: v for k, v in state_dict.items() if k.startswith(prefix)}
        own = _tensors(self, prefix)  # type: ignore[arg-type]
        old = _tensors(self.replaced[0], prefix)
        if given.keys() == old.keys() and given.keys() != own.keys():
            self.replaced[0].load_state_dict({k[len(prefix) :]: v for k, v in given.items()})
            for key in given:
                del state_dict[key]
            state_dict.update(own)
        super()._load_from_state_dict(state_dict, prefix, *args)  # type: ignore[misc]


KINDS: Mapping[str, type] = {
    "after": After,
    "before": Before,
    "instead": Instead,
    "port-after": PortAfter,
    "port-before": PortBefore,
}


NEW_MAPS = {
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.GroupNorm, nn.LayerNorm),
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
}


@cache
def carrier_class(base: Any, side: str, name: str) -> type[nn.Module]:
    """Return the subclass of `base` that carries attention as its child `name` on one side.

    It keeps the name and the home of `base`: tools that go by them (FX takes `torch.nn` modules as leaves) go on.
    """
    members = {
        "carried_base": base,
        "carried_side": side,
        "carried_name": name,
        "__module__": base.__module__,
        "__qualname__": base.__qualname__,
        "__doc__": base.__doc__,
    }
    if side != "instead" and issubclass(base, _BatchNorm):
        members["qconfig"] = property(_refuse_conversion, lambda self, value: self.__dict__.update(set_qconfig=value))
    if side != "instead" and hasattr(base, "fuse"):
        members["fuse"] = _fuse
    if side != "instead" and issubclass(base, nn.Sequential):
        members["__iter__"] = _members
        members["__len__"] = lambda self: len(self._modules) - (name in self._modules)
    members["makes_new"] = base in NEW_MAPS
    kind = AfterNorm if side == "after" and issubclass(base, _BatchNorm) else KINDS[side]
    made: type[nn.Module] = type(base.__name__, (kind, base), members)
    return made


def _members(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the children of a sequence that carries attention, without it."""
    return iter([child for name, child in module._modules.items() if name != module.carried_name])  # type: ignore[misc]


def _fuse(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """Let the host fold its parts into one layer; what it returns carries the attention on."""
    attention: Any = module.carried
    side = str(attention.__dict__["carried_at"])
    drop(module)
    fused: Any = module.fuse(*args, **kwargs)  # type: ignore[operator]
    carry(fused if isinstance(fused, nn.Module) else module, attention, side)
    return fused


def _refuse_conversion(norm: nn.Module) -> Any:  # Any: what tools of quantisation keep here
    """Return the norm's `qconfig` if one was set; else raise UsageError.

    Conversions of norms make new modules, hand the children over, and would so keep attention that never runs. All of
    them (torch's, timm's, Lightning's) copy this attribute, and nothing else reads it where nothing is quantised.
    """
    if "set_qconfig" in norm.__dict__:
        return norm.__dict__["set_qconfig"]
    raise UsageError(
        "this batch norm carries attention, which a conversion of norms would drop: convert with "
        "excite.convert_norms(model) (and leave Lightning's sync_batchnorm off); for quantisation-aware training set "
        "`qconfig` on every module"
    )


def _rebuild(base: Any, side: str, name: str) -> nn.Module:
    made = carrier_class(base, side, name)
    return made.__new__(made)


def _tensors(module: nn.Module, prefix: str) -> dict[str, torch.Tensor]:
    """Return a module's state under full keys, the very parameters, so that `assign=True` keeps them."""
    return module.state_dict(prefix=prefix, keep_vars=True)


def free_name(module: nn.Module) -> str:
    """Return the child name for the attention: "attention", or another where the host uses that."""
    return "attention" if not hasattr(module, "attention") else "attention_after"


def carry(module: nn.Module, attention: nn.Module, side: str) -> None:
    """Make `module` carry `attention` after or before itself; a parametrisation of its weights stays on top."""
    name = free_name(module)
    attention.__dict__["carried_at"] = side
    top: Any = type(module)
    base = top.__bases__[0] if parametrize.is_parametrized(module) else top
    carrier = carrier_class(base, side, name)
    forward = module.__dict__.pop("forward", None)
    module.__class__ = carrier if base is top else _again(top, carrier)
    module.register_module(name, attention)
    if forward is not None:
        module.__dict__["host_forward"] = forward


def drop(module: nn.Module) -> None:
    """Undo `carry`."""
    name = str(module.carried_name)
    module.__class__ = without(type(module))
    attention: Any = module._modules.pop(name)
    attention.__dict__.pop("carried_at", None)
    forward = module.__dict__.pop("host_forward", None)
    if forward is not None:
        module.__dict__["forward"] = forward


def without(kind: Any, mark: str = "carried_base") -> Any:  # Any: a class of modules, as `__class__` takes it
    """Return a class without the layer that names its base as `mark`; classes put on top since (parametrised) stay."""
    above = []
    while mark not in vars(kind):
        above.append(kind)
        kind = kind.__bases__[0]
    kind = vars(kind)[mark]
    for top in reversed(above):
        kind = _again(top, kind)
    return kind


def _again(top: Any, base: type) -> Any:  # Any: as above
    """Return a class like `top` on another base."""
    members = {k: v for k, v in vars(top).items() if k not in ("__dict__", "__weakref__")}
    return type(top.__name__, (base,), members)


def convert_norms(
    model: nn.Module, convert: Callable[[nn.Module], nn.Module] = nn.SyncBatchNorm.convert_sync_batchnorm
) -> nn.Module:
    """Convert the norms of a network to which attention is attached; the attention goes on running.

    convert: from network to network; hands the children of a norm to its successor. torch's and timm's
    `convert_sync_batchnorm`, `apply` and `revert` of Lightning's `TorchSyncBatchNorm` do. Returns what it returns.
    Raises ExciteError where it drops attention.
    """
    before = [(m, m.__class__) for _, m in carriers(model) if isinstance(m, _BatchNorm)]
    for norm, _ in before:
        norm.__class__ = without(type(norm))
    try:
        converted = convert(model)
    except BaseException:
        for norm, kind in before:
            norm.__class__ = kind
        _adopt(model)  # those that were converted already
        raise
    _adopt(converted)
    lost = len(before) - sum(isinstance(m, _BatchNorm) for _, m in carriers(converted))
    if lost:
        raise ExciteError(
            f"the conversion dropped the attention of {lost} of {len(before)} norms: convert, then attach"
        )
    return converted


def _adopt(model: nn.Module) -> None:
    """Let every batch norm that has carried attention as its child carry it."""
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            side = None if child is None else child.__dict__.get("carried_at")
            if side is not None and isinstance(parent, _BatchNorm) and not isinstance(parent, Carrier):
                base: Any = type(parent)  # Any: mypy takes no type for a key of the cache
                parent.__class__ = carrier_class(base, side, name)  # type: ignore[assignment] # a subclass


def stand_in(attention: nn.Module, original: nn.Module) -> nn.Module:
    """Make `attention` remember the module that it replaces; returns it."""
    base: Any = type(attention)
    attention.__class__ = carrier_class(base, "instead", "")
    attention.__dict__["replaced"] = (original,)
    return attention


def carriers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield path and module of everything that `attach` put into a network."""
    for path, module in model.named_modules():
        if isinstance(module, Carrier | Instead):
            yield path, module  # type: ignore[misc]  # a mixin is no module to the checker


def refuse(model: nn.Module) -> None:
    """Raise UsageError for what no attention can be attached to: no module, wrapped, compiled or scripted."""
    if not isinstance(model, nn.Module):
        raise UsageError(f"expected a torch.nn.Module, got {type(model).__name__}")
    name = type(model).__name__
    if isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel) or name == "FullyShardedDataParallel":
        raise UsageError(f"the model is wrapped in {name}: attach to `model.module` before wrapping it")
    if hasattr(model, "_orig_mod"):
        raise UsageError("the model is compiled (torch.compile): attach to `model._orig_mod`, then compile")
    for path, module in model.named_modules():
        if getattr(module, "_compiled_call_impl", None) is not None:
            raise UsageError(f"module {path or '(the model)'!r} is compiled in place: attach first, then compile")
        if isinstance(module, torch.jit.ScriptModule):
            raise UsageError(f"module {path or '(the model)'!r} is TorchScript: attach before scripting")
        if any(cls.__module__.startswith(QUANTISED) for cls in type(module).__mro__):
            raise UsageError(f"module {path!r} is quantised ({type(module).__name__}): attach to the network of floats")
    lazy = next((key for key, value in model.named_parameters() if is_lazy(value)), None)
    if lazy is not None:
        raise UsageError(f"parameter {lazy!r} has no shape yet (lazy layers): run the network once, then attach")
