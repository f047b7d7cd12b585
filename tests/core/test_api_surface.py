"""The public names: what other people's code may rely on stays."""

import inspect
import json
from pathlib import Path

import pytest

import excite

# Written down when a name becomes public; a line leaves this file only with a new major version.
SURFACE: dict[str, list[str] | str] = json.loads((Path(__file__).parent / "api_surface.json").read_text())


@pytest.mark.parametrize("name", sorted(SURFACE))
def test_public_names_stay(name: str) -> None:
    assert name in excite.__all__
    assert name in dir(excite)
    value = getattr(excite, name)
    recorded = SURFACE[name]
    if isinstance(recorded, list):
        parameters = list(inspect.signature(value).parameters)
        assert [p for p in recorded if p not in parameters] == []
    else:
        assert type(value).__name__ == recorded


def test_every_public_name_is_written_down() -> None:
    """A new name is a promise: its line in api_surface.json (name: parameters, or the kind of thing) says so."""
    assert sorted(excite.__all__) == sorted(SURFACE)


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no attribute 'attatch'"):
        _ = excite.attatch


def test_types_are_shipped() -> None:
    assert (Path(excite.__file__).parent / "py.typed").is_file()
