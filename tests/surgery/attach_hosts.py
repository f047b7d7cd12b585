"""Networks to attach to: small members of the families of torchvision and timm, and a few of our own making."""

import timm
import torch
import torchvision
from torch import nn

# name -> input size of the forward pass in the tests
TORCHVISION = {
    "resnet18": 64, "resnext50_32x4d": 64, "wide_resnet50_2": 32, "regnet_y_400mf": 64, "regnet_x_400mf": 64,
    "mobilenet_v2": 64, "mobilenet_v3_small": 64, "efficientnet_b0": 64, "convnext_tiny": 64, "mnasnet0_5": 64,
    "shufflenet_v2_x0_5": 64, "densenet121": 64, "squeezenet1_1": 64, "googlenet": 64,
}  # fmt: skip
TIMM = {
    "resnet10t": 64, "resnet26d": 64, "seresnet18": 64, "resnetv2_18": 64, "regnety_002": 64,
    "mobilenetv2_035": 64, "mobilenetv3_small_050": 64, "convnext_atto": 64,
    "convnextv2_atto": 64, "tinynet_e": 64, "resnest14d": 64,
}  # fmt: skip
MORE = {
    "dla34": 64, "hrnet_w18_small": 64, "cspresnet50": 64, "darknet53": 64, "repvgg_a0": 64, "ghostnet_050": 64,
    "nf_regnet_b0": 64, "poolformer_s12": 64, "edgenext_xx_small": 64, "fasternet_t0": 64, "starnet_s1": 64,
    "rexnet_100": 64, "gernet_s": 64, "dpn48b": 64, "lcnet_035": 64, "mixnet_s": 64, "resnet50_gn": 64,
    "skresnet18": 64, "densenet121": 64, "mobilenetv4_conv_small_035": 64, "nfnet_l0": 64, "xception41p": 64,
    "res2net50_26w_4s": 64, "efficientnet_lite0": 64, "regnetx_002": 64, "mnasnet_small": 64,
}  # fmt: skip


def enliven(model: nn.Module) -> nn.Module:
    """Give norms and layer scales other values than 0 and 1, so that every branch matters."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine:
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.running_mean.normal_(0, 0.1, generator=generator)
        for name, value in model.named_parameters():
            # The weights of EMCA's scales start alike: their order would not matter.
            if any(part in name for part in ("gamma", "layer_scale", "skipinit_gain", "fusion.weight")):
                value.uniform_(0.5, 1.0, generator=generator)
    return model


def build(name: str) -> nn.Module:
    """Build "timm/NAME" or "torchvision/NAME" with 10 classes, in eval mode."""
    torch.manual_seed(0)
    source, _, which = name.partition("/")
    if source == "timm":
        return enliven(timm.create_model(which, num_classes=10)).eval()
    options = {"aux_logits": False, "init_weights": False} if which == "googlenet" else {}
    return enliven(torchvision.models.get_model(which, weights=None, num_classes=10, **options)).eval()


class Vgg(nn.Module):
    """VGG-11 with batch norm and a small head."""

    def __init__(self) -> None:
        super().__init__()
        self.features = torchvision.models.vgg.make_layers([64, "M", 128, "M", 256, 256, "M", 512, 512, "M"], True)
        self.head = nn.Linear(512, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(x).mean((2, 3)))


class Plain(nn.Module):
    """A plain network as people write them: one activation and one pool used again and again."""

    def __init__(self, dims: int = 2) -> None:
        super().__init__()
        conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
        self.pool = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)[dims - 1](2)
        self.conv1, self.conv2 = conv(3, 8, 3, padding=1), conv(8, 16, 3, padding=1)
        self.relu = nn.ReLU()
        self.head = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(self.relu(self.conv1(x)))
        x = self.pool(self.relu(self.conv2(x)))
        return self.head(x.flatten(2).mean(2))


class Block(nn.Module):
    """A residual block in one, two or three dimensions, layer scale as a bare parameter."""

    def __init__(self, channels: int, dims: int) -> None:
        super().__init__()
        conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
        norm = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[dims - 1]
        self.body = nn.Sequential(conv(channels, channels, 3, padding=1), norm(channels), nn.ReLU(inplace=True))
        self.last = conv(channels, channels, 3, padding=1)
        self.scale = nn.Parameter(torch.full((channels, *[1] * dims), 0.7))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.scale * self.last(self.body(x)))


class Residual(nn.Module):
    """Two stages of two residual blocks, functions between them, in one, two or three dimensions."""

    def __init__(self, dims: int = 2, width: int = 8) -> None:
        super().__init__()
        conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
        self.stem = conv(2, width, 3, padding=1)
        self.first = nn.Sequential(Block(width, dims), Block(width, dims))
        self.down = conv(width, 2 * width, 2, stride=2)
        self.second = nn.Sequential(Block(2 * width, dims), Block(2 * width, dims))
        self.head = nn.Linear(2 * width, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.second(self.down(self.first(self.stem(x))))
        return self.head(x.flatten(2).mean(2))
