"""A process that has imported everything, and forks one that runs a command, or dies in it, for every line it is told.

    {"start": ["train", ...], "root": folder, "kill_at": 7, "fsize": 1000, "log": file}   -> {"pid": 123}
    {"wait": 123, "seconds": 60}                                                          -> {"status": 0}

root: file operations below it are counted (not those of event files, which a thread writes) and listed in the log.
kill_at: the number of the one at which the process ends, as if the power went: a write is half done by then.
fsize: the largest file that may be written. plain_user: without root's powers over files.
status: exit code, less than zero for a signal, null for a time-out.
"""

import builtins
import ctypes
import io
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from typing import Any

DIED = 77


class Faults:
    """Counts the file operations below a folder, and ends the process at one of them."""

    def __init__(self, root: str, kill_at: int | None, log: str) -> None:
        self.root, self.kill_at, self.count = os.path.realpath(root), kill_at, 0
        self.log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

    def counts(self, path: Any) -> bool:
        if not isinstance(path, str | os.PathLike):
            return False
        full = os.path.realpath(os.path.dirname(os.path.abspath(path)))
        return (full + "/").startswith(self.root + "/") and "tensorboard" not in full

    def point(self, operation: str, path: Any) -> bool:
        """Count an operation; return whether the process ends here."""
        if not self.counts(path):
            return False
        self.count += 1
        os.write(self.log, f"{operation} {os.path.relpath(path, self.root)}\n".encode())
        return self.count == self.kill_at

    def install(self) -> None:
        faults = self

        class Counted(io.FileIO):
            def write(self, data: Any) -> int:
                if faults.point("write", self.name):
                    view = memoryview(data).cast("B")
                    super().write(view[: len(view) // 2])
                    os._exit(DIED)
                return super().write(data)

        plain_open = builtins.open

        def counted_open(
            file: Any, mode: str = "r", buffering: int = -1, encoding: Any = None, *rest: Any, **more: Any
        ):
            if not set(mode) & set("wax+") or not faults.counts(file):
                return plain_open(file, mode, buffering, encoding, *rest, **more)
            if faults.point("open", file):
                os._exit(DIED)
            raw = Counted(os.fspath(file), mode.replace("b", "").replace("t", ""))
            buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
            return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding or "utf-8", **more)

        builtins.open = io.open = counted_open  # type: ignore[assignment]

        def counted(module: Any, name: str) -> None:
            plain = getattr(module, name)

            def call(path: Any, *rest: Any, **more: Any) -> Any:
                named = os.readlink(f"/proc/self/fd/{path}") if isinstance(path, int) else path
                if faults.point(name, named):
                    os._exit(DIED)
                return plain(path, *rest, **more)

            setattr(module, name, call)

        for name in ("fsync", "replace", "rename", "unlink", "remove", "rmdir", "mkdir", "link", "symlink", "truncate"):
            counted(os, name)
        counted(shutil, "copyfile")


def drop_capabilities() -> None:
    """Let the modes of files hold for root too, who else may read and write everything. Others have nothing to drop."""
    version_3 = 0x20080522
    header, none = (ctypes.c_uint32 * 2)(version_3, 0), (ctypes.c_uint32 * 6)()
    if os.getuid() == 0 and ctypes.CDLL(None, use_errno=True).capset(header, none):
        raise OSError(ctypes.get_errno(), "capset")


def run(request: dict[str, Any]) -> int:
    from excite.cli.main import main

    output = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    if "plain_user" in request:
        drop_capabilities()
    if "fsize" in request:
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["fsize"],) * 2)
    if "root" in request:
        Faults(request["root"], request.get("kill_at"), request["log"]).install()
    os.chdir(request["folder"])
    try:
        return main(request["start"])
    except BaseException:
        import traceback

        traceback.print_exc()
        return 70  # what no command returns
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def wait(pid: int, seconds: float) -> int | None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    return None


def serve() -> None:
    os.environ["MPLBACKEND"] = "Agg"
    import lightning
    import torch

    import excite.cli.compare
    import excite.cli.detect_train
    import excite.cli.shards
    import excite.cli.train
    import excite.comparison.experiment
    import excite.data.shards
    import excite.detect.fit
    import excite.engine.history
    import excite.train.fit
    from excite.cli.main import main
    from excite.common.files import write_bytes
    from excite.ops import kernels_on

    torch.set_num_threads(1)
    kernels_on("cpu")
    # Pictures and timings take longer than the whole run; they are written as they would be.
    excite.engine.history.draw_curves = lambda rows, panels, path: write_bytes(path, b"a picture")
    excite.comparison.experiment.draw = lambda results, folder: [write_bytes(folder / "bubbles.png", b"a picture")]
    measure = excite.comparison.cost.measure
    excite.comparison.cost.measure = lambda *plan: measure(*plan, batch=2, rounds=3, min_time=0.001)
    with tempfile.TemporaryDirectory() as folder:  # a first run imports what is imported on use
        options = ["--limit-train", "16", "--limit-val", "10", "--batch-size", "8", "--quiet", "--device", "cpu"]
        main(["train", "resnet20", "--options.width", "4", "--epochs", "1", *options, "--out", f"{folder}/run"])
    print(json.dumps({"ready": lightning.__version__}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if "start" in request:
            pid = os.fork()
            if not pid:
                os.close(0)
                signal.signal(signal.SIGINT, signal.default_int_handler)
                os._exit(run(request))
            print(json.dumps({"pid": pid}), flush=True)
        else:
            print(json.dumps({"status": wait(request["wait"], request["seconds"])}), flush=True)


if __name__ == "__main__":
    sys.path.pop(0)  # this folder
    serve()
