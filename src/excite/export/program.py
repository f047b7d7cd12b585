"""Files of torch.export, checked before torch opens them: `torch.export.load` runs what a crafted one says.

An archive may hold pickles, custom objects, Python guards, expressions that are evaluated, names that become source
text, and operators such as `torch.hub.load`. What `excite export` writes needs none of these: a graph of aten operators
in JSON, and raw weights. So everything else is refused.
"""

import ast
import io
import json
import math
import re
import zipfile
from collections.abc import Iterator
from typing import Any  # of JSON that somebody else wrote

import torch

from excite.errors import ExciteError

# Any: torch's reader and the trees in its files have no types; every entry is checked before it is used.

RECORDS = re.compile(
    r"archive_format|archive_version|version|byteorder|\.data/\w+|extra/excite\.json|models/model\.json|"
    r"data/(weights/weight_\d+|weights/model_weights_config\.json|sample_inputs/model\.pt|"
    r"constants/tensor_\d+|constants/model_constants_config\.json)"
)
LARGEST_TEXT = 2**28  # bytes of a JSON entry
OPERATOR = re.compile(r"torch\.ops\.aten\.(?!from_file\b|set_\b)\w+\.\w+|torch\.sym_(int|float|max|min|not|sum|ite)")
ARITHMETIC = re.compile(r"_operator\.(getitem|add|sub|mul|floordiv|truediv|mod|neg|pow|eq|ne|lt|le|gt|ge|and_|or_)|"
                        r"math\.(ceil|floor|trunc)")  # fmt: skip
VALUE = re.compile(
    r"as_(none|tensors?|optional_tensors?|nested_tensors|ints?|int_lists|floats?|float_lists|strings?|bools?|"
    r"sym_ints?|sym_bools?|sym_floats?|scalar_type|memory_format|layout|device|complex|name|expr)"
)
NAMES = {"name", "as_name", "input_name", "output_name"}  # they become variables of the source text
PATHS = {"parameter_name", "buffer_name", "buffer_mutation_name", "tensor_constant_name", "fqn"}
FUNCTION = re.compile(
    r"Symbol|Integer|Float|Rational|Add|Mul|Pow|Max|Min|Abs|Eq|Ne|Lt|Le|Gt|Ge|And|Or|Not|Where|Mod|Identity|"
    r"Equality|Unequality|(Strict)?(Less|Greater)Than|floor|ceiling|FloorDiv|ModularIndexing|PythonMod|CleanDiv|CeilDiv|"
    r"(Ceil|Floor|Trunc|Round)ToInt|LShift|RShift|PowByNatural|FloatPow|(Float|Int)TrueDiv|TruncToFloat|RoundDecimal|"
    r"ToFloat"
)
SYMBOL = re.compile(r"[a-z]{1,5}\d+|true|false|True|False")


def checked(data: bytes) -> io.BytesIO:
    """Return the bytes of an archive, to be opened by `torch.export.load`, after all of it was found harmless.

    Raises ExciteError, without the file's name, for anything that `excite export` does not write.
    """
    # The reader that torch itself takes: another might see another archive in the same bytes.
    reader = torch._C.PyTorchFileReader(io.BytesIO(data))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if any(part.compress_type != zipfile.ZIP_STORED for part in archive.infolist()):
            raise ExciteError("its parts are compressed, as `excite export` never writes them; export it again")
    records = reader.get_all_records()
    for name in records:
        if not RECORDS.fullmatch(name):
            raise _refused(f"an entry {name!r}")
    try:
        torch.load(io.BytesIO(reader.get_record("data/sample_inputs/model.pt")), map_location="cpu", weights_only=True)
    except Exception:
        raise _refused("pickled example inputs that need code to be run") from None
    _check_graph(_json(reader, "models/model.json"))
    for kind in ("weights", "constants"):
        config = _json(reader, f"data/{kind}/model_{kind}_config.json")
        _check_weights(config["config"], kind, reader, records)
    return io.BytesIO(data)


def _refused(what: str) -> ExciteError:
    return ExciteError(
        f"it holds {what}, which `excite export` does not write and which may run code; export the network again"
    )


def _json(reader: Any, name: str) -> Any:
    text = reader.get_record(name)
    if len(text) > LARGEST_TEXT:
        raise ExciteError(f"its entry {name} is of {len(text)} bytes, too large to be true")
    return json.loads(text)


def _check_weights(config: dict[str, Any], kind: str, reader: Any, records: list[str]) -> None:
    start = "weight_" if kind == "weights" else "tensor_"
    for key, entry in config.items():
        record = f"data/{kind}/{entry['path_name']}"
        if entry.get("use_pickle") is not False or not entry["path_name"].startswith(start) or record not in records:
            raise _refused(f"{key!r} as a pickle or an object")
        if not re.fullmatch(r"[\w.]+", key):
            raise _refused(f"a tensor of the name {key!r}")
        meta = entry["tensor_meta"]
        sizes, strides = ([size["as_int"] for size in meta[name]] for name in ("sizes", "strides"))
        needed = math.prod(sizes)
        # Views may share or repeat numbers; to ask for more of them than the file holds is no way to store a network.
        if min([0, *sizes, *strides]) < 0 or needed > max(len(reader.get_record(record)), 1):
            raise ExciteError(f"its tensor {key!r} of shape {sizes} is larger than what is stored of it")


def _entries(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield every (key, value) of nested mappings and lists; the notes on nodes are passed over."""
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            for key, inner in part.items():
                yield key, inner
                if key != "metadata":
                    waiting.append(inner)
        elif isinstance(part, list):
            waiting += part


def _check_graph(program: Any) -> None:
    """Raise ExciteError for anything in the graph that is evaluated, imported or looked up, other than operators."""
    for key, value in _entries(program):
        if key == "target" and not (OPERATOR.fullmatch(str(value)) or ARITHMETIC.fullmatch(str(value))):
            raise _refused(f"the operator {value!r}")
        if key.startswith("as_") and not VALUE.fullmatch(key):
            raise _refused(f"a value of the kind {key!r}")
        if key in ("guards_code", "treespec_namedtuple_fields") and value:
            raise _refused(f"{key}")
        if key == "metadata" and "source_fn_stack" in (value or {}):
            raise _refused("source_fn_stack")
        if key in ("custom_obj_values", "custom_obj_name") and value:
            raise _refused("custom objects")
        if key in NAMES and isinstance(value, str):
            _check_name(value)
        if key in ("tensor_values", "sym_int_values", "sym_bool_values", "sym_float_values", "range_constraints"):
            for name in value:
                _check_name(name)
        if key == "forward_arg_names":
            for name in value or ():
                _check_name(name)
        if key in PATHS and value and not re.fullmatch(r"[\w.]+", str(value)):
            raise _refused(f"the path {value!r}")
        if key == "expr_str":
            check_expression(value)
        if key in ("in_spec", "out_spec") and value:
            _check_containers(json.loads(value))


def _check_name(name: Any) -> None:
    if not isinstance(name, str) or not re.fullmatch(r"(?!__)\w*", name, re.ASCII):
        raise _refused(f"the name {name!r}")


def _check_containers(spec: Any) -> None:
    for key, value in _entries(spec):
        if key == "type" and value not in (None, "builtins.tuple", "builtins.list", "builtins.dict"):
            raise _refused(f"an input of the type {value!r}")


def check_expression(text: Any) -> None:
    """Raise ExciteError unless a size, which torch has evaluated, is arithmetic of numbers and symbols alone."""
    refused = _refused(f"the expression {str(text)[:60]!r}")
    if not isinstance(text, str) or len(text) > 2000:
        raise refused
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise refused from None
    plain = (ast.Expression, ast.Call, ast.keyword, ast.BinOp, ast.UnaryOp, ast.operator, ast.unaryop, ast.Load)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant):
            small = isinstance(node.value, int | float) and abs(node.value) < 2**63
            harmless = small or (isinstance(node.value, str) and SYMBOL.fullmatch(node.value) is not None)
        elif isinstance(node, ast.Name):
            harmless = FUNCTION.fullmatch(node.id) is not None or SYMBOL.fullmatch(node.id) is not None
        elif isinstance(node, ast.Call):
            harmless = isinstance(node.func, ast.Name) and FUNCTION.fullmatch(node.func.id) is not None
        else:
            harmless = isinstance(node, (*plain, ast.Compare, ast.cmpop)) and not isinstance(node, ast.Pow | ast.LShift)
        if not harmless:
            raise refused
