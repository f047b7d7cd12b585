"""Two gloo processes, forked from the one that tests, as torchrun would start them."""

import os
import socket
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.multiprocessing import get_context


def free_port() -> int:
    """Return a port that nobody listens at."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def start(task: Callable[..., None], folder: Path, *given: Any, processes: int = 2, **variables: str) -> list[Any]:
    """Start `task(rank, folder, *given)` in every process; errors are written to folder/error.RANK."""
    port = str(free_port())
    context = get_context("fork")
    started = [
        context.Process(target=_run, args=(task, rank, processes, port, folder, given, variables))
        for rank in range(processes)
    ]
    for process in started:
        process.start()
    return started


def finish(started: list[Any], folder: Path, seconds: float = 120) -> list[str]:
    """Wait for the processes; return what went wrong in each, empty where nothing did."""
    for process in started:
        process.join(seconds)
        if process.is_alive():
            process.kill()
            raise AssertionError("a process hangs")
    files = [folder / f"error.{rank}" for rank in range(len(started))]
    return [file.read_text() if file.is_file() else "" for file in files]


def _run(
    task: Callable[..., None],
    rank: int,
    world: int,
    port: str,
    folder: Path,
    given: tuple[Any, ...],
    more: dict[str, str],
) -> None:
    torch.set_num_threads(1)
    os.environ |= {
        "TORCHELASTIC_RUN_ID": "test", "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world),
        "LOCAL_WORLD_SIZE": str(world), "GROUP_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, **more,
    }  # fmt: skip
    try:
        task(rank, folder, *given)
    except BaseException:
        (folder / f"error.{rank}").write_text(traceback.format_exc())
        raise
