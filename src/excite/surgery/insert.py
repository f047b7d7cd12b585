"""attach and detach, and the report of what was done."""

import dataclasses
import gc
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from excite.attention import ChannelAttention
from excite.backbones.placement import at_stage
from excite.common.tables import counted
from excite.errors import ExciteError, UsageError
from excite.methods.base import Method
from excite.registry import create_attention, get_method, method_options, resolve_method
from excite.surgery.carrier import Instead, carriers, carry, drop, refuse, stand_in, without
from excite.surgery.emca import GraphHost, connect
from excite.surgery.find import Site, Wanted, behind_instance_norm, find, select, some
from excite.surgery.graph import Graph, follow

# Any: options are the method's own, which `create_attention` checks; a host takes inputs of its own kinds.

Replace = bool | str | type[nn.Module] | Sequence[str | type[nn.Module]]
DEFAULT_SITES = {"residual": "residual", "between-stages": "between-stages", "conv": "residual"}


@dataclass(frozen=True)
class AttachReport:
    """What `attach` did to a network.

    parameters_added, parameters_removed: counts (the latter by replace). macs_before, macs_added: convolutions and
    matrix products for one sample of input_size. kept_tensors, kept_parameters: the host's tensors that are the very
    same after as before. removed: keys of the host's state dict that went with replaced modules. existing: attention
    that the network came with and keeps. notes: what else to know, a line each.
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
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain containers."""
        return asdict(self)

    def __str__(self) -> str:
        size = "x".join(map(str, self.input_size))
        extra = "".join(f" {k}={v}" for k, v in self.options.items())
        lines = [f"{self.method}{extra} attached at {counted(len(self.sites), 'site')}"]
        width = max(len(s.path) for s in self.sites)
        lines += [f"  {s.path:<{width}}  {s.channels:>5} channels  {s.place} ({s.kind})" for s in self.sites]
        lines.append(f"parameters  +{self.parameters_added:,}" + self._removed())
        share = 100 * self.macs_added / self.macs_before if self.macs_before else 0.0
        lines.append(f"MACs        {self.macs_added:+,} ({share:+.4f} %) at {size}")
        lines.append(f"kept        {self.kept_tensors} tensors, {self.kept_parameters:,} parameters of the host")
        if self.existing:
            swaps = "replace=True swaps those that hold no convolution"
            lines.append(f"existing    {len(self.existing)} attention modules stay ({swaps})")
        lines += [f"note        {note}" for note in self.notes]
        return "\n".join(lines)

    def _removed(self) -> str:
        if not self.removed:
            return ""
        return f", -{self.parameters_removed:,} with {len(self.removed)} tensors of replaced modules"


def attach(
    model: nn.Module,
    method: str,
    *,
    sites: Wanted | None = None,
    replace: Replace = False,
    input_size: Sequence[int] | None = None,
    example: object = None,
    **options: Any,
) -> AttachReport:
    """Put attention `method` into `model`, in place; every tensor that the model had stays as it is.

    sites: a preset ("residual", "stage-ends", "between-stages", "all-blocks", "first-in-stage", "last-in-stage",
    "yolo-backbone", "yolo-neck"), a pattern of module paths ("layer[34].*.bn3") or a list of paths; None is the
    method's own place. replace: swap the attention that the model came with (or, for methods that take a convolution's
    place, that convolution); a class, its name or several of them say what else is attention. input_size: channels,
    then space, of a sample, where the usual sizes do not pass. example: what the model takes instead: a tensor, a tuple
    of arguments or a dict of keyword arguments. options: the method's; a list has one entry per stage. Channels are
    inferred. Raises UsageError (no sites, attached already, wrapped or compiled model, unknown method or option); then
    the model is as it was.
    """
    refuse(model)
    method = resolve_method(method)
    card = get_method(method)
    there = next(carriers(model), None)
    if there is not None:
        raise UsageError(f"attention is attached already (at {there[0]!r}); call excite.detach(model) first")
    named = _class_names(replace)
    graph = follow(model, input_size, example, named)
    _check_dims(method, card, graph)
    before = dict(model.state_dict(keep_vars=True))
    if card.role == "network":
        if replace:
            raise UsageError(f"{method} joins several blocks and cannot stand in for one module: leave replace out")
        chosen = connect(graph, method, sites, options)
    else:
        chosen = _choose(graph, method, card, sites, bool(replace))
        listed = find(graph)
        built = [_build(graph, listed, method, card, site, options) for site in chosen]
        for site, attention in zip(chosen, built, strict=True):
            _insert(graph, site, attention)
    try:
        after = follow(model, graph.input_size if example is None else None, example)
        _verify(chosen, after.calls)
    except ExciteError:
        detach(model)
        raise
    report = report_of(graph, method, options, chosen, before, after.trace.macs)
    settings = _settings(list(named) or replace, graph.input_size if example is not None else input_size, options)
    _note(model, report, {"attach": method, "attach_sites": sites, "attach_options": settings})
    return report


def _class_names(replace: Replace) -> tuple[str, ...]:
    """Return the names of the classes that `replace` says are attention; () where it only says yes or no."""
    if isinstance(replace, bool):
        return ()
    classes = [replace] if isinstance(replace, str | type) else list(replace)
    if not classes or not all(isinstance(c, str | type) for c in classes):
        raise UsageError(f"replace takes True, a class of modules, its name, or a list of these, got {replace!r}")
    return tuple(c if isinstance(c, str) else c.__name__ for c in classes)


def _settings(replace: Replace, input_size: Sequence[int] | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keyword arguments that ask for the same again."""
    where = {} if input_size is None else {"input_size": input_size}
    return {**options, **({"replace": replace} if replace else {}), **where}


def _note(model: nn.Module, report: AttachReport | None, asked: dict[str, Any] | None) -> None:
    """Keep the report on the model and tell its card, where it has one, so that its checkpoints can be rebuilt."""
    model.__dict__.pop("excite_attach_report", None)
    if report is not None:
        model.__dict__["excite_attach_report"] = report
    card: Any = getattr(model, "excite_card", None)
    if card is not None:
        nothing: dict[str, Any] = {"attach": None, "attach_sites": None, "attach_options": {}}
        model.excite_card = dataclasses.replace(card, **(asked or nothing))


def detach(model: nn.Module) -> nn.Module:
    """Take out what `attach` put in, in place: the model's outputs are those it had without, bit for bit.

    Training in between is kept. Returns the model. Raises UsageError where nothing is attached.
    """
    refuse(model)
    found = list(carriers(model))
    if not found:
        raise UsageError("nothing is attached to this model")
    for _, module in found:
        if isinstance(module, Instead):
            _restore(model, module)
        else:
            drop(module)
    if isinstance(model, GraphHost):
        model.__class__ = without(type(model), "hosted_base")
    _note(model, None, None)
    return model


def _restore(model: nn.Module, module: nn.Module) -> None:
    original: nn.Module = module.replaced[0]  # type: ignore[index, assignment]  # as `stand_in` left it
    like = next((t for t in module.parameters()), None)
    if like is not None:
        original.to(device=like.device, dtype=like.dtype)
    original.train(module.training)
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child is module:
                parent._modules[name] = original


def _check_dims(method: str, card: Method, graph: Graph) -> None:
    dims = len(graph.input_size) - 1
    if dims not in card.dims:
        able = " and ".join(f"{d}-D" for d in card.dims)
        raise UsageError(f"{method} works on {able} maps; {type(graph.model).__name__} is a {dims}-D network")


def _choose(graph: Graph, method: str, card: Method, sites: Wanted | None, replace: bool) -> list[Site]:
    wanted = sites if sites is not None else DEFAULT_SITES[card.role]
    if card.role == "conv":
        if not replace:
            raise UsageError(
                f"{method} takes the place of a k x k convolution, whose weights then go unused; say replace=True"
            )
        return select(graph, wanted, "conv")
    if card.role == "between-stages" and wanted in ("residual", "all-blocks", "first-in-stage"):
        raise UsageError(f"{method} sits between stages, not at {wanted!r}; use sites='between-stages' or 'stage-ends'")
    return select(graph, wanted, "attention" if replace else None)


def _build(
    graph: Graph, listed: Sequence[Site], method: str, card: Method, site: Site, options: Mapping[str, Any]
) -> nn.Module:
    values = at_stage(method, options, site.stage, _stages(listed, site))
    if "dims" in method_options(method):
        values.setdefault("dims", len(graph.input_size) - 1)
    host = graph.modules[site.path]
    if card.role == "conv":
        stride = host.stride[0]  # type: ignore[index]  # a convolution's
        values |= {"out_channels": host.out_channels, "stride": stride}
    try:
        attention = create_attention(method, site.channels, **values)
    except UsageError as error:
        raise UsageError(f"at {site.path!r} ({site.channels} channels): {error}") from error
    like = next((p for m in (host, graph.model) for p in m.parameters() if p.is_floating_point()), torch.empty(0))
    return attention.to(device=like.device, dtype=like.dtype).train(host.training)


def _stages(listed: Sequence[Site], site: Site) -> int:
    """Return how many stages the network has, counted as for this site: over what it adds to or what it replaces."""
    alike = {site.kind} if site.place == "instead" else {"residual", "concat", "block", "stage-end", "named"}
    return 1 + max((s.stage for s in [*listed, site] if s.kind in alike), default=0)


def _insert(graph: Graph, site: Site, attention: nn.Module) -> None:
    host = graph.modules[site.path]
    if site.place != "instead":
        carry(host, attention, site.place)
        return
    stand_in(attention, host)
    for parent in list(graph.model.modules()):
        for name, child in parent._modules.items():
            if child is host:
                parent._modules[name] = attention


def _verify(chosen: Sequence[Site], calls: Mapping[str, Any]) -> None:
    """Raise ExciteError unless every attached module runs: a host may go through its children in ways of its own."""
    for site in chosen:
        if len(calls.get(site.path, ())) != 1:
            raise ExciteError(f"attention at {site.path!r} would not run, so it was taken out; name another site")


def report_of(
    graph: Graph, method: str, options: Mapping[str, Any], chosen: Sequence[Site], before: Mapping[str, Any], macs: int
) -> AttachReport:
    """Compare the model with what it was before and write the report."""
    now = graph.model.state_dict(keep_vars=True)
    kept = {k: t for k, t in before.items() if k in now and now[k] is t}
    removed = tuple(k for k in before if k not in kept)
    parameters = {id(p) for p in before.values() if isinstance(p, nn.Parameter)}
    added = sum(p.numel() for p in graph.model.parameters() if id(p) not in parameters)
    replaced = {s.path for s in chosen if s.place == "instead"}
    return AttachReport(
        method=method,
        options=dict(options),
        sites=tuple(chosen),
        input_size=graph.input_size,
        parameters_added=added,
        parameters_removed=sum(before[k].numel() for k in removed if isinstance(before[k], nn.Parameter)),
        macs_before=graph.trace.macs,
        macs_added=macs - graph.trace.macs,
        kept_tensors=len(kept),
        kept_parameters=sum(t.numel() for t in kept.values() if isinstance(t, nn.Parameter)),
        removed=removed,
        existing=tuple(a for a in graph.attention if a not in replaced),
        notes=tuple(_notes(graph, method, chosen)),
    )


def _optimizers() -> list[torch.optim.Optimizer]:
    """Return the optimizers of this process.

    PyTorch wraps a class's `step` and marks it as soon as one of the class is built, so that most processes need not
    look further. Each optimizer refers to its class: the collector finds those that do without a list of all objects.
    """
    classes: list[type] = [torch.optim.Optimizer]
    for known in classes:  # grows by the subclasses of those that it has
        below: list[type] = known.__subclasses__()
        classes += [kind for kind in below if kind not in classes]
    built = {kind for kind in classes if hasattr(getattr(kind, "step", None), "hooked")}
    return [o for o in gc.get_referrers(*built) if type(o) in built] if built else []


def _sees_moments(module: nn.Module) -> bool:
    """Tell whether a module is attention that sees each channel's mean and deviation alone."""
    return isinstance(module, ChannelAttention) and hasattr(type(module.squeeze), "from_statistics")


def _notes(graph: Graph, method: str, chosen: Sequence[Site]) -> Iterator[str]:
    """Yield what else the user should know of the network and the sites, a line each."""
    parts = {site.path: graph.modules[site.path].modules() for site in chosen if site.place != "instead"}
    pooling = [path for path, modules in parts.items() if any(map(_sees_moments, modules))]
    blind = [s.path for s in chosen if s.path in pooling and behind_instance_norm(graph, s)]
    if blind:
        yield (
            f"behind an instance norm a channel's mean and deviation are the norm's bias and weight, for every image: "
            f"{method} sees nothing of the image at {some(blind)}; name sites behind the activation"
        )
    if graph.idle:
        yield f"{some(graph.idle)} did not run (for training only, or by the data), so nothing was put there"
    if graph.repeated:
        runs = ", ".join(f"{p} ({len(graph.calls[p])} times)" for p in graph.repeated[:3])
        yield f"runs several times in a pass, so nothing was put there: {runs}"
    unknown = dict.fromkeys(type(graph.modules[p]).__name__ for p in graph.unknown)
    if unknown:
        swap = f"replace={next(iter(unknown))!r} swaps it"
        yield f"{some(graph.unknown)} weighs channels but is not known as attention; {swap}"
    parameters = {id(p) for p in graph.model.parameters()}
    for optimizer in _optimizers():
        if any(id(p) in parameters for group in optimizer.param_groups for p in group["params"]):
            name = type(optimizer).__name__
            yield f"the {name} that was built before does not know the new parameters: build it after attach"
