"""What `gpu.py` does in one go: check the kernels, time networks, time the tail's passes, train on CIFAR-10.

Each function returns rows of one table of the result file. Needs torch alone; networks of timm and torchvision are left
out where these are not installed.
"""

import gc
import itertools
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

import torch
from record import ratio_cell
from torch import nn
from torch.nn import functional as F

from excite import ops
from excite.common.files import replacing
from excite.measure.bench.timing import Clock, CudaClock, Timing, interleave, ratio
from excite.models import create_model
from excite.ops.tail import torch as plain
from excite.recipes.collection import RecipeCollection
from excite.registry import create_attention

LAYOUTS = {"NHWC": torch.channels_last, "NCHW": torch.contiguous_format}
PRECISIONS = {"bf16": torch.bfloat16, "tf32": torch.float32}
BASES = ("none, timm", "none, torchvision", "none, modules")
FAMILIES = {
    "eca": ("none, ours", "eca, ours", "eca, timm"),
    "se": ("se, ours", "se, timm", "none, torchvision"),
    "more": ("srm, ours", "emca_eca, ours", "eca, modules"),
}
THEIRS = {"resnet50": "resnet50", "resnet18": "resnet18", "mobilenet_v2": "mobilenetv2_100"}
"""timm's names for networks that torchvision has, too."""
MODES = {"ours": "auto", "modules": "reference", "timm": "reference", "torchvision": "reference"}
LIMITS = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}
ODD = ((2, 5, 3, 7), (2, 130, 4, 4), (1, 3, 2, 1), (3, 257, 13, 5), (33, 24, 15, 17), (2, 6, 9), (2, 4, 3, 5, 2))
LARGE = ((4, 64, 56, 56), (8, 2048, 7, 7), (2, 1000, 31, 33))
METHODS = ("none", "se", "eca", "srm", "gct", "fca")
PASSES = {"moments": 1, "affine": 3, "grad_sums": 4, "grad_input": 3, "tail": 11}  # reads and writes of the map
GOAL = 0.94


class Sizes(NamedTuple):
    """How large everything is; milliseconds: that a sample lasts at least."""

    backbones: tuple[str, ...]
    batch: int
    side: int
    rounds: int
    milliseconds: int
    checks: tuple[tuple[int, ...], ...]
    tails: tuple[tuple[int, ...], ...]
    cifar: str
    epochs: int | None
    backend: str


FULL = Sizes(
    ("resnet50", "resnet18", "mobilenet_v2"), 256, 224, 11, 200, (*ODD, *LARGE),
    ((256, 56, 56), (512, 28, 28), (1024, 14, 14), (2048, 7, 7), (64, 56, 56)), "resnet50_cifar", None, "inductor",
)  # fmt: skip
TINY = Sizes(("resnet20",), 2, 16, 3, 0, ((2, 5, 3, 7),), ((8, 6, 5),), "resnet20", 2, "eager")


def passes(device: str) -> Any:  # a module of the five passes
    """Return the kernels under test: Triton's on CUDA, PyTorch's elsewhere."""
    if device == "cpu":
        return plain
    from excite.ops.tail import triton

    return triton


def clock(device: str) -> Clock:
    """Return CUDA events, or a stopwatch on the CPU."""
    return CudaClock() if device == "cuda" else Clock()


def timed(calls: dict[str, Callable[[], object]], sizes: Sizes, device: str) -> dict[str, Timing]:
    """Time calls in turn."""
    warmup = 3 if sizes.milliseconds else 1
    return interleave(calls, sizes.rounds, warmup=warmup, min_time=sizes.milliseconds / 1000, clock=clock(device))


def free_memory(device: str) -> None:
    """Give memory back that no tensor holds, and compiled programs."""
    torch.compiler.reset()
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()


# --- the kernels against their twin


def last_format(dims: int) -> torch.memory_format | None:
    """Return the channels-last format of maps with so many axes; None where there is none."""
    return {4: torch.channels_last, 5: torch.channels_last_3d}.get(dims)


def off(one: torch.Tensor | None, two: torch.Tensor | None) -> float:
    """Return the largest difference, relative to the largest value (at least 1e-3); infinity where one is missing."""
    if one is None or two is None:
        return 0.0 if one is two else math.inf
    a, b = one.double(), two.double()
    if a.shape != b.shape or not bool(torch.isfinite(a).all()):
        return math.inf
    return float((a - b).abs().max()) / max(float(b.abs().max()), 1e-3)


def kernel_errors(device: str, dtype: torch.dtype, last: bool, shape: Sequence[int]) -> dict[str, float]:
    """Return each pass's largest difference from PyTorch's in float64, with and without its options."""
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    layout = (last_format(len(shape)) if last else None) or torch.contiguous_format
    random = torch.Generator().manual_seed(0)

    def draw(*size: int) -> torch.Tensor:
        return torch.randn(size, generator=random).to(device)

    z, r, grad = ((draw(*shape) + 1).to(dtype).contiguous(memory_format=layout) for _ in range(3))
    basis = draw(1, *shape[1:]).to(wide).contiguous(memory_format=layout)[0]
    a, b, q, p, d = (draw(*shape[:2]).to(wide) for _ in range(5))
    mu = draw(shape[1]).double()
    exact_z, exact_r, exact_grad = z.double(), r.double(), grad.double()
    exact_basis = basis.double()
    exact = [x.double() for x in (a, b, q, p, d)]
    kernels = passes(device)
    out = kernels.affine(z, a, b, r, True)
    exact_out = plain.affine(exact_z, *exact[:2], exact_r, True)
    errors = {"moments": 0.0, "affine": off(out, exact_out), "grad_sums": 0.0, "rectified": 0.0, "grad_input": 0.0}

    def worst(name: str, got: Sequence[torch.Tensor | None], wanted: Sequence[torch.Tensor | None]) -> None:
        errors[name] = max([errors[name], *(off(x, y) for x, y in zip(got, wanted, strict=True))])

    worst("moments", kernels.moments(z, True, True, basis), plain.moments(exact_z, True, True, exact_basis))
    worst("moments", kernels.moments(z, False, False)[:1], plain.moments(exact_z, False, False)[:1])
    worst("affine", [kernels.affine(z, a, b, None, False)], [plain.affine(exact_z, *exact[:2], None, False)])
    # The rectifier's mask is of the map in its own type: the twin gets the same.
    same_out = out.double()
    worst("grad_sums", kernels.grad_sums(grad, out, z, mu), plain.grad_sums(exact_grad, same_out, exact_z, mu))
    worst("grad_sums", kernels.grad_sums(grad, None, z, mu), plain.grad_sums(exact_grad, None, exact_z, mu))
    worst("rectified", [kernels.rectified(grad, out, z)], [plain.rectified(exact_grad, same_out, exact_z)])
    full, exact_full = (a, q, p, mu, d, basis), (*(exact[i] for i in (0, 2, 3)), mu, exact[4], exact_basis)
    worst("grad_input", [kernels.grad_input(grad, z, *full)], [plain.grad_input(exact_grad, exact_z, *exact_full)])
    few, exact_few = (a, None, None, None), (exact[0], None, None, None)
    worst("grad_input", [kernels.grad_input(grad, z, *few)], [plain.grad_input(exact_grad, exact_z, *exact_few)])
    return errors


def tail_error(device: str, method: str, layout: torch.memory_format) -> float:
    """Return the largest difference between a block's end fused and as modules: output, gradients, statistics."""
    results: list[list[torch.Tensor | None]] = []
    for mode in ("reference", "fused"):
        torch.manual_seed(0)
        norm, attention = nn.BatchNorm2d(16), None
        if method != "none":
            options = {"frequencies": "top4", "reduction": 4} if method == "fca" else {}
            attention = create_attention(method, 16, **options)
        parts = nn.ModuleList([norm] if attention is None else [norm, attention])
        for p in parts.parameters():
            nn.init.normal_(p, std=0.5)
        parts.to(device, torch.float64)
        maps = [torch.randn(4, 16, 9, 7).double().to(device).contiguous(memory_format=layout) for _ in range(3)]
        z, r = (m.requires_grad_() for m in maps[:2])
        with ops.use(mode):
            out = ops.residual_tail(z * 1, norm, attention, r * 1, nn.ReLU())
        out.backward(maps[2])
        grads = [p.grad for p in parts.parameters()]
        results.append([out.detach(), z.grad, r.grad, *grads, *(x.double() for x in parts.buffers())])
    return max(off(x, y) for x, y in zip(results[1], results[0], strict=True))


def checks(device: str, sizes: Sizes) -> list[list[Any]]:
    """Return a row per pass, type and layout (and per method, whole): largest difference, limit, verdict."""
    rows = []
    for (dtype, limit), (layout, _) in itertools.product(LIMITS.items(), LAYOUTS.items()):
        worst: dict[str, float] = {}
        for shape in sizes.checks:
            for name, error in kernel_errors(device, dtype, layout == "NHWC", shape).items():
                worst[name] = max(worst.get(name, 0.0), error)
        kind = str(dtype).removeprefix("torch.")
        rows += [[f"{name}, {kind}, {layout}", error, limit, verdict(error <= limit)] for name, error in worst.items()]
    for method, (layout, format) in itertools.product(METHODS, LAYOUTS.items()):
        error = tail_error(device, method, format)
        rows.append([f"whole tail, {method}, {layout}", error, 1e-10, verdict(error <= 1e-10)])
    return rows


def verdict(right: bool) -> str:
    """Return the word of a check."""
    return "right" if right else "WRONG"


# --- networks


def builders(backbone: str) -> dict[str, Callable[[], nn.Module]]:
    """Return "method, whose" -> builder, for the networks that can be built here."""
    known: dict[str, Callable[[], nn.Module]] = {"none, modules": partial(create_model, backbone)}
    known |= {"none, ours": known["none, modules"], "eca, modules": partial(create_model, f"eca_{backbone}")}
    for method in ("se", "eca", "srm", "emca_eca"):
        known[f"{method}, ours"] = partial(create_model, f"{method}_{backbone}")
    if backbone in THEIRS and find_spec("torchvision") is not None:
        import torchvision

        known["none, torchvision"] = getattr(torchvision.models, backbone)
    if backbone in THEIRS and find_spec("timm") is not None:
        import timm

        known["none, timm"] = partial(timm.create_model, THEIRS[backbone])
        if backbone.startswith("resnet"):
            for method in ("eca", "se"):
                known[f"{method}, timm"] = partial(timm.create_model, backbone, block_args={"attn_layer": method})
    return known


def training_step(network: nn.Module, run: nn.Module, mode: str, x: torch.Tensor, half: bool) -> Callable[[], None]:
    """Return one step: forward, loss, backward, SGD with momentum; run: the network, or what was compiled of it."""
    y = torch.randint(0, 1000, (x.shape[0],), generator=torch.Generator().manual_seed(0)).to(x.device)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-4, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with ops.use(mode), torch.autocast(x.device.type, torch.bfloat16, enabled=half):
            loss = F.cross_entropy(run(x), y)
        loss.backward()
        optimizer.step()

    return step


def inference(run: nn.Module, mode: str, x: torch.Tensor) -> Callable[[], None]:
    """Return one pass without gradients."""

    def infer() -> None:
        with torch.no_grad(), ops.use(mode):
            run(x)

    return infer


def captured(call: Callable[[], None]) -> Callable[[], None]:
    """Return the replay of a CUDA graph of `call`."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def step_memory(call: Callable[[], None], network: nn.Module, device: str) -> int:
    """Return the most bytes that a call adds to what was there, gradients among them, and the network's own weights."""
    if device == "cpu":
        from excite.measure.bench.memory import peak_memory

        return peak_memory(call, network, device)
    network.zero_grad(set_to_none=True)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    call()
    torch.cuda.synchronize()
    own = sum(t.nbytes for t in (*network.parameters(), *network.buffers()))
    return torch.cuda.max_memory_allocated() - before + own


class Setting(NamedTuple):
    """How networks are run."""

    task: str
    backbone: str
    precision: str
    layout: str
    how: str
    family: str

    @property
    def name(self) -> str:
        """The setting in words."""
        return ", ".join(self)


def labels_of(setting: Setting) -> list[str]:
    """Return the variants of a setting that can be built here, the base first."""
    known = builders(setting.backbone)
    base = next(label for label in BASES if label in known)
    return [base, *(label for label in FAMILIES[setting.family] if label in known and label != base)]


def networks(device: str, sizes: Sizes, setting: Setting) -> list[list[Any]]:
    """Return a row per variant of a setting; the batch is halved until all of them fit the device."""
    batch = sizes.batch
    while True:
        try:
            return network_rows(device, sizes, setting, batch)
        except torch.OutOfMemoryError:
            if batch <= 8:
                raise
        # Outside the handler: its error holds the frames, and they the networks.
        batch //= 2
        free_memory(device)


def network_rows(device: str, sizes: Sizes, setting: Setting, batch: int) -> list[list[Any]]:
    """Time the variants of a setting in turn; then each one's memory."""
    known, training, half = builders(setting.backbone), setting.task == "training", setting.precision == "bf16"
    layout = LAYOUTS[setting.layout]
    x = torch.randn(batch, 3, sizes.side, sizes.side, device=device).contiguous(memory_format=layout)
    x = x if training else x.to(PRECISIONS[setting.precision])
    calls: dict[str, Callable[[], object]] = {}
    memory: dict[str, float | None] = {}
    labels = labels_of(setting)
    for label in labels:
        torch.manual_seed(0)
        network = known[label]().to(device, memory_format=layout).train(training)
        network = network if training else network.to(x.dtype)
        run: Any = torch.compile(network, backend=sizes.backend) if setting.how == "compiled" else network
        mode = MODES[label.split(", ")[1]]
        call = training_step(network, run, mode, x, half) if training else inference(run, mode, x)
        call()
        measurable = setting.how != "CUDA graph" and (device == "cuda" or setting.how == "eager")
        memory[label] = round(step_memory(call, network, device) / 1e6, 1) if measurable else None
        calls[label] = captured(call) if setting.how == "CUDA graph" else call
    timings = timed(calls, sizes, device)
    base, rows = labels[0], []
    for label, timing in timings.items():
        theirs = timings.get(label.replace("ours", "timm")) if label.endswith("ours") else None
        peak, base_peak = memory[label], memory[base]
        rows.append([
            f"{setting.name}: {label}", batch, round(1e3 * timing.median, 4), ratio_cell(ratio(timing, timings[base])),
            base, round(batch / timing.median, 1), None if theirs is None else ratio_cell(ratio(timing, theirs)), peak,
            None if peak is None or not base_peak else round(peak / base_peak, 4),
        ])  # fmt: skip
    return rows


# --- the tail's passes against a copy


def tails(device: str, sizes: Sizes, precision: str, layout: str, channels_and_side: Sequence[int]) -> list[list[Any]]:
    """Return a row per pass over one map, and one for the whole tail with ECA: time, share of a copy's bandwidth."""
    shape = (sizes.batch, *channels_and_side)
    dtype, format = PRECISIONS[precision], LAYOUTS[layout]
    z, r, grad = (torch.randn(shape, device=device).to(dtype).contiguous(memory_format=format) for _ in range(3))
    target, out = torch.empty_like(z), r.relu()
    a, b, q = (torch.randn(shape[:2], device=device) for _ in range(3))
    mu, kernels = torch.randn(shape[1], device=device).double(), passes(device)
    norm, attention = nn.BatchNorm2d(shape[1]).to(device), create_attention("eca", shape[1]).to(device)
    leaf, shortcut = z.clone().requires_grad_(), r.clone().requires_grad_()

    def tail() -> None:
        leaf.grad = shortcut.grad = None
        with ops.use("fused"):
            ops.residual_tail(leaf, norm, attention, shortcut, torch.relu).backward(grad)

    calls: dict[str, Callable[[], object]] = {
        "copy": lambda: target.copy_(z),
        "moments": lambda: kernels.moments(z, True, True),
        "affine": lambda: kernels.affine(z, a, b, r, True),
        "grad_sums": lambda: kernels.grad_sums(grad, out, z, mu),
        "grad_input": lambda: kernels.grad_input(grad, z, a, q, b, mu),
        "tail": tail,
    }
    timings = timed(calls, sizes, device)
    rows = []
    for name, count in PASSES.items():
        low, middle, high = sorted(ratio_cell(ratio(timings[name], timings["copy"])))
        share = [round(count / 2 / r, 4) for r in (middle, high, low)]
        words = f"{precision}, {layout}, {'x'.join(map(str, shape))}: {name}"
        speed = count * z.nbytes / timings[name].median / 1e9
        rows.append([words, count, round(1e3 * timings[name].median, 4), share, round(speed, 1)])
    return rows


# --- CIFAR-10


class Photos(NamedTuple):
    """Images `[n 3 32 32]` (uint8) and labels, for training and for the test."""

    train: torch.Tensor
    train_labels: torch.Tensor
    test: torch.Tensor
    test_labels: torch.Tensor


def open_photos(spec: str, tiny: bool) -> Photos:
    """Open a data spec, or a folder of CIFAR-10's own binary files (`data_batch_1.bin`, ..., `test_batch.bin`)."""
    if tiny:
        random = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (96, 3, 32, 32), generator=random, dtype=torch.uint8)
        labels = torch.arange(96) % 10
        return Photos(images[:64], labels[:64], images[64:], labels[64:])
    if (folder := Path(spec)).is_dir() and (folder / "test_batch.bin").is_file():
        parts = [records(path) for path in (*sorted(folder.glob("data_batch_*.bin")), folder / "test_batch.bin")]
        train, labels = (torch.cat(x) for x in zip(*parts[:-1], strict=True))
        return Photos(train, labels, *parts[-1])
    from excite.data.arrays import cache
    from excite.data.specs import open_data

    bundle = open_data(spec)
    train_images, test_images = cache(bundle.train, 32)[0], cache(bundle.test, 32)[0]
    return Photos(train_images.images, train_images.labels, test_images.images, test_images.labels)


def records(path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images and labels of a binary file of CIFAR-10: a byte of label, 3072 of image."""
    rows = torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8).view(-1, 3073)
    return rows[:, 1:].reshape(-1, 3, 32, 32).clone(), rows[:, 0].long()


def recipe() -> dict[str, Any]:
    """Return the EMANet recipe; its YAML is read here line by line, so that no YAML library is needed."""
    lines = RecipeCollection("excite.recipes", "recipe").text("emanet-cifar10").splitlines()
    pairs = (line.split("#")[0].partition(": ") for line in lines if not line.startswith("#") and ": " in line)
    return {key.strip(): float(v) if v.strip()[:1].isdigit() else v.strip() for key, _, v in pairs}


class Training:
    """A training whose data lie on the device, an epoch at a time; kept in a file between calls."""

    def __init__(self, device: str, sizes: Sizes, label: str, photos: Photos, kept: Path) -> None:
        method, whose = label.split(", ")
        name = sizes.cifar if method == "none" else f"{method}_{sizes.cifar}"
        torch.manual_seed(0)
        self.device, self.label, self.mode, self.kept = device, label, MODES[whose], kept
        self.options = recipe()
        self.epochs = sizes.epochs or int(self.options["epochs"])
        self.batch = min(int(self.options["batch_size"]), len(photos.train))
        self.network = create_model(name, num_classes=10).to(device, memory_format=torch.channels_last)
        self.optimizer = torch.optim.SGD(
            self.network.parameters(), lr=self.options["lr"], momentum=self.options["momentum"],
            weight_decay=self.options["weight_decay"],
        )  # fmt: skip
        self.mean = torch.tensor([0.4914, 0.4822, 0.4465], device=device).view(3, 1, 1)
        self.deviation = torch.tensor([0.2470, 0.2435, 0.2616], device=device).view(3, 1, 1)
        self.photos = Photos(*(x.to(device) for x in photos))
        self.padded = F.pad(self.photos.train, (4, 4, 4, 4))
        self.seconds, self.scores = 0.0, list[list[float]]()
        if kept.is_file():
            state = torch.load(kept, map_location=device, weights_only=True)
            self.network.load_state_dict(state["network"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.seconds, self.scores = state["seconds"], state["scores"]

    @property
    def done(self) -> bool:
        """Whether all epochs are."""
        return len(self.scores) >= self.epochs

    def keep(self) -> None:
        """Write the state."""
        state = {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}
        with replacing(self.kept) as temporary:
            torch.save({**state, "seconds": self.seconds, "scores": self.scores}, temporary)

    def prepared(self, images: torch.Tensor) -> torch.Tensor:
        """Return standardised images, channels last."""
        return ((images / 255 - self.mean) / self.deviation).contiguous(memory_format=torch.channels_last)

    def cropped(self, rows: torch.Tensor) -> torch.Tensor:
        """Return training images, shifted by up to four pixels and flipped at random."""
        n, size = len(rows), self.photos.train.shape[-1]
        top, left = torch.randint(0, 9, (2, n, 1), device=self.device)
        steps = torch.arange(size, device=self.device)
        flipped = torch.rand(n, 1, device=self.device) < 0.5
        across = left + torch.where(flipped, size - 1 - steps, steps)
        cut = self.padded[rows[:, None, None], :, (top + steps)[:, :, None], across[:, None, :]]
        return self.prepared(cut.permute(0, 3, 1, 2))

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run in bfloat16 on CUDA, in the mode of the variant."""
        with ops.use(self.mode), torch.autocast(self.device, torch.bfloat16, enabled=self.device == "cuda"):
            yield

    def epoch(self) -> None:
        """Train an epoch (timed), then score the test images (not timed)."""
        at, count = len(self.scores), len(self.photos.train) // self.batch
        torch.manual_seed(at)
        self.network.train()
        watch = clock(self.device)
        watch.start()
        order = torch.randperm(len(self.photos.train), device=self.device)
        for i in range(count):
            for group in self.optimizer.param_groups:
                group["lr"] = self.options["lr"] * (1 + math.cos(math.pi * (at + i / count) / self.epochs)) / 2
            rows = order[i * self.batch : (i + 1) * self.batch]
            self.optimizer.zero_grad(set_to_none=True)
            with self.running():
                loss = F.cross_entropy(self.network(self.cropped(rows)), self.photos.train_labels[rows])
            loss.backward()
            self.optimizer.step()
        self.seconds += watch.stop()
        self.scores.append([self.score(), self.seconds])

    @torch.no_grad()
    def score(self) -> float:
        """Return the share of test images that are recognised."""
        self.network.eval()
        right = 0
        for images, labels in zip(self.photos.test.split(1000), self.photos.test_labels.split(1000), strict=True):
            with self.running():
                right += int((self.network(self.prepared(images)).argmax(1) == labels).sum())
        return right / len(self.photos.test)

    def row(self) -> list[Any]:
        """Return what there is to report."""
        reached = next(((i + 1, s) for i, (score, s) in enumerate(self.scores) if score >= GOAL), None)
        last, best = self.scores[-1][0], max(score for score, _ in self.scores)
        when = None if reached is None else [round(reached[1], 1), reached[0]]
        return [self.label, len(self.scores), round(self.seconds, 1), round(100 * last, 2), round(100 * best, 2), when]


def train(training: Training, until: float) -> list[list[Any]]:
    """Train whole epochs until a time (of `monotonic`) is near or all are done; returns the row so far."""
    longest = 0.0
    while not training.done and (not longest or monotonic() + longest < until):
        began = monotonic()
        training.epoch()
        longest = max(longest, monotonic() - began)
    training.keep()
    print(f"{training.label}: epoch {len(training.scores)} of {training.epochs}", file=sys.stderr, flush=True)
    return [training.row()]
