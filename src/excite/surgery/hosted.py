"""A network whose forward pass is a rewritten graph of its own; its modules, keys and class name stay."""

from collections.abc import Callable, Mapping
from functools import cache, wraps
from inspect import Parameter, signature
from typing import Any

from torch import fx, nn
from torch.fx.graph_module import _format_import_block
from torch.package.importer import sys_importer

from excite.errors import ExciteError


class GraphHost:
    """A network that runs generated code: one text for train mode, one for eval mode."""

    hosted_base: type[nn.Module]
    hosted_texts: tuple[str, str]
    run_train: Callable[..., Any]
    run_eval: Callable[..., Any]
    training: bool

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        """Copy and pickle by the network's own class and the texts."""
        return _rebuild, (self.hosted_base, *self.hosted_texts), self.__getstate__()


def _forward(base: Any) -> Callable[..., Any]:
    """Return the hosted forward; it shows the network's own signature, which torch.export and ONNX read."""

    @wraps(base.forward)
    def forward(self: GraphHost, *args: Any, **kwargs: Any) -> Any:
        return self.run_train(*args, **kwargs) if self.training else self.run_eval(*args, **kwargs)

    return forward


@cache
def hosted_class(base: Any, train: str, evaluate: str) -> type[nn.Module]:
    """Return the subclass of `base` that runs the texts."""
    members = {
        "hosted_base": base,
        "hosted_texts": (train, evaluate),
        "forward": _forward(base),
        "run_train": _function(train),
        "run_eval": _function(evaluate),
        "__module__": base.__module__,
        "__qualname__": base.__qualname__,
        "__doc__": base.__doc__,
    }
    made: type[nn.Module] = type(base.__name__, (GraphHost, base), members)
    return made


def _function(text: str) -> Callable[..., Any]:
    scope: dict[str, Any] = {}
    exec(compile(text, "<excite.attach graph>", "exec"), scope)
    made: Callable[..., Any] = scope["forward"]
    return made


def _rebuild(base: Any, train: str, evaluate: str) -> nn.Module:
    made = hosted_class(base, train, evaluate)
    return made.__new__(made)


def host(model: nn.Module, graphs: Mapping[bool, fx.Graph]) -> None:
    """Let `model` run `graphs`: by key True in train mode, False in eval mode."""
    base: Any = type(model)
    model.__class__ = hosted_class(base, _text(graphs[True]), _text(graphs[False]))


def _text(graph: fx.Graph) -> str:
    graph.lint()
    code = graph.python_code("self")
    return _format_import_block(code.globals, sys_importer) + "\n" + code.src


class _Tracer(fx.Tracer):
    """Take every module as one step, except those on the way to the modules of interest."""

    def __init__(self, targets: set[str]) -> None:
        super().__init__()
        self.targets = targets

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Tell whether a module is one step: none of the targets lies strictly inside."""
        return not any(t.startswith(module_qualified_name + ".") for t in self.targets)


def trace_both(model: nn.Module, targets: set[str]) -> dict[bool, fx.Graph]:
    """Return the FX graphs of `model` in train (True) and eval (False) mode; flags are put back.

    Raises ExciteError where FX cannot follow: control flow that depends on the data, between the targets.
    """
    flags = [(m, m.training) for m in model.modules()]
    parameters = list(signature(model.forward).parameters.values())
    fixed = {
        p.name: p.default
        for p in parameters[1:]
        if p.default is not Parameter.empty and p.kind in (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
    }
    graphs: dict[bool, fx.Graph] = {}
    try:
        for mode in (True, False):
            model.train(mode)
            graphs[mode] = _Tracer(targets).trace(model, fixed or None)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else ""
        raise ExciteError(
            f"torch.fx cannot follow {type(model).__name__}: {type(error).__name__}: {reason}; EMCA needs a "
            "graph (no control flow that depends on the data around its blocks). Other methods need no graph"
        ) from error
    finally:
        for module, flag in flags:
            module.training = flag
    return graphs


def descriptor_of(node: fx.Node) -> fx.Node:
    """Split a step that returns (map, descriptor): its readers get the map; returns the descriptor's node."""
    import operator

    graph = node.graph
    with graph.inserting_after(node):
        value = graph.call_function(operator.getitem, (node, 0))
    node.replace_all_uses_with(value, delete_user_cb=lambda user: user is not value)
    with graph.inserting_after(value):
        descriptor: fx.Node = graph.call_function(operator.getitem, (node, 1))
    return descriptor


def eliminate(graph: fx.Graph) -> None:
    """Drop the descriptors that nobody reads."""
    for node in reversed(list(graph.nodes)):
        if node.op == "call_function" and node.name.startswith("getitem") and not node.users:
            graph.erase_node(node)
