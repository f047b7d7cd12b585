"""This needs an extra: which library comes with which, what to say where it is missing, and what it may not send."""

import os
from importlib.util import find_spec

from excite.errors import UsageError

# Everything that is not in the core, by the extras of pyproject.toml; the first that has a library is the one to name.
EXTRAS: dict[str, tuple[str, ...]] = {
    "train": ("lightning", "torchmetrics", "tensorboard", "sklearn", "scipy", "matplotlib", "pyarrow"),
    "detect": ("faster_coco_eval", "pycocotools"),
    "timm": ("timm", "huggingface_hub"),
    "explain": ("captum",),
    "robustness": ("kornia",),
    "export": ("onnx", "onnxruntime", "onnxscript", "openvino", "nncf"),
    "hf": ("datasets",),
    "wds": ("webdataset", "fsspec", "aiohttp"),
    "jpeg": ("simplejpeg",),
    "ray": ("ray",),
    "demo": ("fastapi", "gradio", "starlette", "uvicorn"),
    "trackers": ("alembic", "mlflow", "sqlalchemy", "sqlparse", "wandb"),
}
# Libraries that report their use to their makers; these settings stop it. OpenVINO's reader of files reports nothing,
# its `convert_model` does and has no such setting: excite does not call it.
SILENCED: dict[str, dict[str, str]] = {
    "datasets": {"HF_HUB_DISABLE_TELEMETRY": "1"},
    "gradio": {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"},
    "huggingface_hub": {"HF_HUB_DISABLE_TELEMETRY": "1"},
    "mlflow": {"MLFLOW_DISABLE_TELEMETRY": "true"},
    "nncf": {"NNCF_CI": "1"},
    "ray": {"RAY_USAGE_STATS_ENABLED": "0"},
    "timm": {"HF_HUB_DISABLE_TELEMETRY": "1"},
}
EXTRA_OF = {module: extra for extra, modules in EXTRAS.items() for module in modules}


class MissingLibraryError(UsageError):
    """A library of an extra is not installed; the message says how to install it."""


def require(*modules: str) -> None:
    """Raise MissingLibraryError for the first of these libraries that is not installed. Imports nothing.

    To be called before their import: it keeps them from reporting their use, unless the environment says otherwise.
    """
    for module in modules:
        if find_spec(module) is None:
            raise missing(module)
        for name, value in SILENCED.get(module, {}).items():
            os.environ.setdefault(name, value)


def missing(module: str) -> MissingLibraryError:
    """Return the error for a library of an extra that is not there."""
    return MissingLibraryError(f"this needs {module}: pip install 'excite[{EXTRA_OF[module]}]'")


def explain(error: ModuleNotFoundError) -> MissingLibraryError | None:
    """Return the error to show where an import failed for want of an extra, else None."""
    module = (error.name or "").partition(".")[0]
    return missing(module) if module in EXTRA_OF else None
