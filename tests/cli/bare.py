"""Use the package as `pip install excite` leaves it: without the libraries of any extra. Run as a program.

python bare.py FOLDER        where they are not installed
python bare.py FOLDER hide   where they are: imports of them fail
"""

import contextlib
import io
import json
import sys
from pathlib import Path

folder = Path(sys.argv[1])
if "hide" in sys.argv:
    from excite.common.extras import EXTRA_OF

    sys.modules.update(dict.fromkeys(EXTRA_OF))

import torch  # noqa: E402
from PIL import Image  # noqa: E402
from torch import nn  # noqa: E402

import excite  # noqa: E402
from excite.checkpoints import save_bundle  # noqa: E402
from excite.cli.main import main  # noqa: E402
from excite.models import describe  # noqa: E402


def library() -> dict[str, object]:
    """What works in Python."""
    x = torch.randn(2, 8, 5, 5)
    attention = excite.create_attention("eca", 8)
    model = excite.create_model("se_resnet20", num_classes=3).eval()
    own = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    report = excite.attach(own, "eca", input_size=(3, 16, 16), sites="0")
    file = folder / "model.safetensors"
    describe(model, preprocess={"size": 32, "resize": 32, "mean": [0.5] * 3, "std": [0.25] * 3})
    save_bundle(file, model)
    imported, _ = excite.import_checkpoint(file)
    image = torch.randn(1, 3, 32, 32)
    missing = ""
    try:
        excite.create_model("timm/resnet18")
    except excite.UsageError as error:
        missing = str(error)
    return {
        "attention": list(attention(x).shape),
        "attached": len(report.sites) if hasattr(report, "sites") else str(report),
        "imported": torch.equal(imported.eval()(image), model(image)),
        "timm": missing,
    }


def command(*argv: str) -> list:
    """Return (exit code, what it said last) of a command."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(list(argv))
    return [code, err.getvalue().strip()]


def commands() -> dict[str, list]:
    """Every command, and what needs which extra."""
    model, picture = str(folder / "model.safetensors"), str(folder / "picture.png")
    Image.new("RGB", (32, 32)).save(picture)
    quick = ["--size", "32", "--rounds", "3", "--min-time", "0"]
    lines = {
        "list": ["list"],
        "show eca": ["show", "eca"],
        "show svg": ["show", "eca", "--svg", str(folder / "eca.svg")],
        "env": ["env"],
        "completion": ["completion", "bash"],
        "profile": ["profile", "eca_resnet20", "--size", "32"],
        "tables": ["tables", "senet"],
        "bench": ["bench", "eca_resnet20", *quick, "--task", "latency"],
        "import": ["import", model],
        "predict": ["predict", model, picture],
        "export": ["export", model, "--format", "torch-export", "-o", str(folder / "model.pt2")],
        "train": ["train", "--out", str(folder / "run")],
        "train help": ["train", "--help"],
        "test": ["test", model, "--data", "digits"],
        "compare": ["compare", "--out", str(folder / "compare")],
        "detect train": ["detect", "train", "--out", str(folder / "detector")],
        "detect test": ["detect", "test", model],
        "detect predict": ["detect", "predict", model, picture],
        "explain": ["explain", model, picture, "--out", str(folder / "explained")],
        "robustness": ["robustness", model, "--data", "digits", "--out", str(folder / "robust")],
        "demo": ["demo", model, "--port", "0"],
        "export onnx": ["export", model, "-o", str(folder / "model.onnx")],
        "export openvino": ["export", model, "--format", "openvino", "-o", str(folder / "model.xml")],
        "bench onnxruntime": ["bench", "eca_resnet20", *quick, "--engine", "onnxruntime"],
        "bench plot": ["bench", "eca_resnet20", *quick, "--task", "latency", "--plot", str(folder / "p.png")],
        "profile timm": ["profile", "timm/resnet18"],
    }
    return {name: command(*argv) for name, argv in lines.items()}


if __name__ == "__main__":
    print(json.dumps({"library": library(), "commands": commands()}))
