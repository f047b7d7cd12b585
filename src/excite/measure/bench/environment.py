"""Where a number was measured: without this it means nothing."""

import datetime
import importlib.metadata
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Any: texts and numbers by name.

PACKAGES = ("excite", "torch", "torchvision", "timm", "numpy", "onnxruntime", "openvino")


def processor() -> str:
    """Return the processor's name."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Return the versions of the packages that matter to speed, where installed."""
    installed = {}
    for name in PACKAGES:
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed


def environment(device: str = "cpu") -> dict[str, Any]:
    """Return date, processor, cores, threads, load, accelerator, precision switches and versions."""
    import torch

    from excite.ops import kernels_on

    values: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_before": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "device": device,
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "fused_kernels": kernels_on(device),
        "versions": versions(),
    }
    if device.startswith("cuda"):
        values["gpu"] = torch.cuda.get_device_name()
        values["cuda"] = torch.version.cuda
        values["cudnn"] = torch.backends.cudnn.version()
        values["tf32"] = {"matmul": torch.backends.cuda.matmul.allow_tf32, "cudnn": torch.backends.cudnn.allow_tf32}
    return values


def in_words(values: Mapping[str, object]) -> str:
    """Return the environment in a few words."""
    if "gpu" in values:
        return str(values["gpu"])
    threads = values["threads"]
    return f"{values['processor']}, {threads} thread{'s' if threads != 1 else ''}"
