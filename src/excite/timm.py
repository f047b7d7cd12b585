"""timm's names for our networks: `import excite.timm`, then `timm.create_model("emca_eca_resnet50")`.

Every network is there as `excite_NAME`, and as NAME where timm has no network of that name. What takes timm's names
(its training script, segmentation_models_pytorch's `tu-NAME`) takes them too.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, is_dataclass
from functools import partial, update_wrapper
from pathlib import Path
from typing import Any

from torch import nn

from excite.backbones.names import all_names
from excite.backbones.network import Network
from excite.card import code_refused
from excite.checkpoints.hub import fetch, on_hub
from excite.checkpoints.reading import read_checkpoint
from excite.common.extras import require
from excite.common.pyfile import is_python
from excite.errors import ExciteError
from excite.models import NetworkSpec, create_model, describe, spec_of
from excite.pretrained import Pretrained

# Any: timm's interface: texts, numbers and tuples by key.

PREFIX = "excite_"


def build(
    name: str,
    pretrained: bool = False,
    pretrained_cfg: Mapping[str, Any] | str | None = None,
    pretrained_cfg_overlay: Mapping[str, Any] | None = None,
    cache_dir: str | Path | None = None,
    in_chans: int = 3,
    **options: Any,
) -> nn.Module:
    """Return a network of ours as timm asks for it; its `forward_features` gives the last map, as timm's do.

    pretrained: with the weights that come with excite (a tag, "cifar10", says which), or those of the repository or
    folder that timm was asked for. pretrained_cfg, pretrained_cfg_overlay: change how the network says that images are
    prepared; cache_dir: where the hub's files are kept. Raises UsageError where there are no such weights and for
    unknown options.
    """
    tag = pretrained_cfg if isinstance(pretrained_cfg, str) else ""
    changes = {**_entries(None if tag else pretrained_cfg), **_entries(pretrained_cfg_overlay)}
    options.pop("pretrained_model_args", None)  # timm's record of what the repository says, which is in the options
    if is_python(str(options.get("attach", ""))):  # which may be what a repository says
        raise code_refused("the configuration of a network of timm's", str(options["attach"]), "--attach")
    place = changes.get("file") or (changes.get("hf_hub_id") and f"hf-hub:{changes['hf_hub_id']}")
    if place:
        options.setdefault("num_classes", changes.get("num_classes"))
        network = create_model(name, in_channels=in_chans, **options)
        if pretrained:
            _fill(network, place, cache_dir)
    else:
        network = create_model(name, in_channels=in_chans, pretrained=(tag or True) if pretrained else False, **options)
    assert isinstance(network, Network)
    network.last_map_only = True
    spec = spec_of(network)
    if spec.preprocess is not None:
        size, resize = spec.preprocess["size"], spec.preprocess["resize"]
        network.pretrained_cfg.update(input_size=(in_chans, size, size), crop_pct=size / resize)
        network.pretrained_cfg.update(mean=tuple(spec.preprocess["mean"]), std=tuple(spec.preprocess["std"]))
    network.pretrained_cfg.update(changes)
    network.pretrained_cfg.update(num_classes=network.num_classes, architecture=name)
    return network


def _entries(changes: object) -> dict[str, Any]:
    """Return what a configuration of timm's says, without what it leaves open."""
    entries = asdict(changes) if is_dataclass(changes) and not isinstance(changes, type) else changes
    assert entries is None or isinstance(entries, Mapping)
    given = {key: value for key, value in (entries or {}).items() if value is not None}
    return {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}


def _fill(network: nn.Module, place: str, cache_dir: str | Path | None) -> None:
    """Load the weights of a repository of the hub, or of a folder; a head for other classes stays fresh."""
    file = fetch(place, cache_dir) if on_hub(place) else Path(place)
    checkpoint = read_checkpoint(file)
    card = checkpoint.card or checkpoint.named
    if not isinstance(card, NetworkSpec):
        raise ExciteError(f"{place} does not say which network it holds")
    weights = Pretrained(f"the weights of {place}", card.num_classes, lambda: checkpoint.weights)
    weights.fill(network, spec_of(network).num_classes)
    if card.preprocess is not None and spec_of(network).in_channels == card.in_channels:
        same = spec_of(network).num_classes == card.num_classes
        describe(network, preprocess=card.preprocess, class_names=card.class_names if same else None)


def register() -> list[str]:
    """Tell timm of every network of ours. Returns the names that are new; networks of timm's own keep theirs."""
    require("timm")
    import timm
    from timm.models import register_model

    names = []
    known = set(timm.list_models())
    for name in all_names():
        for alias in (name, PREFIX + name):
            if alias in known:
                continue
            entry: Callable[..., nn.Module] = update_wrapper(partial(build, name), build)
            entry.__name__ = entry.__qualname__ = alias
            entry.__module__ = __name__
            register_model(entry)
            names.append(alias)
    return names


NAMES = register()
"""What timm knows since this module was imported."""
