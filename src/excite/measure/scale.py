"""How long an epoch takes on many GPUs, and what it waits for: a calculator over measured or stated parts.

A step takes as long as the slower of two things that run side by side: the network (its arithmetic, and the part of the
exchange of gradients that the backward pass does not hide) and the input (decoding, reading). Gradients go round a ring
within a machine, then round a ring of machines.
"""

import math
from dataclasses import dataclass

GIGA = 1e9
BUCKET = 25e6  # bytes that are exchanged at once (torch's DistributedDataParallel)
BACKWARD = 2 / 3  # of a step's arithmetic; the exchange runs beside it
TRAINING = 6  # floating-point operations per multiply-accumulate of a forward pass: two, and twice that backwards

# Dense half-precision peaks of the makers' data sheets, in operations per second.
PEAKS = {"v100": 125e12, "t4": 65e12, "a100": 312e12, "l4": 121e12, "h100": 989e12, "h200": 989e12}


@dataclass(frozen=True)
class Work:
    """What is trained. macs: of one image's forward pass; weights, state: bytes of weights and of a checkpoint."""

    macs: float
    weights: int
    state: int
    images: int
    per_gpu: int


@dataclass(frozen=True)
class Cluster:
    """What it is trained on. Rates are per second.

    step: images that one GPU trains, computing alone; decode: images that one core decodes; cores: per GPU; gpus: per
    machine; inside, between: bytes that a GPU sends to its neighbour, and a machine to the next; storage: bytes that a
    machine reads; stored: bytes of an image; latency: seconds for a message between machines.
    """

    step: float
    decode: float
    cores: float = 8
    gpus: int = 8
    inside: float = 200 * GIGA
    between: float = 25 * GIGA
    storage: float = 2 * GIGA
    stored: float = 110e3
    latency: float = 20e-6


@dataclass(frozen=True)
class Prediction:
    """Seconds of a step, by what takes them, and of an epoch. exposed: the exchange that nothing hides."""

    gpus: int
    batch: int
    compute: float
    exchange: float
    exposed: float
    decode: float
    read: float
    epoch: float
    volume: float

    @property
    def step(self) -> float:
        """Seconds of a step."""
        return max(self.compute + self.exposed, self.decode, self.read)

    @property
    def bottleneck(self) -> str:
        """What would have to be faster first."""
        if self.step > self.compute + self.exposed:
            return "decoding" if self.decode >= self.read else "reading"
        return "exchange" if self.exposed > self.compute / 4 else "arithmetic"

    @property
    def efficiency(self) -> float:
        """The share of the step in which a GPU computes."""
        return self.compute / self.step


def rate(macs: float, peak: float, utilisation: float) -> float:
    """Return the images that a GPU trains per second, of the peak that it reaches."""
    return peak * utilisation / (TRAINING * macs)


def volume(gpus: int, size: float) -> float:
    """Return the bytes that each of so many sends (and gets) to add up `size` bytes round a ring."""
    return 2 * (gpus - 1) / gpus * size


def predict(work: Work, cluster: Cluster, gpus: int) -> Prediction:
    """Return what an epoch on `gpus` GPUs takes."""
    local = min(gpus, cluster.gpus)
    machines = math.ceil(gpus / cluster.gpus)
    buckets = max(math.ceil(work.weights / BUCKET), 1)
    exchange = volume(local, work.weights) / cluster.inside + volume(machines, work.weights) / cluster.between
    exchange += buckets * 2 * math.log2(machines) * cluster.latency
    compute = work.per_gpu / cluster.step
    exposed = max(exchange - BACKWARD * compute, exchange / buckets)  # the last bucket waits for the last gradient
    decode = work.per_gpu / (cluster.decode * cluster.cores)
    read = local * work.per_gpu * cluster.stored / cluster.storage
    batch = gpus * work.per_gpu
    steps = max(work.images // batch, 1)
    seconds = max(compute + exposed, decode, read)
    sent = volume(gpus, work.weights)
    return Prediction(gpus, batch, compute, exchange, exposed, decode, read, steps * seconds, sent)
