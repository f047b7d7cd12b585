"""Files of torch.export from strangers: what would run code, or ask for much memory, is refused before it is opened."""

import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from excite.errors import ExciteError
from excite.export import export_model, open_exported
from excite.export.program import check_expression
from excite.models import NetworkSpec

HOW = {"size": 32, "resize": 32, "mean": [0.5] * 3, "std": [0.25] * 3}
Records = dict[str, bytes]


class Trap:
    """A pickle of it writes a file when it is read."""

    def __init__(self, trace: str) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return (exec, (f"open({self.trace!r}, 'w').close()",))


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """A file of any batch size and one of a fixed one."""
    folder = tmp_path_factory.mktemp("programs")
    spec = NetworkSpec("eca_resnet20", 10, options={"width": 4}, preprocess=HOW)
    files = {}
    for dynamic in (False, True):
        files[dynamic] = folder / f"{dynamic}.pt2"
        export_model(spec.build(), spec, files[dynamic], format="torch-export", input_size=32, dynamic=dynamic)
    return files


def rewrite(source: Path, target: Path, change: Callable[[Records], None]) -> Path:
    reader = torch._C.PyTorchFileReader(str(source))
    records = {name: bytes(reader.get_record(name)) for name in reader.get_all_records()}
    change(records)
    writer = torch._C.PyTorchFileWriter(str(target))
    for name, data in records.items():
        if not name.startswith((".data/", "byteorder")):
            writer.write_record(name, data, len(data))
    writer.write_end_of_file()
    return target


def edit(name: str, change: Callable[[Any], None]) -> Callable[[Records], None]:
    def apply(records: Records) -> None:
        content = json.loads(records[name])
        change(content)
        records[name] = json.dumps(content).encode()

    return apply


GRAPH, WEIGHTS, CONSTANTS = (
    "models/model.json",
    "data/weights/model_weights_config.json",
    "data/constants/model_constants_config.json",
)


def torch_pickle(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def attacks(trace: str) -> dict[str, tuple[str, Callable[[Records], None]]]:
    """By name: a word of the refusal, and how the records are changed."""
    code = f"open({trace!r}, 'w').close()"

    def first_node(**entries: Any) -> Callable[[Records], None]:
        return edit(GRAPH, lambda g: g["graph_module"]["graph"]["nodes"][0].update(entries))

    def weights_pickled(records: Records) -> None:
        config = json.loads(records[WEIGHTS])
        next(iter(config["config"].values()))["use_pickle"] = True
        records |= {WEIGHTS: json.dumps(config).encode(), "data/weights/weight_0": torch_pickle(Trap(trace))}

    def object_constant(kind: str) -> Callable[[Records], None]:
        def apply(records: Records) -> None:
            entry = {"path_name": f"{kind}_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
            records[CONSTANTS] = json.dumps({"config": {"x": entry}}).encode()
            records[f"data/constants/{kind}_0"] = pickle.dumps(Trap(trace))

        return apply

    def inputs(records: Records) -> None:
        records["data/sample_inputs/model.pt"] = torch_pickle(Trap(trace))

    def legacy(records: Records) -> None:
        records["data/weights/model.pt"] = torch_pickle(Trap(trace))

    def expression(content: Any) -> None:
        for value in content["graph_module"]["graph"]["sym_int_values"].values():
            value["as_expr"]["expr_str"] = f"__import__('builtins').{code}"

    def constraint(content: Any) -> None:
        content["range_constraints"] = {f"s0={code}": {"min_val": 1, "max_val": 2}}

    def named(content: Any) -> None:
        graph = content["graph_module"]["graph"]
        text = json.dumps(graph).replace('"x"', json.dumps(f"x={code}"))
        content["graph_module"]["graph"] = json.loads(text)

    def container(content: Any) -> None:
        spec = [1, {"type": "collections.defaultdict", "context": '{"default_factory_module": "antigravity", '
                    '"default_factory_name": "x", "dict_context": []}', "children_spec": []}]  # fmt: skip
        content["graph_module"]["module_call_graph"][0]["signature"]["in_spec"] = json.dumps(spec)

    def enlarged(content: Any) -> None:
        meta = next(iter(content["config"].values()))["tensor_meta"]
        meta["sizes"], meta["strides"] = [{"as_int": 10**12}], [{"as_int": 0}]

    def escaped(content: Any) -> None:
        next(iter(content["config"].values()))["path_name"] = "../constants/weight_0"

    return {
        "pickled weights": ("as a pickle", weights_pickled),
        "custom object": ("entry", object_constant("custom_obj")),
        "opaque object": ("entry", object_constant("opaque_obj")),
        "pickled constant": ("as a pickle", object_constant("tensor")),
        "example inputs": ("example inputs", inputs),
        "legacy weights": ("entry", legacy),
        "guards": ("guards_code", edit(GRAPH, lambda g: g.update(guards_code=[f"[{code}]"]))),
        "expression": ("expression", edit(GRAPH, expression)),
        "symbol": ("the name", edit(GRAPH, constraint)),
        "variable": ("the name", edit(GRAPH, named)),
        "hub": ("operator", first_node(target="torch.hub.load")),
        "os": ("operator", first_node(target="torch.os.system")),
        "file": ("operator", first_node(target="torch.ops.aten.from_file.default")),
        "container": ("of the type", edit(GRAPH, container)),
        "memory": ("larger than", edit(WEIGHTS, enlarged)),
        "path": ("as a pickle", edit(WEIGHTS, escaped)),
        "operator": (
            "as_operator",
            first_node(inputs=[{"name": "x", "arg": {"as_operator": "torch.os.system"}, "kind": 1}]),
        ),
        "compiled": ("entry", lambda records: records.update({"data/aotinductor/model/x.so": b"\x7fELF"})),
        "no graph": ("JSONDecodeError", lambda records: records.update({GRAPH: b"["})),
        "no config": ("TypeError", lambda records: records.update({WEIGHTS: b"[]"})),
    }


@pytest.mark.parametrize("name", list(attacks("")))
def test_a_crafted_file_is_refused_before_it_is_opened(
    name: str, archives: dict[bool, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = tmp_path / "ran"
    words, change = attacks(str(trace))[name]
    file = rewrite(archives[name == "expression"], tmp_path / "x.pt2", change)

    def opened(*_: object, **__: object) -> None:
        raise AssertionError("it was opened")

    monkeypatch.setattr(torch.export, "load", opened)
    with pytest.raises(ExciteError, match=r"x\.pt2: cannot be opened") as caught:
        open_exported(file)
    assert len(str(caught.value).splitlines()) == 1
    assert words in str(caught.value)
    assert not trace.exists()


@pytest.mark.parametrize("dynamic", [False, True])
def test_what_is_written_is_read(dynamic: bool, archives: dict[bool, Path], tmp_path: Path) -> None:
    again = rewrite(archives[dynamic], tmp_path / "again.pt2", lambda records: None)
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(open_exported(again)(x), open_exported(archives[dynamic])(x))


@pytest.mark.parametrize(
    "text",
    [
        "Symbol('s77', positive=True, integer=True)",
        "Mul(Integer(2), Symbol('s0', integer=True))",
        "2*s0 + 1",
        "FloorDiv(s0, 2) - Max(1, -u0)",
        "Eq(Mod(s1, 8), 0)",
        "s0 < 65536",
    ],
)
def test_sizes_may_be_arithmetic(text: str) -> None:
    check_expression(text)


@pytest.mark.parametrize(
    "text",
    ["().__class__", "__import__('os')", "9**9**9", "s0.func", "[s0 for s0 in x]", "lambda: 1", "s0[0]", "f(s0)",
     "Symbol('__import__')", "1 << 99", "(" * 300,
     "s0 +", "", "'x'", "open", "eval('1')", "a := 1", "s0 if s1 else s2"],
)  # fmt: skip
def test_sizes_may_be_nothing_else(text: str) -> None:
    with pytest.raises(ExciteError, match="the expression"):
        check_expression(text)
