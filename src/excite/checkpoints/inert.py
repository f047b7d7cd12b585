"""What may stand beside weights in a file and is read as nothing: plain holders of values, replaced by stand-ins.

A pickle names the classes of its objects. Here the names of well-known classes that only hold values lead to classes of
our own, which keep nothing and run nothing; whatever else a file names is refused.
"""

import argparse
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

# Any: arguments and states of foreign objects, as torch's unpickler passes them, and the pairs that it takes.


class Passed:
    """Stands for an object that was passed over."""

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


class PassedMapping:
    """Makes the dictionary that stands for one of a class of its own."""

    def __new__(cls, *_: Any) -> OrderedDict[Any, Any]:  # type: ignore[misc]  # torch fills only exact dictionaries
        """Return an empty dictionary."""
        return OrderedDict()


class PassedSequence:
    """Makes the list that stands for a sequence of a class of its own."""

    def __new__(cls, *_: Any) -> list[Any]:  # type: ignore[misc]  # torch fills only exact lists
        """Return an empty list."""
        return []


# By module; a class that moved stands under every place that it had.
_VALUES = {
    "builtins": "int float bool str bytes list dict tuple frozenset range slice",  # as in defaultdict(int)
    "pathlib": "Path PosixPath WindowsPath PurePath PurePosixPath PureWindowsPath",
    "pathlib._local": "Path PosixPath WindowsPath PurePath PurePosixPath PureWindowsPath",
    "numpy": "dtype ndarray",
    "numpy.core.multiarray": "_reconstruct scalar",
    "numpy._core.multiarray": "_reconstruct scalar",
    "numpy.random._pickle": "__bit_generator_ctor __generator_ctor __randomstate_ctor",
    "numpy.random._mt19937": "MT19937",
    "numpy.random._pcg64": "PCG64",
    "numpy.random.bit_generator": "SeedSequence __pyx_unpickle_SeedSequence",
    "collections": "UserDict UserList",
    "types": "SimpleNamespace",
    "datetime": "datetime date time timedelta timezone",
    "decimal": "Decimal",
    "fractions": "Fraction",
    "uuid": "UUID",
    "torch.torch_version": "TorchVersion",
    "typing": "Any",
    "omegaconf.dictconfig": "DictConfig",
    "omegaconf.listconfig": "ListConfig",
    "omegaconf.base": "ContainerMetadata Metadata SCMode UnionNode",
    "omegaconf.nodes": "AnyNode BooleanNode BytesNode EnumNode FloatNode IntegerNode PathNode StringNode",
    "ml_collections.config_dict.config_dict": "ConfigDict FrozenConfigDict FieldReference _Op",
}
_MAPPINGS = {
    "collections": "defaultdict",
    "lightning.fabric.utilities.data": "AttributeDict",
    "lightning_fabric.utilities.data": "AttributeDict",
    "lightning.pytorch.utilities.parsing": "AttributeDict",
    "pytorch_lightning.utilities.parsing": "AttributeDict",
    "easydict": "EasyDict",
    "addict.addict": "Dict",
    "munch": "Munch DefaultMunch",
    "yacs.config": "CfgNode",
    "fvcore.common.config": "CfgNode",
    "mmcv.utils.config": "ConfigDict",
    "mmengine.config.config": "ConfigDict",
}
_SEQUENCES = {"collections": "deque"}


def harmless() -> list[Any]:
    """Return what torch's unpickler may build beside tensors: parsed arguments, and the stand-ins by their names."""
    stand_ins = ((Passed, _VALUES), (PassedMapping, _MAPPINGS), (PassedSequence, _SEQUENCES))
    return [argparse.Namespace, *((kind, name) for kind, table in stand_ins for name in _names(table))]


def _names(table: dict[str, str]) -> Iterator[str]:
    for module, classes in table.items():
        yield from (f"{module}.{name}" for name in classes.split())
