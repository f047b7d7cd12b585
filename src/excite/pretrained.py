"""Trained weights to start from: those that come with excite, and those that timm and torchvision fetch and keep.

Nothing is fetched unless it is asked for; timm's and torchvision's files go where these libraries keep them.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from excite.card import Preparation
from excite.common.extras import require
from excite.errors import ExciteError, UsageError, unknown

if TYPE_CHECKING:
    import torch
    from torch import nn

# Any: a card, as JSON holds it.

State = dict[str, "torch.Tensor"]
FOLDER = Path(__file__).parent / "weights"


@dataclass(frozen=True)
class Pretrained:
    """Trained weights of one network. state: reads or fetches them; None where the library fills the network itself.

    options: of the network, as it was trained; preprocess: `{"size", "resize", "mean", "std"}`, as in a card.
    """

    source: str
    num_classes: int
    state: Callable[[], State] | None
    class_names: list[str] | None = None
    preprocess: Preparation | None = None

    def fill(self, model: "nn.Module", num_classes: int) -> None:
        """Load the weights; with another number of classes the head keeps its fresh ones.

        A network that returns maps, or has no classifier, takes what it has of them.

        Raises UsageError where the network's options made it another one.
        """
        if self.state is None:
            return
        state, own = self.state(), model.state_dict()
        missing = [key for key in own if key not in state]
        extra = [key for key in state if key not in own]
        other = [key for key in own if key in state and own[key].shape != state[key].shape]
        if getattr(model, "out_indices", None) is not None:  # what lies behind the last map was taken away
            extra = []
        elif not num_classes:
            extra = [key for key in extra if state[key].shape[:1] != (self.num_classes,)]
        # The head is what has one row per class.
        head = [key for key in other if own[key].shape[:1] == (num_classes,) and num_classes != self.num_classes]
        wrong = [*missing, *extra, *(key for key in other if key not in head)]
        if wrong:
            raise UsageError(
                f"{self.source} do not fit this network ({wrong[0]!r}, {len(wrong)} in all): "
                "its options differ from those with which they were trained"
            )
        model.load_state_dict({key: own[key] if key in head else state[key] for key in own})


def bundled() -> dict[str, list[str]]:
    """Return the names of the networks whose weights come with excite, by the data that they were trained on."""
    names: dict[str, list[str]] = {}
    for file in sorted(FOLDER.glob("*/*.safetensors")):
        names.setdefault(file.parent.name, []).append(file.stem)
    return names


def bundled_file(tag: str) -> Path | None:
    """Return the file of bundled weights named as NETWORK.DATA, "eca_resnet20.cifar10"; None for another name."""
    name, _, data = tag.rpartition(".")
    return FOLDER / data / f"{name}.safetensors" if name in bundled().get(data, []) else None


def bundled_card(name: str, data: str) -> dict[str, Any]:
    """Return the card of bundled weights: the network, its recipe, seed, score, and the commit that trained it."""
    from safetensors import safe_open

    with safe_open(FOLDER / data / f"{name}.safetensors", framework="pt") as content:
        card: dict[str, Any] = json.loads(content.metadata()["excite"])
    return card


def find(name: str, which: bool | str, in_channels: int = 3) -> Pretrained:
    """Return the trained weights of a network; which: True for the usual ones, else the data or tag that names them.

    Raises UsageError where there are none of that name.
    """
    family, _, rest = name.partition("/")
    if family == "timm":
        return _timm(rest, which)
    if family == "torchvision":
        return _torchvision(rest, which)
    return _bundled(name, which, in_channels)


def _bundled(name: str, which: bool | str, in_channels: int) -> Pretrained:
    known = bundled()
    data = next((data for data, names in known.items() if name in names), "") if which is True else str(which)
    if data not in known:
        wanted = "" if which is True else f" trained on {data!r}"
        there = "; ".join(f"{d}: {', '.join(names)}" for d, names in known.items()) or "none yet"
        raise UsageError(f"no weights of {name!r}{wanted} come with excite; there are {there}")
    if name not in known[data]:
        raise UsageError(
            f"no weights of {name!r} trained on {which} come with excite; there are: {', '.join(known[data])}"
        )
    card = bundled_card(name, data)
    if in_channels != card["in_channels"]:
        raise UsageError(f"the weights of {name} take {card['in_channels']} channels, not {in_channels}")

    def read() -> State:
        from safetensors.torch import load_file

        state = load_file(FOLDER / data / f"{name}.safetensors")
        return {key: value.float() if value.is_floating_point() else value for key, value in state.items()}

    return Pretrained(
        f"the weights of {name} trained on {data}", card["num_classes"], read, card["class_names"], card["preprocess"]
    )


def _timm(name: str, which: bool | str) -> Pretrained:
    require("timm")
    import timm

    full = name if which is True else f"{name.partition('.')[0]}.{which}"
    if not timm.is_model(full):
        raise unknown("timm model", full, timm.list_models(pretrained=True))
    config = timm.get_pretrained_cfg(full)
    if config is None or not (config.has_weights or config.url or config.hf_hub_id or config.file):
        raise UsageError(f"timm has no trained weights of {full!r}; `excite list 'timm/*'` names its networks")
    side = config.input_size[-1]
    how: Preparation = {
        "size": side,
        "resize": round(side / config.crop_pct),
        "mean": list(config.mean),
        "std": list(config.std),
    }
    return Pretrained(f"timm's weights of {full}", config.num_classes, None, None, how)


def timm_unfetched(name: str, error: Exception) -> ExciteError:
    """Return the error for timm weights that are not here and could not be fetched: it names file and folder."""
    import timm
    import torch

    config = timm.get_pretrained_cfg(name)
    if config is not None and config.hf_hub_id:
        from huggingface_hub.constants import HF_HUB_CACHE

        repository = config.hf_hub_id.rstrip("/")
        repository = repository if repository.count("/") else f"timm/{repository}"
        where = f"Hugging Face's {repository} into {HF_HUB_CACHE}"
    else:
        url = config.url if config is not None else ""
        where = f"{Path(url).name or 'its file'} into {Path(torch.hub.get_dir()) / 'checkpoints'}"
    return ExciteError(
        f"the trained weights of timm/{name} are not on this machine and could not be fetched "
        f"({type(error).__name__}); go online once, or put {where}"
    )


def _torchvision(name: str, which: bool | str) -> Pretrained:
    import torch
    import torchvision

    if name not in torchvision.models.list_models(module=torchvision.models):
        raise unknown("torchvision model", name, torchvision.models.list_models(module=torchvision.models))
    known = torchvision.models.get_model_weights(name)
    tag = "DEFAULT" if which is True else str(which)
    if tag not in known.__members__:
        raise unknown(f"weights of torchvision/{name}:", tag, list(known.__members__))
    weights = known[tag]
    crop = weights.transforms()
    how: Preparation = {
        "size": crop.crop_size[0],
        "resize": crop.resize_size[0],
        "mean": list(crop.mean),
        "std": list(crop.std),
    }

    def fetch() -> State:
        try:
            state: State = weights.get_state_dict(progress=False, check_hash=True)
        except OSError as error:
            folder = Path(torch.hub.get_dir()) / "checkpoints"
            raise ExciteError(
                f"the trained weights of torchvision/{name} are not on this machine and could not be fetched "
                f"({type(error).__name__}); go online once, or put {Path(weights.url).name} into {folder}"
            ) from error
        return state

    names = list(weights.meta["categories"])
    return Pretrained(f"torchvision's weights {tag} of {name}", len(names), fetch, names, how)
