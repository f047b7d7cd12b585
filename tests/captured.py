"""torch.compile as it is, up to the graphs: these are run as they are, for building code from them takes a minute."""

import pytest
import torch
from torch import fx


class Captured(list[fx.GraphModule]):
    """The graphs that torch.compile took of networks, in order; `runs` counts how often they ran."""

    runs = 0

    def operations(self) -> set[str]:
        """Return the names of what is called in the graphs."""
        return {str(node.target) for graph in self for node in graph.graph.nodes if node.op == "call_function"}


def capture_compiled(monkeypatch: pytest.MonkeyPatch) -> Captured:
    """Return the graphs that will be compiled from here on."""
    from torch._inductor import compile_fx

    captured = Captured()

    def run_as_it_is(graph: fx.GraphModule, inputs: object, **options: object) -> object:
        captured.append(graph)

        def run(*args: object) -> object:
            captured.runs += 1
            return graph.forward(*args)

        return run

    monkeypatch.setattr(compile_fx, "compile_fx", run_as_it_is)
    torch._dynamo.reset()
    return captured
