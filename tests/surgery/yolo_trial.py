"""What ultralytics' YOLO does with attention attached; run as a script, prints one line of JSON. Needs ultralytics."""

import json
import os
import sys
from pathlib import Path

WORK = Path(sys.argv[1])
os.environ |= {"YOLO_CONFIG_DIR": str(WORK), "YOLO_OFFLINE": "True"}

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from ultralytics import YOLO  # noqa: E402
from ultralytics.models.yolo.detect import DetectionTrainer  # noqa: E402

import excite  # noqa: E402


class Trainer(DetectionTrainer):
    """ultralytics builds the network that it trains; so the attention is attached where it does."""

    def get_model(self, *args: object, **kwargs: object) -> torch.nn.Module:
        model = super().get_model(*args, **kwargs)
        excite.attach(model, "coord", sites="yolo-neck", input_size=(3, 64, 64))
        return model


def data() -> Path:
    """Four pictures of noise with one box each."""
    for folder in ("images/all", "labels/all"):
        (WORK / folder).mkdir(parents=True)
    generator = np.random.default_rng(0)
    for i in range(4):
        cv2.imwrite(str(WORK / f"images/all/{i}.png"), generator.integers(0, 255, (64, 64, 3), dtype=np.uint8))
        (WORK / f"labels/all/{i}.txt").write_text("0 0.5 0.5 0.4 0.4\n")
    file = WORK / "data.yaml"
    file.write_text(f"path: {WORK}\ntrain: images/all\nval: images/all\nnames: {{0: thing}}\n")
    return file


def attention_keys(model: torch.nn.Module) -> int:
    """How many tensors of the state dict are of attached attention."""
    return sum(".attention." in key for key in model.state_dict())


@torch.no_grad()
def main() -> dict[str, object]:
    """Attach, load, train, fuse, detach and export."""
    x = torch.rand(1, 3, 64, 64)
    result: dict[str, object] = {}
    for name in ("yolov5n", "yolov8n", "yolo11n"):
        model = YOLO(f"{name}.yaml").model.eval()
        before, file = model(x)[0], {k: v.clone() for k, v in model.state_dict().items()}
        report = excite.attach(model, "eca", sites=["yolo-backbone", "yolo-neck"], input_size=(3, 64, 64))
        kept = model.load_state_dict(file)
        attended = model(x)[0]
        excite.detach(model)
        result[name] = {
            "sites": [s.path for s in report.sites],
            "host keys kept": report.kept_tensors == len(file) and not kept.missing_keys,
            "changes": not torch.equal(attended, before),
            "detached": torch.equal(model(x)[0], before),
        }
    with torch.enable_grad():
        YOLO("yolov8n.yaml").train(
            trainer=Trainer, data=str(data()), epochs=1, imgsz=64, batch=2, workers=0, device="cpu", plots=False,
            val=False, project=str(WORK / "runs"), name="t", amp=False, optimizer="SGD", mosaic=0,
        )  # fmt: skip
    last = WORK / "runs" / "t" / "weights" / "last.pt"
    trained = YOLO(last).model.float().eval()
    output, count = trained(x)[0], attention_keys(trained)
    fused = YOLO(last).model.float().eval().fuse(verbose=False)
    result["trained"] = {
        "attention keys": count,
        "fused keys": attention_keys(fused),
        "fused error": float((fused(x)[0] - output).abs().max() / output.abs().max()),
    }
    exported = YOLO(last).export(format="torchscript", imgsz=64)
    result["exported error"] = float((torch.jit.load(exported)(x)[0] - fused(x)[0]).abs().max() / output.abs().max())
    excite.detach(trained)
    result["attention matters"] = not torch.equal(trained(x)[0], output)
    return result


if __name__ == "__main__":
    print("\n" + json.dumps(main()))
