"""Fixtures for all tests."""

import gc
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
sys.path.insert(0, str(Path(__file__).parent))

import pytest

REPOSITORY = Path(__file__).parents[1]
if sys.dont_write_bytecode:
    # Without bytecode every process of the tests compiles PyTorch's 1,500 modules again: seconds each. It goes to a
    # folder of its own, so that none lies beside the sources, as was asked for.
    sys.dont_write_bytecode = False
    sys.pycache_prefix = os.environ["PYTHONPYCACHEPREFIX"] = str(REPOSITORY / ".cache" / "bytecode")
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
DRAWN = {}  # the function that draws curves, once its module is there
ESTIMATES: dict[Any, Any] = {}  # what networks keep of an image, by all that this depends on


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Let runs leave a mere file for their curves, which take longer to draw than such a run; `curves` draws them."""
    history = sys.modules.get("excite.engine.history")
    if history is not None:
        drawn = DRAWN.setdefault("curves", history.draw_curves)
        wanted = "curves" in getattr(item, "fixturenames", ())
        history.draw_curves = drawn if wanted else lambda rows, panels, path: path.write_bytes(b"no picture")
    memory = sys.modules.get("excite.train.memory")
    if memory is not None and not hasattr(memory.saved_bytes, "whole"):
        memory.saved_bytes = estimated_once(memory.saved_bytes)


def estimated_once(saved_bytes: Any) -> Any:
    """Estimate memory once for all networks that are alike: a third of the time of the smallest run."""

    def estimate(model: Any, size: int, channels: int = 3) -> Any:
        plain = (bool, int, float, str, type(None))
        traits = tuple((k, v) for module in model.modules() for k, v in vars(module).items() if isinstance(v, plain))
        learned = tuple((parameter.requires_grad, parameter.dtype) for parameter in model.parameters())
        key = (repr(model), traits, learned, size, channels)
        if key not in ESTIMATES:
            ESTIMATES[key] = saved_bytes(model, size, channels)
        return ESTIMATES[key]

    estimate.whole = saved_bytes  # type: ignore[attr-defined]
    return estimate


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep a file's tests together, as `--dist loadfile` does, and those with crashes: they share a process."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class ByFile(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "tests/crash" if nodeid.startswith("tests/crash/") else super()._split_scope(nodeid)

    return ByFile(config, log)


def freeze() -> None:
    """Freeze what imports left: half a million objects that every full round of the collector would visit.

    So would attach, which looks for optimizers among all objects; those that a file's own tests make are not frozen.
    """
    gc.collect()
    gc.freeze()


def pytest_collection_finish() -> None:
    freeze()
    gc.set_threshold(10_000, 10, 10)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Any:
    """Freeze between two files what the first one's tests made the libraries import and keep."""
    done = yield
    if nextitem is not None and nextitem.path != item.path:
        freeze()
    return done


@pytest.fixture
def curves() -> None:
    """Asked for by tests of the picture."""


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Small networks run fastest, and repeatably, on one thread.

    Each of the 20,000 seeds is otherwise kept, with the stack that set it, for three kinds of devices: none is there.
    """
    import torch

    torch.set_num_threads(1)
    for devices in (torch.cuda, torch.xpu, torch.mtia):
        if not devices.is_available():
            devices.manual_seed_all = lambda seed: None


@pytest.fixture
def shared_data() -> Path:
    """The folder with real data beside the repository; tests that need it are skipped without it."""
    folder = Path(os.environ.get("EXCITE_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(
            f"real data not found at {folder}; set EXCITE_DATA to the folder that holds cifar10/, coco_tiny/, bccd/"
        )
    return folder
