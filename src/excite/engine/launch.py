"""The processes of a run: how many there are, which one this is, and what they agree on before they are connected.

Under torchrun the launcher says it. Else Lightning does, by SLURM's words or its own.
"""

import atexit
import os
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from excite.engine.config import RunConfig
from excite.engine.process import end_with
from excite.errors import ExciteError, UsageError
from excite.runtime import pick_device

if TYPE_CHECKING:
    from torch.distributed import TCPStore  # type: ignore[attr-defined]  # it is there

AnyConfig = TypeVar("AnyConfig", bound=RunConfig)

KEY = "excite/{launch}/{number}"  # of the directory of a fit in the launcher's store
WAIT = 60  # seconds for the launcher's store
_fits: list[str] = []  # keys of the fits of this process, the last one is under way


def by_torchrun() -> bool:
    """Return whether torchrun (torch.distributed.run) started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def settle(config: AnyConfig) -> AnyConfig:
    """Return the configuration as it is for this process.

    Under torchrun `devices` and `nodes` are the launcher's, and a process that it started again goes on with the run
    that the last attempt made. All but the first process are quiet, and end with the one that started them.
    Raises UsageError where launcher and options disagree.
    """
    if by_torchrun():
        _fits.append(KEY.format(launch=os.environ["TORCHELASTIC_RUN_ID"], number=len(_fits)))
        local, world = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), int(os.environ.get("WORLD_SIZE", "1"))
        started = {"devices": local, "nodes": world // local}
        for name, number in started.items():
            asked = getattr(config, name)
            if asked not in (1, number):
                raise UsageError(f"--{name} {asked}: torchrun started {number}; leave --{name} out")
        config = replace(config, devices=local, nodes=world // local)
        if _attempt() and world > 1 and not _connect_again(config):
            raise ExciteError(
                "torchrun holds no store in which processes that it started again could find their run; go on with "
                "--resume RUN"
            )
        run = _earlier_attempt() if config.resume is None else None
        if run is not None:
            program = {name: getattr(config, name) for name in ("model", "backbone", "data") if hasattr(config, name)}
            config = type(config).from_run(run, quiet=config.quiet, **program, **started)
    if config.processes > 1 and (by_torchrun() or rank_of(config) > 0):
        end_with(os.getppid())
    return config if rank_of(config) == 0 else replace(config, quiet=True)


def rank_of(config: RunConfig) -> int:
    """Return which process of its run this is, as Lightning will see it. A run of one device is a whole run."""
    if config.processes == 1:
        return 0
    from lightning.fabric.plugins.environments.lightning import LightningEnvironment
    from lightning.fabric.plugins.environments.lsf import LSFEnvironment
    from lightning.fabric.plugins.environments.mpi import MPIEnvironment
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
    from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

    for kind in (TorchElasticEnvironment, SLURMEnvironment, LSFEnvironment, MPIEnvironment):
        if kind.detect():
            return kind().global_rank()
    own = LightningEnvironment()
    return own.node_rank() * config.devices + own.local_rank()


def speaks() -> bool:
    """Return whether this process is the first of the run that it has just ended."""
    from torch import distributed

    return not (distributed.is_available() and distributed.is_initialized()) or distributed.get_rank() == 0


def note_run(path: str) -> None:
    """Tell the launcher's store the run directory, for processes that are started again after a failure."""
    store = _store()
    if store is not None:
        store.set(_fits[-1], path)


def _attempt() -> int:
    """Return how often torchrun has started this process again."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def _connect_again(config: RunConfig) -> bool:
    """Connect the processes of another attempt; return False where torchrun holds no store.

    Its store keeps the addresses of processes that ended, and torch would try those: each attempt needs its own names.
    """
    import torch
    from torch.distributed import PrefixStore  # type: ignore[attr-defined]  # it is there

    store = _store()
    if store is None:
        return False
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group(
            "nccl" if pick_device(config.device) == "cuda" else "gloo",
            store=PrefixStore(f"excite/attempt/{_attempt()}", store),
            rank=int(os.environ["RANK"]),
            world_size=int(os.environ["WORLD_SIZE"]),
        )
        atexit.register(torch.distributed.destroy_process_group)
    return True


def _earlier_attempt() -> str | None:
    """Return the run directory that this launch made before it started its processes again; None at its first start."""
    store = _store() if _attempt() else None
    if store is None or not store.check([_fits[-1]]):
        return None
    return bytes(store.get(_fits[-1])).decode()


def _store() -> "TCPStore | None":
    """Return the store that torchrun's agent holds; it outlives the processes. None where there is none."""
    if not by_torchrun() or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    from datetime import timedelta

    from torch.distributed import TCPStore  # type: ignore[attr-defined]  # it is there

    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return TCPStore(host, port, is_master=False, timeout=timedelta(seconds=WAIT))
