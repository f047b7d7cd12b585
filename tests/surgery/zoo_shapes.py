"""Networks as people write them, one for each shape of graph that surgery must read."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def unit(c: int, k: int, kernel: int = 3, stride: int = 1, act: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """A convolution with its norm and activation."""
    return nn.Sequential(nn.Conv2d(c, k, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(k), act())


class DoubleConv(nn.Module):
    """Two units."""

    def __init__(self, c: int, k: int) -> None:
        super().__init__()
        self.body = nn.Sequential(unit(c, k), unit(k, k))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class Up(nn.Module):
    """Enlarge, join the skip, convolve."""

    def __init__(self, c: int, k: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(c, k, 2, stride=2)
        self.conv = DoubleConv(2 * k, k)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.conv(torch.cat([skip, self.up(x)], 1))


class UNet(nn.Module):
    """U-Net of three sizes, whose last convolution makes the logits."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.inc = DoubleConv(3, width)
        self.pool = nn.MaxPool2d(2)
        self.down1, self.down2 = DoubleConv(width, 2 * width), DoubleConv(2 * width, 4 * width)
        self.up1, self.up2 = Up(4 * width, 2 * width), Up(2 * width, width)
        self.outc = nn.Conv2d(width, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.inc(x)
        b = self.down1(self.pool(a))
        c = self.down2(self.pool(b))
        return self.outc(self.up2(self.up1(c, b), a))


class ResUNet(nn.Module):
    """A U-Net of residual blocks that adds its skips and enlarges by interpolation."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.stem = unit(3, width)
        self.enc1, self.enc2 = ResBlock(width, width), ResBlock(width, width)
        self.down = unit(width, width, stride=2)
        self.dec = ResBlock(width, width)
        self.head = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.enc1(self.stem(x))
        b = self.enc2(self.down(a))
        return self.head(self.dec(a + F.interpolate(b, scale_factor=2.0)))


class ResBlock(nn.Module):
    """A basic block."""

    def __init__(self, c: int, k: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(c, k, 3, stride, 1, bias=False), nn.BatchNorm2d(k)
        self.conv2, self.bn2 = nn.Conv2d(k, k, 3, 1, 1, bias=False), nn.BatchNorm2d(k)
        same = c == k and stride == 1
        self.short = nn.Identity() if same else nn.Sequential(nn.Conv2d(c, k, 1, stride), nn.BatchNorm2d(k))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.short(x))


class Bottleneck(nn.Module):
    """YOLO's bottleneck, with its shortcut or without."""

    def __init__(self, c: int, shortcut: bool = True) -> None:
        super().__init__()
        self.cv1, self.cv2, self.add = unit(c, c, act=nn.SiLU), unit(c, c, act=nn.SiLU), shortcut

    def forward(self, x: Tensor) -> Tensor:
        y = self.cv2(self.cv1(x))
        return x + y if self.add else y


class C3(nn.Module):
    """CSP bottleneck with three convolutions."""

    def __init__(self, c: int, n: int = 1, shortcut: bool = True) -> None:
        super().__init__()
        h = c // 2
        self.cv1, self.cv2, self.cv3 = unit(c, h, 1), unit(c, h, 1), unit(2 * h, c, 1)
        self.m = nn.Sequential(*(Bottleneck(h, shortcut) for _ in range(n)))

    def forward(self, x: Tensor) -> Tensor:
        return self.cv3(torch.cat((self.m(self.cv1(x)), self.cv2(x)), 1))


class C2f(nn.Module):
    """CSP bottleneck that keeps every step."""

    def __init__(self, c: int, n: int = 1, shortcut: bool = True) -> None:
        super().__init__()
        h = c // 2
        self.cv1, self.cv2 = unit(c, 2 * h, 1), unit((2 + n) * h, c, 1)
        self.m = nn.ModuleList(Bottleneck(h, shortcut) for _ in range(n))

    def forward(self, x: Tensor) -> Tensor:
        maps = list(self.cv1(x).chunk(2, 1))
        for block in self.m:
            maps.append(block(maps[-1]))
        return self.cv2(torch.cat(maps, 1))


class SPPF(nn.Module):
    """Pyramid pooling by one pool used three times."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.cv1, self.cv2, self.pool = unit(c, c // 2, 1), unit(2 * c, c, 1), nn.MaxPool2d(5, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        a = self.cv1(x)
        b = self.pool(a)
        c = self.pool(b)
        return self.cv2(torch.cat((a, b, c, self.pool(c)), 1))


class Csp(nn.Module):
    """A CSP classifier: C3, C2f and SPPF."""

    def __init__(self, shortcut: bool = True) -> None:
        super().__init__()
        self.stem = unit(3, 16, stride=2)
        self.down1, self.c3 = unit(16, 16, stride=2), C3(16, 2, shortcut)
        self.down2, self.c2f = unit(16, 32, stride=2), C2f(32, 2, shortcut)
        self.sppf = SPPF(32)
        self.head = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.c3(self.down1(self.stem(x)))
        return self.head(self.sppf(self.c2f(self.down2(x))).mean((2, 3)))


class Yolo(nn.Module):
    """A small detector: CSP backbone, neck up and down, three heads."""

    def __init__(self) -> None:
        super().__init__()
        self.p2, self.p3 = (
            nn.Sequential(unit(3, 8, stride=2), unit(8, 16, stride=2)),
            nn.Sequential(unit(16, 16, stride=2), C2f(16)),
        )
        self.p4 = nn.Sequential(unit(16, 32, stride=2), C2f(32))
        self.p5 = nn.Sequential(unit(32, 32, stride=2), C2f(32), SPPF(32))
        self.up4, self.up3 = C3Reduce(64, 32), C3Reduce(48, 16)
        self.down4, self.n4 = unit(16, 16, stride=2), C3Reduce(48, 32)
        self.down5, self.n5 = unit(32, 32, stride=2), C3Reduce(64, 32)
        self.heads = nn.ModuleList(nn.Conv2d(c, 6, 1) for c in (16, 32, 32))

    def forward(self, x: Tensor) -> list[Tensor]:
        p3 = self.p3(self.p2(x))
        p4 = self.p4(p3)
        p5 = self.p5(p4)
        n4 = self.up4(torch.cat((F.interpolate(p5, scale_factor=2.0), p4), 1))
        n3 = self.up3(torch.cat((F.interpolate(n4, scale_factor=2.0), p3), 1))
        m4 = self.n4(torch.cat((self.down4(n3), n4), 1))
        m5 = self.n5(torch.cat((self.down5(m4), p5), 1))
        return [head(m) for head, m in zip(self.heads, (n3, m4, m5), strict=True)]


class C3Reduce(nn.Module):
    """C2f without shortcuts, behind a join."""

    def __init__(self, c: int, k: int) -> None:
        super().__init__()
        self.enter, self.body = unit(c, k, 1), C2f(k, 1, False)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self.enter(x))


class Gated(nn.Module):
    """WaveNet's layer: a gated dilated convolution, a residual and a skip output."""

    def __init__(self, c: int, dilation: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(c, 2 * c, 3, padding=dilation, dilation=dilation)
        self.res, self.skip = nn.Conv1d(c, c, 1), nn.Conv1d(c, c, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        a, b = self.conv(x).chunk(2, 1)
        z = torch.tanh(a) * torch.sigmoid(b)
        return x + self.res(z), self.skip(z)


class WaveNet(nn.Module):
    """Layers whose skip outputs are summed."""

    def __init__(self, layers: int = 4, width: int = 8) -> None:
        super().__init__()
        self.start = nn.Conv1d(1, width, 1)
        self.layers = nn.ModuleList(Gated(width, 2**i) for i in range(layers))
        self.end1, self.end2 = nn.Conv1d(width, width, 1), nn.Conv1d(width, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.start(x)
        total: Tensor | None = None
        for layer in self.layers:
            x, skip = layer(x)
            total = skip if total is None else total + skip
        assert total is not None
        return self.end2(F.relu(self.end1(F.relu(total))))


class DenseBlock(nn.Module):
    """RRDB's residual dense block."""

    def __init__(self, c: int, g: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(c + i * g, c if i == 4 else g, 3, padding=1) for i in range(5))

    def forward(self, x: Tensor) -> Tensor:
        maps = [x]
        for i, conv in enumerate(self.convs):
            y = conv(torch.cat(maps, 1))
            maps.append(y if i == 4 else F.leaky_relu(y, 0.2))
        return x + 0.2 * maps[-1]


class Rrdb(nn.Module):
    """Residual in residual."""

    def __init__(self, c: int, g: int) -> None:
        super().__init__()
        self.rdb1, self.rdb2, self.rdb3 = DenseBlock(c, g), DenseBlock(c, g), DenseBlock(c, g)

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.2 * self.rdb3(self.rdb2(self.rdb1(x)))


class Esrgan(nn.Module):
    """Super-resolution by two RRDB blocks."""

    def __init__(self, c: int = 8) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, c, 3, padding=1)
        self.body = nn.Sequential(Rrdb(c, 4), Rrdb(c, 4))
        self.join = nn.Conv2d(c, c, 3, padding=1)
        self.up, self.last = nn.Conv2d(c, 4 * c, 3, padding=1), nn.Conv2d(c, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x = x + self.join(self.body(x))
        return self.last(F.pixel_shuffle(self.up(x), 2))


class Encoder(nn.Module):
    """Two residual blocks and a projection."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.stem, self.block1, self.block2 = unit(3, width), ResBlock(width, width), ResBlock(width, 2 * width, 2)
        self.head = nn.Linear(2 * width, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block2(self.block1(self.stem(x))).mean((2, 3)))


class Siamese(nn.Module):
    """One encoder for two pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return (self.encoder(a) - self.encoder(b)).norm(dim=1)


class SiameseOneInput(Siamese):
    """The same where the pictures are the halves of one tensor."""

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        a, b = x.chunk(2, 3)
        return super().forward(a, b)


class TwoInputs(nn.Module):
    """A picture and a vector of measurements."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.meta = Encoder(), nn.Linear(3, 4)

    def forward(self, image: Tensor, meta: Tensor) -> Tensor:
        return self.encoder(image) + self.meta(meta)


class DictInput(TwoInputs):
    """The same from one dict."""

    def forward(self, batch: dict[str, Tensor]) -> Tensor:  # type: ignore[override]
        return super().forward(batch["image"], batch["meta"])


class DictOutput(nn.Module):
    """Features by name, as detection backbones return them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.layer1, self.layer2 = unit(3, 8), ResBlock(8, 8), ResBlock(8, 16, 2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        a = self.layer1(self.stem(x))
        return {"low": a, "high": self.layer2(a)}


class TrainOnly(Encoder):
    """An auxiliary head that runs in training only."""

    def __init__(self) -> None:
        super().__init__()
        self.aux = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))

    def forward(self, x: Tensor) -> Tensor:
        a = self.block1(self.stem(x))
        y = self.head(self.block2(a).mean((2, 3)))
        return y + 0 * self.aux(a) if self.training else y


class DataDependent(Encoder):
    """A block that runs for bright pictures only."""

    def __init__(self) -> None:
        super().__init__()
        self.bright = ResBlock(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        a = self.block1(self.stem(x))
        if x.mean() > 0.5:
            a = self.bright(a)
        return self.head(self.block2(a).mean((2, 3)))


class Recalibration(nn.Module):
    """Squeeze and excitation under a name of its own, written with functions."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.reduce, self.expand = nn.Linear(c, c // 2), nn.Linear(c // 2, c)

    def forward(self, x: Tensor) -> Tensor:
        w = self.expand(F.relu(self.reduce(x.mean((2, 3)))))
        return x * torch.sigmoid(w)[:, :, None, None]


class UnknownAttention(Encoder):
    """Residual blocks behind an attention that no list knows."""

    def __init__(self) -> None:
        super().__init__()
        self.weigh = Recalibration(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block2(self.weigh(self.block1(self.stem(x)))).mean((2, 3)))


class RepBlock(nn.Module):
    """RepVGG's block, that folds its branches into one convolution."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.wide = nn.Sequential(nn.Conv2d(c, c, 3, padding=1, bias=False), nn.BatchNorm2d(c))
        self.narrow = nn.Sequential(nn.Conv2d(c, c, 1, bias=False), nn.BatchNorm2d(c))
        self.identity = nn.BatchNorm2d(c)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.wide(x) + self.narrow(x) + self.identity(x))


class RepNet(nn.Module):
    """Parallel branches of one convolution, twice per size."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = unit(3, 8)
        self.blocks1, self.down = nn.Sequential(RepBlock(8), RepBlock(8)), unit(8, 16, stride=2)
        self.blocks2, self.head = nn.Sequential(RepBlock(16), RepBlock(16)), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks2(self.down(self.blocks1(self.stem(x)))).mean((2, 3)))


class Functional(nn.Module):
    """Residual sums and an outer shortcut, all in one forward (EDSR)."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, 3, 3, padding=1)
        self.a = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(3))
        self.b = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        y = x
        for a, b in zip(self.a, self.b, strict=True):
            y = y + b(F.relu(a(y)))
        return self.last(x + y)


class Audio(nn.Module):
    """1-D residual network for raw sound (M5 with shortcuts)."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv1d(1, width, 15, 4, 7), nn.BatchNorm1d(width), nn.ReLU())
        self.conv = nn.ModuleList(nn.Conv1d(width, width, 3, padding=1, bias=False) for _ in range(3))
        self.norm = nn.ModuleList(nn.BatchNorm1d(width) for _ in range(3))
        self.pool, self.head = nn.MaxPool1d(4), nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for conv, norm in zip(self.conv, self.norm, strict=True):
            x = self.pool(F.relu(x + norm(conv(x))))
        return self.head(x.mean(2))


class Volume(nn.Module):
    """3-D U-Net of two sizes."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()

        def unit3(c: int, k: int) -> nn.Sequential:
            return nn.Sequential(nn.Conv3d(c, k, 3, padding=1), nn.InstanceNorm3d(k), nn.LeakyReLU())

        self.enc, self.mid, self.dec = unit3(1, width), unit3(width, 2 * width), unit3(3 * width, width)
        self.out = nn.Conv3d(width, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.enc(x)
        b = self.mid(F.max_pool3d(a, 2))
        return self.out(self.dec(torch.cat((a, F.interpolate(b, scale_factor=2.0)), 1)))


class Fpn(nn.Module):
    """A residual body, lateral convolutions and a top-down way."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = unit(3, 8, stride=2)
        self.c2, self.c3, self.c4 = ResBlock(8, 8), ResBlock(8, 16, 2), ResBlock(16, 32, 2)
        self.lateral = nn.ModuleList(nn.Conv2d(c, 8, 1) for c in (8, 16, 32))
        self.smooth = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(3))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        c2 = self.c2(self.stem(x))
        c3 = self.c3(c2)
        c4 = self.c4(c3)
        p4 = self.lateral[2](c4)
        p3 = self.lateral[1](c3) + F.interpolate(p4, scale_factor=2.0)
        p2 = self.lateral[0](c2) + F.interpolate(p3, scale_factor=2.0)
        return {f"p{i + 2}": conv(p) for i, (conv, p) in enumerate(zip(self.smooth, (p2, p3, p4), strict=True))}


class Hourglass(nn.Module):
    """One hourglass: down, up, and the sum with the way around it."""

    def __init__(self, c: int = 8) -> None:
        super().__init__()
        self.stem, self.skip = unit(3, c), ResBlock(c, c)
        self.low1, self.low2, self.low3 = ResBlock(c, c), ResBlock(c, c), ResBlock(c, c)
        self.head = nn.Conv2d(c, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        low = self.low3(self.low2(self.low1(F.max_pool2d(x, 2))))
        return self.head(self.skip(x) + F.interpolate(low, scale_factor=2.0))


class Inception(nn.Module):
    """Two Inception modules in a row."""

    class Mixed(nn.Module):
        """Three branches, joined."""

        def __init__(self, c: int) -> None:
            super().__init__()
            self.a, self.b = unit(c, 8, 1), nn.Sequential(unit(c, 8, 1), unit(8, 8))
            self.c = nn.Sequential(nn.AvgPool2d(3, 1, 1), unit(c, 8, 1))

        def forward(self, x: Tensor) -> Tensor:
            return torch.cat((self.a(x), self.b(x), self.c(x)), 1)

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.mixed1, self.mixed2 = unit(3, 8), self.Mixed(8), self.Mixed(24)
        self.head = nn.Linear(24, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.mixed2(F.max_pool2d(self.mixed1(self.stem(x)), 2)).mean((2, 3)))


class AllConvolution(nn.Module):
    """Network in network: the last convolution makes the logits, which are pooled."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(),
            nn.Conv2d(16, 5, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x)


class WeightShared(nn.Module):
    """One block that is applied three times."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block, self.last = unit(3, 8), ResBlock(8, 8), ResBlock(8, 8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for _ in range(3):
            x = self.block(x)
        return self.head(self.last(x).mean((2, 3)))


class PreActivation(nn.Module):
    """Pre-activation blocks, sums of bare convolutions."""

    class Block(nn.Module):
        """Norm, activation, convolution, twice."""

        def __init__(self, c: int) -> None:
            super().__init__()
            self.bn1, self.conv1 = nn.BatchNorm2d(c), nn.Conv2d(c, c, 3, padding=1)
            self.bn2, self.conv2 = nn.BatchNorm2d(c), nn.Conv2d(c, c, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.conv2(F.relu(self.bn2(self.conv1(F.relu(self.bn1(x))))))

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.blocks = nn.Conv2d(3, 8, 3, padding=1), nn.Sequential(self.Block(8), self.Block(8))
        self.norm, self.head = nn.BatchNorm2d(8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.norm(self.blocks(self.stem(x)))).mean((2, 3)))


class ConvMixer(nn.Module):
    """A residual depthwise convolution, then a pointwise one, twice."""

    class Residual(nn.Module):
        """A shortcut around any module."""

        def __init__(self, fn: nn.Module) -> None:
            super().__init__()
            self.fn = fn

        def forward(self, x: Tensor) -> Tensor:
            return self.fn(x) + x

    def __init__(self, c: int = 8) -> None:
        super().__init__()
        self.stem = unit(3, c, act=nn.GELU)
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(
                    self.Residual(nn.Sequential(nn.Conv2d(c, c, 5, padding=2, groups=c), nn.GELU(), nn.BatchNorm2d(c))),
                    nn.Sequential(nn.Conv2d(c, c, 1), nn.GELU(), nn.BatchNorm2d(c)),
                )
                for _ in range(2)
            )
        )
        self.head = nn.Linear(c, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


class Conditioned(nn.Module):
    """A diffusion model's block: the branch adds an embedding of the time."""

    def __init__(self, c: int = 8) -> None:
        super().__init__()
        self.stem, self.embed = nn.Conv2d(3, c, 3, padding=1), nn.Linear(4, c)
        self.conv1, self.conv2 = nn.Conv2d(c, c, 3, padding=1), nn.Conv2d(c, c, 3, padding=1)
        self.last = nn.Conv2d(c, 3, 3, padding=1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        x = self.stem(x)
        h = F.silu(self.conv1(x) + self.embed(time)[:, :, None, None])
        return self.last(x + self.conv2(h))
