"""Everything `excite robustness` does, as one function: errors, scores, pictures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import torch

from excite.common.files import write_json
from excite.data import DataBundle, Images
from excite.data.preprocess import Preprocess
from excite.data.specs import open_run_data
from excite.errors import ExciteError, UsageError, unknown
from excite.explain.networks import Network
from excite.robustness.corruptions import corrupt
from excite.robustness.evaluate import Labelled, error_rates, geometry, load_pixels
from excite.robustness.figures import plot_heat_map, plot_probes, plot_sheet
from excite.robustness.probes import PROBES, probe
from excite.robustness.published import Published, open_published
from excite.robustness.scores import Baseline, Scores, alexnet, mean_by_family, score
from excite.robustness.tables import FAMILIES, SEVERITIES
from excite.runtime import pick_device

Progress = Callable[[str], None]
PICTURES = ("errors.png", "corruptions.png", "probes.png")


@dataclass
class Request:
    """What to measure; see the command's options."""

    data: str | None
    corruptions: Sequence[str]
    severities: Sequence[int]
    probes: Sequence[str]
    published: str | None
    baseline: Network | Literal["alexnet"] | None
    limit: int
    batch_size: int
    seed: int
    output: Path
    device: str = "cpu"


@dataclass
class Measured:
    """Top-1 errors: clean by network; network -> family -> severity; probe -> network -> strength."""

    images: int
    clean: dict[str, float]
    errors: dict[str, dict[str, dict[int, float]]]
    probes: dict[str, dict[str, dict[float, float]]] = field(default_factory=dict)


def choose(kind: str, words: Sequence[str], known: Sequence[str]) -> list[str]:
    """Return what was named, in the order of `known`; "all" and "none" are understood. Raises UsageError."""
    names = [n for g in words for n in g.split(",") if n]
    if names == ["all"]:
        return list(known)
    if names == ["none"]:
        return []
    for name in names:
        if name not in known:
            raise unknown(kind, name, [*known, "all", "none"])
    return [k for k in known if k in names]


def run(networks: Sequence[Network], request: Request, say: Progress = lambda text: None) -> dict[str, object]:
    """Measure, write pictures and `robustness.json` into `request.output`, and return the numbers.

    say: told what is being done, a line at a time. Raises UsageError and ExciteError for what cannot be measured.
    An image that cannot be read ends it: errors over different images could not be compared.
    """
    device = torch.device(pick_device(request.device))
    published = None if request.published is None else open_published(request.published)
    families = _families(request, published)
    opened = request.baseline if isinstance(request.baseline, Network) else None
    everyone = [*networks]
    if opened is not None:
        opened.label = f"baseline {opened.label}"
        everyone.append(opened)
    bundle = open_run_data(everyone, request.data, limit_test=request.limit)
    for network in everyone:
        network.model.to(device)
    fixed = _fixed_baseline(request, families, networks)
    data = {shape: _load(shape.read(bundle.test), shape) for shape in dict.fromkeys(map(geometry, everyone))}
    measured = measure(everyone, networks, data, families, published, request, say, device)
    baseline = fixed if opened is None else _measured_baseline(opened, measured)
    scores = {n.label: score(measured.clean[n.label], measured.errors[n.label], baseline) for n in networks if families}
    files = _draw(scores, measured, data, families, published, request)
    return _finish(networks, scores, measured, bundle, request, files)


def _families(request: Request, published: Published | None) -> list[str]:
    known = FAMILIES if published is None else published.families
    families = choose("corruption", request.corruptions, known)
    bad = [s for s in request.severities if s not in SEVERITIES]
    if bad or not request.severities:
        raise UsageError(f"severity {bad[0] if bad else 'none'} does not exist; severities are 1 to 5")
    if not families and not request.probes:
        raise UsageError("nothing to measure: --corruptions none and no --probes")
    return families


def _fixed_baseline(request: Request, families: Sequence[str], networks: Sequence[Network]) -> Baseline | None:
    if request.baseline != "alexnet":
        return None
    return alexnet(families, request.severities, networks[0].card.num_classes)


def _measured_baseline(network: Network, measured: Measured) -> Baseline:
    errors = mean_by_family(measured.errors[network.label])
    return Baseline(network.label.removeprefix("baseline "), errors, measured.clean[network.label])


def _load(images: Images, shape: Preprocess) -> Labelled:
    return load_pixels((images[i] for i in range(len(images))), shape)


def measure(
    everyone: Sequence[Network],
    networks: Sequence[Network],
    data: Mapping[Preprocess, Labelled],
    families: Sequence[str],
    published: Published | None,
    request: Request,
    say: Progress,
    device: torch.device,
) -> Measured:
    """Return all errors; the baseline among `everyone` is left out of the probes."""
    measure = partial(error_rates, batch_size=request.batch_size, device=device)
    say("clean images")
    first = next(iter(data.values()))
    result = Measured(len(first[1]), measure(everyone, data), {n.label: {} for n in everyone})
    for family in families:
        say(family)
        for severity in request.severities:
            if published is None:
                errors = measure(everyone, data, _corruption(family, severity, request.seed))
            else:
                errors = measure(everyone, _stored(everyone, published, family, severity, request.limit))
            for label, error in errors.items():
                result.errors[label].setdefault(family, {})[severity] = error
    for name in request.probes:
        say(f"{name} probe")
        result.probes[name] = {n.label: {} for n in networks}
        for strength in PROBES[name].strengths:
            for label, error in measure(networks, data, _probe(name, strength, request.seed)).items():
                result.probes[name][label][strength] = error
    return result


def _corruption(family: str, severity: int, seed: int) -> Callable[[torch.Tensor, int], torch.Tensor]:
    return lambda x, i: corrupt(x, family, severity, seed=seed, index=i)


def _probe(name: str, strength: float, seed: int) -> Callable[[torch.Tensor, int], torch.Tensor]:
    return lambda x, i: probe(x, name, strength, seed=seed, index=i)


def _stored(
    networks: Sequence[Network], published: Published, family: str, severity: int, limit: int
) -> dict[Preprocess, Labelled]:
    classes = networks[0].card.class_names or [str(i) for i in range(networks[0].card.num_classes)]
    images = {
        shape: load_pixels(published.images(family, severity, limit, classes), shape)
        for shape in dict.fromkeys(map(geometry, networks))
    }
    for _, labels in images.values():
        if int(labels.max()) >= len(classes) or int(labels.min()) < 0:
            raise ExciteError(f"{published.root} has label {int(labels.max())}; the network has {len(classes)} classes")
    return images


def _draw(
    scores: Mapping[str, Scores],
    measured: Measured,
    data: Mapping[Preprocess, Labelled],
    families: Sequence[str],
    published: Published | None,
    request: Request,
) -> list[Path]:
    files = []
    if scores:
        files.append(plot_heat_map(scores, request.output / "errors.png"))
    if families and published is None:
        pixels = next(iter(data.values()))[0][0].float() / 255
        path = request.output / "corruptions.png"
        files.append(plot_sheet(pixels, families, lambda f, s: corrupt(pixels, f, s, seed=request.seed), path))
    if measured.probes:
        files.append(plot_probes(measured.probes, request.output / "probes.png"))
    return files


def _finish(
    networks: Sequence[Network],
    scores: Mapping[str, Scores],
    measured: Measured,
    bundle: DataBundle,
    request: Request,
    files: list[Path],
) -> dict[str, object]:
    result: dict[str, object] = {
        "data": bundle.spec,
        "split": bundle.test_name,
        "corrupted": request.published,
        "images": measured.images,
        "seed": request.seed,
        "severities": list(request.severities),
        "networks": [
            {
                "label": n.label,
                "checkpoint": n.source,
                "clean_error": measured.clean[n.label],
                "corruptions": scores[n.label].to_dict() if n.label in scores else None,
                "probes": {name: errors[n.label] for name, errors in measured.probes.items()},
            }
            for n in networks
        ],
    }
    path = write_json(request.output / "robustness.json", result)
    for stale in {request.output / name for name in PICTURES} - set(files):  # of an earlier call
        stale.unlink(missing_ok=True)
    result["files"] = [str(f) for f in [*files, path]]
    return result
