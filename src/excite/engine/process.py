"""What a command borrows from its process, and gives back: random numbers, switches, signals, words of libraries."""

import contextlib
import logging
import os
import random
import select
import signal
import threading
import time
import warnings
from collections.abc import Iterator

import numpy as np
import torch

POLL = 1.0  # seconds between two looks at a parent, where the system does not tell of its end
LOGGERS = ("lightning.pytorch", "lightning.fabric", "lightning", "faster_coco_eval")
VARIABLES = ("PL_GLOBAL_SEED", "PL_SEED_WORKERS", "CUBLAS_WORKSPACE_CONFIG")  # set by Lightning


@contextlib.contextmanager
def unchanged() -> Iterator[None]:
    """Leave the process as it was: random states, deterministic switches, variables and signals that Lightning sets."""
    python, tensors = random.getstate(), torch.get_rng_state()
    arrays = np.random.get_state()  # noqa: NPY002  (the global one is what libraries seed)
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    threads = torch.get_num_threads()
    cudnn, benchmark = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    variables = {name: os.environ.get(name) for name in VARIABLES}
    # Lightning ignores Ctrl-C for good once it has seen one. Handlers can be set in the main thread only.
    in_main = threading.current_thread() is threading.main_thread()
    interrupt = signal.getsignal(signal.SIGINT) if in_main else None
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(arrays)  # noqa: NPY002
        torch.set_rng_state(tensors)
        if devices is not None:
            torch.cuda.set_rng_state_all(devices)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = cudnn, benchmark
        for name, value in variables.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        if interrupt is not None:
            signal.signal(signal.SIGINT, interrupt)


def end_with(parent: int, *_: object) -> None:
    """End this process when the process `parent` ends, even by kill -9. Called in a child, at its start.

    The system's own signal for it tells of the process that forked the child: a server, maybe, and that lives on.
    """
    threading.Thread(target=_end_with, args=(parent,), name="end with parent", daemon=True).start()


def _end_with(parent: int) -> None:
    try:
        if hasattr(os, "pidfd_open"):
            select.select([os.pidfd_open(parent)], [], [])
        else:
            while True:
                os.kill(parent, 0)
                time.sleep(POLL)
    except (ProcessLookupError, PermissionError):
        pass  # ended already
    except OSError:
        return  # the system lacks the call
    os.kill(os.getpid(), signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silence Lightning's and the evaluator's notes; errors still come through."""
    before = {name: logging.getLogger(name).level for name in LOGGERS}
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning.*")
            warnings.filterwarnings("ignore", message=r".*(LeafSpec|lr_scheduler\.step|num_workers|many workers).*")
            yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
