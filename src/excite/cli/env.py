"""`excite env`: what a bug report should say about the machine."""

import importlib.metadata
import json as json_
import os
import platform
import re
import sys

from excite.common.extras import EXTRAS


def env(*, json: bool = False) -> None:
    """Print versions, processor, GPU, kernels and extras, to be pasted into a bug report.

    No names of files, users or machines are in it.

    Args:
        json: print JSON.

    Examples:
        excite env
        excite env --json
    """
    facts = facts_of_this_machine()
    if json:
        print(json_.dumps(facts, indent=2))
        return
    width = max(map(len, facts)) + 2
    for name, value in facts.items():
        print(f"{name:<{width}}{value}")


def facts_of_this_machine() -> dict[str, str]:
    """Return what a bug report should say, in words, by name."""
    import torch

    from excite.measure.bench.environment import processor
    from excite.ops import kernels_on

    device = "cuda" if torch.cuda.is_available() else "cpu"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    facts = {
        "excite": importlib.metadata.version("excite"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": f"{processor()}, {cores} core{'s' * (cores != 1)}, {torch.get_num_threads()} for torch",
        "gpu": torch.cuda.get_device_name() if device == "cuda" else "none",
        "cuda": f"{torch.version.cuda or 'none'} (built for)",
        "kernels": str(kernels_on(device)),
        "torch": torch.__version__,
    }
    installed = {extra: versions(modules) for extra, modules in EXTRAS.items()}
    facts["torchvision"] = versions(("torchvision",))["torchvision"]
    for extra, found in installed.items():
        absent = [name for name, version in found.items() if not version]
        words = ", ".join(f"{name} {version}" for name, version in found.items() if version)
        facts[f"[{extra}]"] = words + (f" (absent: {', '.join(absent)})" if absent and words else "") or "not installed"
    tuned = {name: value for name, value in sorted(os.environ.items()) if re.match(r"(EXCITE|OMP|MKL|KMP)_", name)}
    facts["settings"] = " ".join(f"{n}={v}" for n, v in tuned.items() if "/" not in v and "\\" not in v) or "none"
    facts["in a terminal"] = "yes" if sys.stdout.isatty() else "no"
    return facts


def versions(modules: tuple[str, ...]) -> dict[str, str]:
    """Return the version of each library by the name of its module, "" where it is not installed."""
    names = {"sklearn": "scikit-learn", "mlflow": "mlflow-skinny"}
    found = {}
    for module in modules:
        try:
            found[module] = importlib.metadata.version(names.get(module, module.replace("_", "-")))
        except importlib.metadata.PackageNotFoundError:
            found[module] = ""
    return found
