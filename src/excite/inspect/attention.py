"""Which modules of a network are attention, and what weights they give its channels."""

import re
from collections.abc import Callable, Collection, Mapping
from types import TracebackType
from typing import Any, Self

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.hooks import RemovableHandle

from excite.attention import ChannelAttention
from excite.methods.identity import Blended
from excite.methods.psa import PyramidAttention
from excite.registry import OWN
from excite.types import Weights

# Any: torch's modes and hooks pass operators, their arguments and results of every kind.

# Ours whose gate returns their weights; hooks on the gate leave them fused.
GATED = (ChannelAttention, PyramidAttention)
OURS = ("excite.attention", "excite.methods")
# Class names in lower case without underscores: timm's, torchvision's, and what people call theirs.
RECALIBRATING = {
    "a2block", "bam", "bamblock", "batnonlocalattn", "blockese", "cbam", "cbamblock", "cbammodule", "cecamodule",
    "channelattention", "channelattn", "coordatt", "coordattn", "ecablock", "ecalayer", "ecamodule",
    "effectivesemodule", "efficientlocalattn", "esemodule", "fcalayer", "gatherexcite", "gct", "globalcontext",
    "lightcbammodule", "lightchannelattn", "multispectralattentionlayer", "nonlocalattn", "nonlocalblock", "sablock",
    "salayer", "scse", "seblock", "selayer", "semodule", "seunit", "shuffleattention", "simplecoordattn",
    "squeezeandexcitation", "squeezeexcitation", "squeezeexcite", "squeezeexciteblock", "squeezeexcitecl", "srmlayer",
    "stripattn",
}  # fmt: skip
# These hold the convolution whose maps they weigh, so no other attention can stand in for them.
CONVOLVING = {
    "bottleneckattn", "haloattn", "lambdalayer", "psamodule", "pyramidattention", "selectivekernel", "skconv",
    "splatconv2d", "splitattn",
}  # fmt: skip

POOLS = (
    nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d,
    nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d,
)  # fmt: skip
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)


def is_attention(module: nn.Module) -> bool:
    """True if the module is channel attention: ours, registered, timm's, torchvision's, or alike by name or structure.

    Parts of ours may be recognised too; `attention_paths` has the whole modules only.
    """
    for cls in type(module).__mro__:
        if cls is nn.Module:
            break
        if _home(cls) or _plain_name(cls) in RECALIBRATING | CONVOLVING:
            return True
    if hasattr(module, OWN):
        return True
    return _squeezes_and_gates(module)


def convolves(attention: nn.Module) -> bool:
    """True if an attention module holds the convolution whose maps it weighs (PSA, split attention, ...)."""
    return any(_plain_name(cls) in CONVOLVING for cls in type(attention).__mro__)


def attention_paths(model: nn.Module, named: Collection[str] = ()) -> list[str]:
    """Return the paths of a network's attention modules; what lies inside one is part of it.

    Attention that was attached to another attention is listed beside it. named: more classes, by name, that are
    attention by the user's word.
    """
    paths: list[str] = []
    carried: set[int] = set()
    for path, module in model.named_modules():
        child = module._modules.get(str(getattr(module, "carried_name", "")))
        carried |= {id(child)} if child is not None else set()
        inside = any(path.startswith(f"{outer}.") for outer in paths)
        if path and (not inside or id(module) in carried) and (type(module).__name__ in named or is_attention(module)):
            paths.append(path)
    return paths


def attention_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the learned parameters of a network's attention modules by name, shared ones once."""
    inside = {id(p) for path in attention_paths(model) for p in model.get_submodule(path).parameters()}
    return {name: p for name, p in model.named_parameters() if id(p) in inside}


def _home(cls: type) -> bool:
    return any(cls.__module__ == home or cls.__module__.startswith(f"{home}.") for home in OURS)


def _plain_name(cls: type) -> str:
    return re.sub(r"[^a-z0-9]", "", cls.__name__.lower())


def _is_ours(module: nn.Module) -> bool:
    return any(_home(cls) for cls in type(module).__mro__)


def _squeezes_and_gates(module: nn.Module) -> bool:
    """True for a global pooling, then layers from c to c channels without space, then a sigmoid, and nothing else.

    The order is that in which the parts were registered.
    """
    leaves = [m for m in module.modules() if next(m.children(), None) is None]
    widths: list[tuple[int, int]] = []
    pooled = gated = False
    for leaf in leaves:
        if isinstance(leaf, POOLS):
            sizes = leaf.output_size if isinstance(leaf.output_size, tuple) else (leaf.output_size,)
            if set(sizes) != {1}:
                return False
            pooled = True
        elif isinstance(leaf, nn.Linear):
            widths.append((leaf.in_features, leaf.out_features))
            gated = False
        elif isinstance(leaf, CONVOLUTIONS):
            across_channels = isinstance(leaf, nn.Conv1d) and leaf.in_channels == leaf.out_channels == 1
            if set(leaf.kernel_size) != {1} and not across_channels:
                return False
            widths.append((leaf.in_channels, leaf.out_channels))
            gated = False
        elif isinstance(leaf, nn.Sigmoid | nn.Hardsigmoid):
            gated = True
        elif not isinstance(leaf, NORMS) and next(leaf.parameters(), None) is not None:
            return False
        if widths and not pooled:
            return False
    return pooled and gated and bool(widths) and widths[0][0] == widths[-1][1]


class WeightRecorder:
    """Context manager that records the weights `[n c]` of every attention in each forward pass.

    `weights` maps the path of an attention to its weights in the last pass: what channel c of sample n is multiplied
    by, averaged over the positions where it differs between them; where branches compete, one weight per branch and
    channel. `skipped` has the paths of those that weigh no channels (they add, or weigh positions). The hooks are
    removed on leaving, also by an exception.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.paths = attention_paths(model)
        self.weights: dict[str, Weights] = {}
        self.skipped: set[str] = set()
        self._gated: dict[str, nn.Module] = {}
        self._outputs: dict[nn.Module, list[torch.Tensor]] = {}
        self._seen: dict[str, Weights | None] = {}
        self._products = _Products()
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> Self:
        for path in self.paths:
            module = self.model.get_submodule(path)
            gated = _with_gate(module)
            if gated is not None:
                self._gated[path] = gated
                for gate in _gates(gated):
                    self._outputs[gate] = []
                    self._handles.append(gate.register_forward_hook(self._keep_output))
            # Hooks on a whole module of ours make its fused form step back, so they are set only where needed.
            if gated is None or any(path.startswith(f"{outer}.") for outer in self.paths):
                self._handles.append(module.register_forward_pre_hook(self._open))
                self._handles.append(module.register_forward_hook(self._close(path, gated is None), prepend=True))
        self._handles.append(self.model.register_forward_pre_hook(self._start))
        self._handles.append(self.model.register_forward_hook(self._finish))
        if len(self._gated) < len(self.paths):
            self._products.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if len(self._gated) < len(self.paths):
            self._products.__exit__(kind, error, trace)
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._outputs.clear()
        self._gated.clear()
        self._products.open.clear()

    def _start(self, model: nn.Module, inputs: object) -> None:
        self._seen.clear()
        self._products.open.clear()
        for outputs in self._outputs.values():
            outputs.clear()

    def _keep_output(self, gate: nn.Module, inputs: object, output: torch.Tensor) -> None:
        self._outputs[gate].append(_copy(output))

    def _open(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        self._products.open.append(_Product(module, args[0] if args else None))

    def _close(self, path: str, record: bool) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            product = self._products.open.pop()
            if not record:
                return
            weigh = getattr(module, "weights", None) if _is_ours(module) else None
            if callable(weigh):
                with torch.no_grad():
                    self._seen[path] = _copy(weigh(*args))
            else:
                self._seen[path] = product.weights if product.weights is not None else product.returned(output)

        return hook

    def _finish(self, model: nn.Module, inputs: object, output: object) -> None:
        self.weights = {}
        for path in self.paths:
            if path in self._gated:
                outputs = [self._outputs[gate] for gate in _gates(self._gated[path])]
                if not all(outputs):
                    continue  # the network did not use it
                weights = _combined(self._gated[path], outputs)
            elif path in self._seen:
                weights = self._seen[path]
            else:
                continue
            if weights is None:
                self.skipped.add(path)
            else:
                self.weights[path] = weights


def channel_weights(model: nn.Module, *inputs: torch.Tensor) -> Mapping[str, Weights]:
    """Return the weights `[n c]` of every attention by path, from one pass of `model` over `inputs`, no gradients."""
    with torch.no_grad(), WeightRecorder(model) as recorder:
        model(*inputs)
    return recorder.weights


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    """A copy in float32: an in-place activation may come next."""
    return tensor.detach().float().clone()


def _has(module: nn.Module, *children: str) -> bool:
    return all(module._modules.get(name) is not None for name in children)


def _with_gate(attention: nn.Module) -> nn.Module | None:
    """The module of ours that is made of a squeeze and a gate: `attention` or the one part of it that is."""
    if not _is_ours(attention) or isinstance(attention, Blended):  # blended in: the gate does not say how far
        return None
    if isinstance(attention, GATED):
        return attention
    parts = [m for m in attention.modules() if isinstance(m, GATED)]
    return parts[0] if len(parts) == 1 else None


def _gates(attention: nn.Module) -> list[nn.Module]:
    return [attention.get_submodule(name) for name in ("gate", "across", "inside") if _has(attention, name)]


def _combined(attention: nn.Module, outputs: list[list[torch.Tensor]]) -> Weights | None:
    """The weights `[n c]` from what the gates of an attention of ours returned, None where they are not per channel."""
    if any(output.dim() != 2 for returned in outputs for output in returned):
        return None
    if _has(attention, "branches"):  # EPSANet, EMANet: the branches compete by a softmax and are joined last one first
        return torch.softmax(torch.stack(outputs[0], dim=1), dim=1).flip(1).flatten(1)
    local = outputs[0][-1]
    join = getattr(attention, "join", None)
    if isinstance(join, nn.Parameter):  # EMCA as released: the weights of its gates are joined
        joined = torch.stack([returned[-1] for returned in outputs], dim=-1) @ join.detach().float()
        return 1 + torch.sigmoid(joined)
    return 1 + local if hasattr(attention, "across") else local


class _Product:
    """What one call of an attention module multiplies its input by, as far as it can be seen."""

    def __init__(self, module: nn.Module, x: object) -> None:
        self.x = x if isinstance(x, torch.Tensor) and x.dim() > 2 else None
        self.maps = [] if self.x is None else [self.x]
        self.parameters = {p.data_ptr() for p in module.parameters()}
        self.weights: Weights | None = None

    def see(self, a: object, b: object, product: object) -> None:
        """Look at one multiplication; its result may be multiplied again."""
        if self.x is None or not isinstance(product, torch.Tensor):
            return
        if not (isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor)):
            return
        for x, factor in ((a, b), (b, a)):
            known = any(x is m for m in self.maps)
            weights = self._per_channel(x, factor, known)
            if weights is not None:
                chained = known and self.weights is not None and self.weights.shape == weights.shape
                self.weights = self.weights * weights if chained and self.weights is not None else weights
                self.maps.append(product)
                return

    def _per_channel(self, x: torch.Tensor, factor: torch.Tensor, known: bool) -> Weights | None:
        assert self.x is not None
        rank = self.x.dim() - 2
        lead = x.shape[:-rank]
        if x.dim() != factor.dim() or factor.shape[:-rank] != lead or lead[0] != self.x.shape[0]:
            return None
        if x.dim() < rank + 2 or factor.data_ptr() in self.parameters:
            return None
        axes = range(x.dim() - rank, x.dim())
        one = all(factor.shape[i] == 1 or factor.stride(i) == 0 or x.shape[i] == 1 for i in axes)
        # Of a map of one position only the shape of stacked branches tells it from its weights.
        map_like = any(x.shape[i] > 1 for i in axes) or x.dim() > rank + 2
        if not known and not (one and map_like):
            return None
        if one:
            for i in axes:
                factor = factor.narrow(i, 0, 1)
        return _copy(factor).mean(tuple(axes)).flatten(1)

    def returned(self, output: object) -> Weights | None:
        """The module's output, where that is one number per channel of a map: others multiply by it."""
        if self.x is None or not isinstance(output, torch.Tensor) or output.shape[:2] != self.x.shape[:2]:
            return None
        numbers = output.shape[0] * output.shape[1]
        return _copy(output).flatten(1) if output.numel() == numbers < self.x.numel() else None


class _Products(TorchDispatchMode):
    """Shows every multiplication to the attention module in which it happens."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[_Product] = []

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # True would load the compiler, which takes seconds

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if self.open and func._overloadpacket in (torch.ops.aten.mul, torch.ops.aten.mul_) and len(args) == 2:
            self.open[-1].see(args[0], args[1], result)
        return result
