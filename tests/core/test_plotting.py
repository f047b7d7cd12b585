"""Figures are drawn without touching the plots of whoever calls."""

from pathlib import Path

import pytest

pyplot = pytest.importorskip("matplotlib.pyplot")


def test_drawing_leaves_pyplot_alone(tmp_path: Path) -> None:
    import matplotlib as mpl

    from excite.robustness.figures import plot_probes

    mpl.use("svg", force=True)
    own = pyplot.figure()
    before = dict(mpl.rcParams)
    picture = plot_probes({"blur": {"a": {1.0: 0.1, 2.0: 0.3}}}, tmp_path / "probes.png")
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert mpl.get_backend() == "svg"
    assert pyplot.get_fignums() == [own.number]
    assert dict(mpl.rcParams) == before
    pyplot.close(own)
