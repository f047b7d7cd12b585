"""NetworkSpec and create_model: what a network is, and every network by its name, ours and foreign."""

import inspect
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import nn

from excite.backbones.build import build_network
from excite.backbones.names import check_registered
from excite.backbones.placement import PLACEMENTS
from excite.card import CARD, CARD_FORMAT, MOST_CHANNELS, MOST_CLASSES, CardFields, Preparation, carry, code_refused
from excite.common.extras import require
from excite.common.options import Option
from excite.common.pyfile import is_python, load_function
from excite.errors import UsageError, unknown
from excite.pretrained import Pretrained, find, timm_unfetched
from excite.registry import resolve_method


@dataclass(frozen=True)
class NetworkSpec:
    """What network this is: enough to build it again and to feed it. The card of a checkpoint is one.

    name, num_classes, in_channels, placement, attach, attach_sites, attach_options and options: as given to
    `create_model`; class_names: of the outputs, in order; preprocess: `{"size", "resize", "mean", "std"}` (pixels; mean
    and std of images in [0, 1]); source: the file that a spec was read from, "" where it was written by hand. A spec
    with a source never runs a Python file.
    """

    name: str
    num_classes: int = 1000
    in_channels: int = 3
    options: Mapping[str, Option] = field(default_factory=dict)
    placement: str = "all"
    attach: str | None = None
    attach_sites: str | Sequence[str] | None = None
    attach_options: Mapping[str, Option] = field(default_factory=dict)
    class_names: list[str] | None = None
    preprocess: Preparation | None = None
    source: str = field(default="", compare=False, repr=False)

    def build(self, weights: Pretrained | None = None) -> nn.Module:
        """Return the network, with fresh weights or the given ones; it carries this spec as `excite_card`.

        Where something was attached it carries the AttachReport as `excite_attach_report`; attached modules are always
        fresh. Raises UsageError for unknown names and options, with near names, and for weights that do not fit;
        ExciteError where a spec from a file names a Python file, or weights cannot be fetched.
        """
        self.check()
        model = self._network(weights is not None)
        if weights is not None:
            weights.fill(model, self.num_classes)
        spec = replace(self, attach=resolve_method(self.attach)) if self.attach else self
        spec.attach_to(model)
        carry(model, spec)
        return model

    def attach_to(self, model: nn.Module) -> None:
        """Attach to a network, in place, what this spec says; nothing where it says nothing."""
        if self.attach is not None:
            from excite.surgery import attach

            attach(model, self.attach, sites=self.attach_sites, **self.attach_options)

    def renamed(self, name: str) -> "NetworkSpec":
        """Return this spec for the network `name`, which somebody at the keyboard asked for.

        Options belong to a network, so they are dropped; a Python file keeps them, whose path may have changed.
        """
        if name == self.name or (":" in name and ":" in self.name):
            return replace(self, name=name, source="")
        return NetworkSpec(
            name, self.num_classes, self.in_channels, class_names=self.class_names, preprocess=self.preprocess
        )

    def to_dict(self) -> dict[str, object]:
        """Return the spec as plain containers."""
        attached = {"method": self.attach, "sites": self.attach_sites, "options": dict(self.attach_options)}
        return {
            "name": self.name,
            "num_classes": self.num_classes,
            "in_channels": self.in_channels,
            "options": dict(self.options),
            "placement": self.placement,
            "attach": attached if self.attach is not None else None,
            "class_names": self.class_names,
            "preprocess": self.preprocess,
            "format": CARD_FORMAT,
        }

    @classmethod
    def from_dict(cls, values: object, source: str = "the card") -> "NetworkSpec":
        """Read what `to_dict` wrote; entries it does not know (a later version's) are passed over.

        source: the file, for errors. Raises ExciteError that names the source and the entry that is wrong.
        """
        card = CardFields(values, source)
        options = card.options("options")
        placement = card.text("placement", "all", PLACEMENTS)
        if "placement" in options:  # where files of earlier versions have it
            placement = CardFields(options, source).text("placement", known=PLACEMENTS)
            del options["placement"]
        name = card.text("name")
        card.keep_former_defaults(name, options)
        attached: dict[str, Option] = {}
        if card.values.get("attach") is not None:
            inner = CardFields(card.values["attach"], f"{source}, attach")
            if is_python(inner.text("method")):
                raise code_refused(source, inner.text("method"), "--attach")
            attached = {
                "attach": inner.text("method"),
                "attach_sites": inner.names("sites"),
                "attach_options": inner.options("options"),
            }
            card.keep_former_defaults(inner.text("method"), attached["attach_options"])
        num_classes = card.whole("num_classes", 0, MOST_CLASSES, 1000)
        in_channels = card.whole("in_channels", 1, MOST_CHANNELS, 3)
        return cls(
            name,
            num_classes,
            in_channels,
            options,
            placement,
            **attached,
            class_names=card.class_names("class_names", num_classes),
            preprocess=card.preprocess("preprocess", in_channels),
            source=source,
        )

    def _network(self, pretrained: bool = False) -> nn.Module:
        family, _, rest = self.name.partition("/")
        if family == "timm":
            return _timm(rest, self.num_classes, self.in_channels, self.options, pretrained=pretrained)
        if family == "torchvision":
            return _torchvision(rest, self.num_classes, self.in_channels, self.options)
        if ":" in self.name:
            return _from_file(self.name, self.num_classes, self.in_channels, self.options)
        return build_network(self.name, self.num_classes, self.in_channels, self.placement, self.options)

    def check(self) -> None:
        """Raise UsageError for what cannot be, ExciteError for code that a file names, before anything is built."""
        if self.name.startswith("hf-hub:"):
            raise UsageError(f"{self.name} names weights, not a network: excite.load({self.name!r}) opens them")
        if self.source and ":" in self.name:
            raise code_refused(self.source, self.name)
        if self.source:
            check_registered(self.source, self.name, self.attach)
        if self.num_classes < 0 or self.in_channels < 1:
            raise UsageError(
                f"in_channels must be positive and num_classes at least 0 (no classifier), got {self.in_channels} and "
                f"{self.num_classes}"
            )
        if self.attach is None and (self.attach_sites is not None or self.attach_options):
            raise UsageError("attach_sites and attach_options say where and how to attach; name the method with attach")
        if self.placement != "all" and ("/" in self.name or ":" in self.name):
            raise UsageError(
                f"placement={self.placement!r} is for networks of ours; in {self.name} attach_sites says where"
            )
        taken = {"model", "method", "sites"} & set(self.attach_options)
        if taken:
            raise UsageError(f"attach_options cannot hold {min(taken)!r}: there are attach and attach_sites for that")


def spec_of(model: nn.Module) -> NetworkSpec:
    """Return the spec that a network carries. Raises UsageError where it carries none."""
    spec = getattr(model, CARD, None)
    if not isinstance(spec, NetworkSpec):
        raise UsageError(
            f"the network ({type(model).__name__}) carries no card; build it with create_model or give a NetworkSpec"
        )
    return spec


def describe(model: nn.Module, **changes: Option) -> NetworkSpec:
    """Change entries of the spec that a network carries (class_names, preprocess, ...); returns the new spec."""
    spec = replace(spec_of(model), **changes)
    carry(model, spec)
    return spec


def create_model(
    name: str,
    *,
    num_classes: int | None = None,
    in_channels: int = 3,
    placement: str = "all",
    attach: str | None = None,
    attach_sites: str | Sequence[str] | None = None,
    attach_options: Mapping[str, Option] | None = None,
    pretrained: bool | str = False,
    **options: Option,
) -> nn.Module:
    """Build a network by name: ours ("eca_resnet50"), "timm/NAME", "torchvision/NAME" or "path/to/file.py:factory".

    num_classes: None takes those of the trained weights, else 1000; 0 leaves the classifier out. placement: "all",
    "first" or "last" blocks of each stage (our networks). attach: a method to attach after building, at `attach_sites`
    (None: its own place), with `attach_options` (init="identity": the network computes at first what it computed
    before). pretrained: start from trained weights: the data of those that come with excite ("cifar10"), True or a tag
    for timm's and torchvision's own, which these libraries fetch and keep; with another num_classes the head is fresh.
    options: the backbone's (stem, width_mult, ...) or the method's (reduction, kernel_size="3,5,5,7", ...).
    The network carries its NetworkSpec as `excite_card` and, where something was attached, the AttachReport as
    `excite_attach_report`. Raises UsageError for unknown names and options, with near names; ExciteError for weights
    that cannot be fetched, naming file and folder.
    """
    attached = dict(attach_options or {})
    classes = 1000 if num_classes is None else num_classes
    spec = NetworkSpec(name, classes, in_channels, options, placement, attach, attach_sites, attached)
    return build_pretrained(spec, pretrained, keep_classes=num_classes is not None)


def build_pretrained(spec: NetworkSpec, pretrained: bool | str, *, keep_classes: bool = True) -> nn.Module:
    """Build a spec's network from trained weights (see `create_model`; False: from fresh ones).

    keep_classes: build the spec's own number of classes, with a fresh head where the weights have another; else theirs.
    What the spec does not say of preprocessing and class names is taken from the weights.
    """
    if pretrained is False:
        return spec.build()
    weights = find(spec.name, pretrained, spec.in_channels)
    if not keep_classes:
        spec = replace(spec, num_classes=weights.num_classes)
    if spec.preprocess is None and spec.in_channels == 3:
        spec = replace(spec, preprocess=weights.preprocess)
    if spec.class_names is None and spec.num_classes == weights.num_classes:
        spec = replace(spec, class_names=weights.class_names)
    return spec.build(weights)


def _timm(
    name: str, num_classes: int, in_channels: int, options: Mapping[str, Option], *, pretrained: bool = False
) -> nn.Module:
    require("timm")
    import timm

    if not timm.is_model(name):
        raise unknown("timm model", name, timm.list_models())
    # Its fetching repeats and reports every try; one line at the end says it all.
    log = logging.getLogger("huggingface_hub")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        return timm.create_model(name, pretrained=pretrained, num_classes=num_classes, in_chans=in_channels, **options)
    except TypeError as error:
        raise UsageError(f"timm/{name} refused the options {dict(options)}: {error}") from error
    except (OSError, RuntimeError) as error:  # what its ways to fetch raise
        if not pretrained:
            raise
        raise timm_unfetched(name, error) from error
    finally:
        log.setLevel(level)


def _torchvision(name: str, num_classes: int, in_channels: int, options: Mapping[str, Option]) -> nn.Module:
    import torchvision

    if name not in torchvision.models.list_models(module=torchvision.models):
        raise unknown("torchvision model", name, torchvision.models.list_models(module=torchvision.models))
    if in_channels != 3:
        raise UsageError(f"torchvision/{name} takes 3 channels, not {in_channels}; timm models take any number")
    try:
        return torchvision.models.get_model(name, weights=None, num_classes=num_classes, **options)
    except (TypeError, ValueError) as error:
        raise UsageError(f"torchvision/{name} refused the options {dict(options)}: {error}") from error


def _from_file(name: str, num_classes: int, in_channels: int, options: Mapping[str, Option]) -> nn.Module:
    build = load_function("model", name)
    parameters = inspect.signature(build).parameters
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    counts = {"num_classes": num_classes, "in_channels": in_channels}
    model = build(**{k: v for k, v in counts.items() if takes_any or k in parameters}, **options)
    if not isinstance(model, nn.Module):
        raise UsageError(f"model {name!r}: the factory returned {type(model).__name__}, not a torch.nn.Module")
    return model
