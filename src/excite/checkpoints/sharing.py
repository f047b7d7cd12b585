"""Sharing weights on the Hugging Face hub: which files with which contents, and their upload by huggingface_hub."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from excite.backbones.names import list_models
from excite.checkpoints.bundle import bundle_bytes
from excite.checkpoints.hub import CONFIG, FILES
from excite.checkpoints.importing import network_of
from excite.checkpoints.model_card import model_card
from excite.checkpoints.reading import Checkpoint, read_checkpoint
from excite.common.extras import require
from excite.errors import ExciteError, UsageError
from excite.models import NetworkSpec, spec_of

# Any: facts of a training, as JSON holds them.

# What timm must know of a network beside how images are prepared: where a head for other classes goes, and the like.
OF_THE_NETWORK = ("classifier", "first_conv", "pool_size", "interpolation", "fixed_input_size")
TOLD = ("data", "recipe", "seed", "epochs", "command", "commit", "machine", "note", "versions", "test", "validation")


def files_of(
    source: str | Path, repository: str, *, model: str | None = None, license: str | None = None
) -> dict[str, bytes]:
    """Return what sharing uploads, by name: model.safetensors (with its card), README.md, and config.json for timm.

    source: whatever `excite.load` takes, but a detector; repository: OWNER/NAME. config.json is left out for networks
    that timm cannot build. Raises as `excite.load`.
    """
    if repository.count("/") != 1:
        raise UsageError(f"{repository!r} is no repository; expected OWNER/NAME")
    checkpoint = read_checkpoint(source)
    if checkpoint.kind == "detector":
        raise UsageError(f"{source} holds a detector; classifiers are shared, detectors are not yet")
    network = network_of(checkpoint, model)[0].float()
    spec, trained = spec_of(network), _trained(checkpoint)
    config = _for_timm(network, spec)
    text = model_card(
        spec,
        trained,
        f"hf-hub:{repository}",
        parameters=sum(p.numel() for p in network.parameters()),
        timm=None if config is None else config["architecture"],
        license=license,
    )
    files = {FILES[0]: bundle_bytes(network, spec, trained), "README.md": text.encode()}
    if config is not None:
        files[CONFIG] = (json.dumps(config, indent=2) + "\n").encode()
    return files


def page_of(source: str) -> str:
    """Return the model card of bundled weights, named as NETWORK.DATA; raises as `excite.load`."""
    checkpoint = read_checkpoint(source)
    network = network_of(checkpoint)[0]
    parameters = sum(p.numel() for p in network.parameters())
    return model_card(spec_of(network), _trained(checkpoint), source, parameters=parameters)


def upload(files: Mapping[str, bytes], repository: str, *, private: bool = False, message: str | None = None) -> str:
    """Make the repository where there is none and put the files into it, in one commit; returns its address.

    Raises UsageError for a name that is none, ExciteError where the hub refuses or cannot be reached.
    """
    require("huggingface_hub")
    from huggingface_hub import CommitOperationAdd, HfApi, errors

    log = logging.getLogger("huggingface_hub")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        api = HfApi(library_name="excite")
        api.create_repo(repository, private=private, exist_ok=True, repo_type="model")
        operations = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=data) for name, data in files.items()]
        done = api.create_commit(repository, operations, commit_message=message or "Weights, card and page")
    except errors.HFValidationError as error:
        raise UsageError(f"{repository!r} is no repository: {str(error).splitlines()[0]}") from None
    except Exception as error:  # of the net, of the account, of the hub
        reason = (str(error).strip().splitlines() or [""])[0][:200]
        raise ExciteError(
            f"nothing was shared as {repository}: the hub refuses or cannot be reached ({type(error).__name__}: "
            f"{reason}); log in with `hf auth login`, or write the files with --out FOLDER"
        ) from error
    finally:
        log.setLevel(level)
    return str(done.repo_url)


def _trained(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return what may be told of the training: of a run its recipe, seed and validation, never a path."""
    config = checkpoint.config
    trained = {name: config[name] for name in TOLD if config.get(name) is not None}
    file = Path(checkpoint.source)
    try:
        folder = file.parent.parent if file.parent.name == "checkpoints" else file.parent
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        trained["epochs"] = int(summary["epochs"])
        which = "best" if file.name == "best.ckpt" else "last"
        if which == "last" or summary["selects"]:  # the best of many scores on the test split is no figure to publish
            trained["test" if summary["split"] == "test" else "validation"] = {
                "images": int(summary["val_images"]),
                "top1": float(summary[f"{which}_top1"]),
                "top5": float(summary[f"{which}_top5"]),
            }
    except (OSError, ValueError, TypeError, KeyError):  # no run, or one that has not ended
        pass
    for name in ("data", "recipe"):
        kind, colon, path = str(trained.get(name, "")).partition(":")
        if "/" in path or "\\" in path:
            trained[name] = f"{kind}{colon}{Path(path.replace(chr(92), '/')).name}"
        elif "/" in kind or "\\" in kind:
            trained[name] = Path(kind.replace(chr(92), "/")).name
    return trained


def _for_timm(network: nn.Module, spec: NetworkSpec) -> dict[str, Any] | None:
    """Return config.json as timm writes it, None for a network that timm cannot build."""
    family, _, rest = spec.name.partition("/")
    arguments: dict[str, Any] = dict(spec.options)
    if family == "timm" and spec.attach is None:
        architecture = rest.partition(".")[0]
    elif spec.name in list_models("*"):
        architecture = f"excite_{spec.name}"
        if spec.placement != "all":
            arguments["placement"] = spec.placement
        if spec.attach is not None:
            arguments |= {
                "attach": spec.attach,
                "attach_sites": spec.attach_sites,
                "attach_options": dict(spec.attach_options),
            }
    else:
        return None
    if spec.in_channels != 3:
        arguments["in_chans"] = spec.in_channels
    known = getattr(network, "pretrained_cfg", None) or {}
    config: dict[str, Any] = {key: known[key] for key in OF_THE_NETWORK if known.get(key) is not None}
    config["num_classes"] = spec.num_classes
    if spec.preprocess is not None:
        how = spec.preprocess
        config |= {
            "input_size": [spec.in_channels, how["size"], how["size"]],
            "crop_pct": how["size"] / how["resize"],
            "crop_mode": "center",
            "mean": how["mean"],
            "std": how["std"],
        }
    content: dict[str, Any] = {"architecture": architecture, "num_classes": spec.num_classes}
    if hasattr(network, "num_features"):
        content["num_features"] = network.num_features
    if arguments:
        content["model_args"] = arguments
    if spec.class_names:
        content["label_names"] = spec.class_names
    return {**content, "pretrained_cfg": config}
