"""Weights of the Hugging Face hub, `hf-hub:OWNER/NAME[@REVISION]`: fetched, kept and found by huggingface_hub.

Its files are strangers' files: only weights are taken, and a `config.json` as text that names a network.
"""

import json
import logging
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from excite.common.extras import require
from excite.errors import ExciteError, UsageError
from excite.models import NetworkSpec

# Any: what JSON holds.

SCHEME = "hf-hub:"
CONFIG = "config.json"
FILES = ("model.safetensors", "pytorch_model.bin")  # by preference


def on_hub(name: str) -> bool:
    """Return whether a name means a repository of the hub."""
    return name.startswith(SCHEME)


def fetch(source: str, cache_dir: str | Path | None = None) -> Path:
    """Return the file with the weights of a repository: the kept one, else it is fetched, with its config.json.

    source: `hf-hub:OWNER/NAME`, after an `@` a branch, tag or commit. Raises UsageError for a name that is none,
    ExciteError where there are no weights, or they are not here and cannot be fetched.
    """
    require("huggingface_hub")
    from huggingface_hub import errors, hf_hub_download
    from huggingface_hub.constants import HF_HUB_CACHE

    repository, _, revision = source.removeprefix(SCHEME).partition("@")
    download = partial(hf_hub_download, repository, revision=revision or None, cache_dir=cache_dir)
    if repository.count("/") != 1:
        raise UsageError(f"{source!r} is no repository; expected {SCHEME}OWNER/NAME")
    log = logging.getLogger("huggingface_hub")
    level = log.level
    log.setLevel(logging.CRITICAL)  # it reports every try; one line at the end says it all
    absent: Exception | None = None
    try:
        for name in FILES:
            try:
                file = Path(download(name))
            except errors.EntryNotFoundError as error:
                absent = error if absent is None or isinstance(error, OSError) else absent
                continue
            try:
                download(CONFIG)
            except Exception:  # it may be missing, or not be here
                log.debug("%s has no %s", source, CONFIG)
            return file
    except errors.HFValidationError as error:
        raise UsageError(f"{source!r} is no repository: {str(error).splitlines()[0]}") from None
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise ExciteError(
            f"the hub gives no {source} ({type(error).__name__}): it is spelt otherwise, private or gated; "
            "log in with `hf auth login` where it is"
        ) from error
    except Exception as error:  # what its ways to fetch raise: of the net, of the disk, of the cache
        absent = error
    finally:
        log.setLevel(level)
    if isinstance(absent, errors.EntryNotFoundError) and not isinstance(absent, OSError):
        raise ExciteError(f"{source} has no weights: none of {', '.join(FILES)}")
    raise ExciteError(
        f"{source} is not on this machine and could not be fetched ({type(absent).__name__}); go online once, or put "
        f"its files into {cache_dir or HF_HUB_CACHE}"
    ) from absent


def named_beside(file: Path) -> NetworkSpec | None:
    """Return the network that a config.json in timm's form names beside a file of weights; None without one.

    Raises nothing: where it says something impossible, the weights speak for themselves.
    """
    if file.name not in FILES:
        return None
    try:
        content = json.loads((file.parent / CONFIG).read_text(encoding="utf-8"))
        return _network(content, str(file.parent / CONFIG))
    except (OSError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError, ExciteError):
        return None


def _network(content: Mapping[str, Any], source: str) -> NetworkSpec | None:
    """Read timm's config.json: an architecture, its arguments, and how images are prepared."""
    inner = content.get("pretrained_cfg", content)
    options = dict(content.get("model_args") or {})
    channels, side = inner["input_size"][0], inner["input_size"][-1]
    architecture = content["architecture"]
    if not re.fullmatch(r"\w[\w.-]*", architecture):
        return None
    name = architecture.removeprefix("excite_")
    return NetworkSpec.from_dict(
        {
            "name": name if name != architecture else f"timm/{architecture}",
            "num_classes": options.pop("num_classes", content.get("num_classes", inner.get("num_classes"))),
            "in_channels": options.pop("in_chans", channels),
            "options": options,
            "preprocess": {
                "size": side,
                "resize": round(side / inner.get("crop_pct", 1.0)),
                "mean": inner["mean"],
                "std": inner["std"],
            },
            "class_names": content.get("label_names", inner.get("label_names")),
        },
        source,
    )
