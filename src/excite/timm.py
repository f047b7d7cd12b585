"""timm's names for our networks: `import excite.timm`, then `timm.create_model("emca_eca_resnet50")`.

Every network is there as `excite_NAME`, and as NAME where timm has no network of that name. What takes timm's names
(its training script, segmentation_models_pytorch's `tu-NAME`) takes them too.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, is_dataclass
from functools import partial, update_wrapper
from typing import Any

from torch import nn

from excite.backbones.names import all_names
from excite.backbones.network import Network
from excite.common.extras import require
from excite.errors import UsageError
from excite.models import create_model

# Any: timm's interface: texts, numbers and tuples by key.

PREFIX = "excite_"


def build(
    name: str,
    pretrained: bool = False,
    pretrained_cfg: Mapping[str, Any] | None = None,
    pretrained_cfg_overlay: Mapping[str, Any] | None = None,
    cache_dir: object = None,
    in_chans: int = 3,
    **options: Any,
) -> nn.Module:
    """Return a network of ours as timm asks for it; its `forward_features` gives the last map, as timm's do.

    pretrained_cfg, pretrained_cfg_overlay: change how the network says that images are prepared; cache_dir is timm's
    place for downloads, of which there are none. Raises UsageError for pretrained=True and for unknown options.
    """
    if pretrained:
        raise UsageError(
            f"{name}: timm's hub has no weights of it; load a file with excite.load_checkpoint(model, ...)"
        )
    network = create_model(name, in_channels=in_chans, **options)
    assert isinstance(network, Network)
    network.last_map_only = True
    for changes in (pretrained_cfg, pretrained_cfg_overlay):
        entries = asdict(changes) if is_dataclass(changes) and not isinstance(changes, type) else changes
        network.pretrained_cfg.update({key: value for key, value in (entries or {}).items() if value is not None})
    network.pretrained_cfg.update(num_classes=network.num_classes, architecture=name)
    return network


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
