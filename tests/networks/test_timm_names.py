"""Our networks under timm's names: made, trained, read and cut into levels by timm and by what stands on it."""

import copy
import importlib.util
import shutil
import subprocess
import sys

import pytest
import torch
from torch import nn

import excite
from excite.backbones.names import all_names
from excite.errors import UsageError

timm = pytest.importorskip("timm")

import excite.timm as names  # noqa: E402

ONE = {"blocks_per_stage": "1,1,1,1"}


def test_every_network_is_registered_and_timms_own_stay() -> None:
    for name in all_names():
        assert timm.is_model(name), name
        assert timm.is_model(f"excite_{name}"), name
    assert "resnet50" not in names.NAMES
    assert type(timm.create_model("resnet18")).__module__ == "timm.models.resnet"
    assert type(timm.create_model("excite_resnet18")).__module__ == "excite.backbones.resnet"
    assert "emca_eca_resnet50" in timm.list_models("emca_*")


def test_importing_again_registers_nothing_new() -> None:
    assert names.register() == []


def test_a_network_as_timm_makes_it() -> None:
    torch.manual_seed(0)
    theirs = timm.create_model("eca_resnet18", num_classes=5, in_chans=1, drop_rate=0.1, drop_path_rate=0.1, **ONE)
    torch.manual_seed(0)
    ours = excite.create_model("eca_resnet18", num_classes=5, in_channels=1, drop_rate=0.1, drop_path_rate=0.1, **ONE)
    x = torch.randn(2, 1, 64, 64)
    assert torch.equal(theirs.eval()(x), ours.eval()(x))
    features = theirs.forward_features(x)
    assert features.shape == (2, 512, 2, 2)
    assert torch.equal(theirs.forward_head(features), theirs(x))
    assert theirs.pretrained_cfg["architecture"] == "eca_resnet18"
    config = timm.data.resolve_data_config({}, model=theirs)
    assert config["input_size"] == (1, 224, 224)
    assert config["mean"] == (0.485, 0.456, 0.406)


def test_levels_as_timm_asks_for_them() -> None:
    model = timm.create_model("emca_eca_resnet18", features_only=True, out_indices=(1, 4), **ONE).eval()
    maps = model(torch.randn(1, 3, 64, 64))
    assert model.feature_info.channels() == [x.shape[1] for x in maps] == [64, 512]
    assert model.feature_info.reduction() == [4, 32]
    dilated = timm.create_model("emca_eca_resnet18", features_only=True, output_stride=16, **ONE).eval()
    assert dilated.feature_info.reduction() == [2, 4, 8, 16, 16]


def test_optimizers_copies_and_a_step_of_training() -> None:
    from timm.optim import create_optimizer_v2
    from timm.utils import ModelEmaV3

    model = timm.create_model("emca_se_resnet18", num_classes=3, drop_path_rate=0.2, **ONE).train()
    model.set_grad_checkpointing(True)
    optimizer = create_optimizer_v2(model, opt="adamw", lr=1e-3, weight_decay=0.05, layer_decay=0.5)
    scales = {group["lr_scale"] for group in optimizer.param_groups}
    assert len(scales) == 2 + 4  # stem, blocks, classifier
    average = ModelEmaV3(model)
    before = copy.deepcopy(model.state_dict())
    loss = nn.functional.cross_entropy(model(torch.randn(4, 3, 64, 64)), torch.tensor([0, 1, 2, 0]))
    loss.backward()
    optimizer.step()
    average.update(model)
    assert any(not torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert average.module.forward_features(torch.randn(1, 3, 64, 64)).shape == (1, 512, 2, 2)


def test_there_are_no_weights_to_download() -> None:
    with pytest.raises(UsageError, match="no weights"):
        timm.create_model("eca_resnet18", pretrained=True)
    with pytest.raises(UsageError, match="no option 'kernel_sizes'"):
        timm.create_model("eca_resnet18", kernel_sizes=3)


def test_what_images_look_like_can_be_said_otherwise() -> None:
    model = timm.create_model("eca_resnet18", pretrained_cfg_overlay={"mean": (0.5, 0.5, 0.5)}, **ONE)
    assert timm.data.resolve_data_config({}, model=model)["mean"] == (0.5, 0.5, 0.5)


def test_excite_alone_imports_no_timm() -> None:
    code = "import sys, excite; excite.create_model('eca_resnet20'); assert 'timm' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


SEGMENTATION = """
import torch, excite.timm, segmentation_models_pytorch
for name in ("emca_eca_resnet18", "eca_mobilenet_v2", "se_resnet50"):
    for kind in ("Unet", "FPN", "DeepLabV3Plus"):
        network = getattr(segmentation_models_pytorch, kind)(f"tu-{name}", encoder_weights=None, classes=3).eval()
        with torch.inference_mode():
            assert network(torch.randn(1, 3, 64, 64)).shape == (1, 3, 64, 64), (name, kind)
network = segmentation_models_pytorch.Unet("tu-eca_resnet18", encoder_weights=None, in_channels=4, encoder_depth=4,
    decoder_channels=(64, 32, 16, 16))
network(torch.randn(2, 4, 64, 64)).mean().backward()
print("done")
"""


@pytest.mark.slow
def test_segmentation_networks_take_them() -> None:
    """segmentation_models_pytorch, no dependency: installed for this test, in a process of its own."""
    command = [sys.executable]
    if importlib.util.find_spec("segmentation_models_pytorch") is None:
        if shutil.which("uv") is None:
            pytest.skip("needs segmentation_models_pytorch, or uv to install it for this test")
        command = ["uv", "run", "--with", "segmentation_models_pytorch", "python"]
        probe = [*command, "-c", "import segmentation_models_pytorch"]
        if subprocess.run(probe, capture_output=True, check=False).returncode:
            pytest.skip("segmentation_models_pytorch cannot be installed here")
    done = subprocess.run([*command, "-c", SEGMENTATION], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == "done"
