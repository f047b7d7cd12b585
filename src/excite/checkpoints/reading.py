"""The one reader of checkpoints: what a file holds, and what it says about itself. It never runs code."""

import json
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch

from excite.card import DetectorCard, is_plain, parse_card
from excite.checkpoints.hub import FILES, fetch, named_beside, on_hub
from excite.checkpoints.inert import harmless
from excite.checkpoints.layouts import OURS, Layout, recognise
from excite.checkpoints.unwrap import CURRENT, State, Which, tensors, unwrap
from excite.common.checks import shown
from excite.common.options import Option
from excite.errors import ExciteError, UsageError
from excite.models import NetworkSpec
from excite.pretrained import FOLDER, bundled, bundled_file

# The entry of a run's checkpoint that holds the card -> what stands before the keys of its weights.
CARDS = {"excite": "model.", "excite_detector": "detector."}
IN_A_RUN = ("checkpoints/best.ckpt", "checkpoints/last.ckpt", "best.ckpt", "last.ckpt", *FILES)
LARGEST_SUMMARY = 2**20  # bytes
EXPORTED = (".onnx", ".xml", ".pt2")

Kind = Literal["classifier", "detector", "author's", "plain"]


@dataclass(frozen=True)
class Checkpoint:
    """What a file (or a dictionary) holds.

    weights: tensors by the keys of their network; source: where they came from; card: a classifier's spec or a
    detector's card, None for files of others; config: the configuration of the run that wrote the file, {} if unknown;
    notes: what was unwrapped and left aside; beside: what a training script put beside the weights; named: the network
    that a config.json beside the file names.
    """

    weights: State
    source: str = "a dictionary"
    card: NetworkSpec | DetectorCard | None = None
    config: dict[str, Option] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    beside: dict[str, object] = field(default_factory=dict)
    named: NetworkSpec | None = None

    @cached_property
    def layout(self) -> Layout | None:
        """The known family of files that the keys belong to."""
        return recognise(self.weights)

    @property
    def kind(self) -> Kind:
        """A classifier or detector of ours (with its card), a published layout, or plain weights."""
        if self.card is not None:
            return "detector" if isinstance(self.card, DetectorCard) else "classifier"
        return "plain" if self.layout in (None, OURS) else "author's"

    @property
    def trained_on(self) -> str | None:
        """The data spec of the run that wrote the file; None where nothing says it."""
        spec = self.config.get("data")
        return spec if isinstance(spec, str) else None

    @property
    def spec(self) -> NetworkSpec:
        """The spec of a classifier. Raises ExciteError that says what the file is instead, and what to do with it."""
        if isinstance(self.card, DetectorCard):
            raise ExciteError(
                f"{self.source} holds a detector ({self.card.kind} on {self.card.backbone}), not a classifier; "
                "use `excite detect test` or `excite detect predict`"
            )
        if self.card is None:
            raise ExciteError(
                f"{self.source} carries no card, so it does not say which network it is; "
                f"make a network of it: excite import {self.source} -o NAME.safetensors"
            )
        return self.card

    @property
    def detector(self) -> DetectorCard:
        """The card of a detector. Raises ExciteError that says what the file is instead, and what to do with it."""
        if isinstance(self.card, NetworkSpec):
            raise ExciteError(
                f"{self.source} holds a classifier ({self.card.name}), not a detector; use `excite test` or "
                "`excite predict`; a new detector takes it as its backbone with `excite detect train --checkpoint`"
            )
        if self.card is None:
            raise ExciteError(f"{self.source} carries no card, so it holds no detector of ours")
        return self.card


def read_checkpoint(source: str | Path | Mapping[str, object], which: Which = "auto") -> Checkpoint:
    """Return what a file, a run directory (its best checkpoint, else its last) or a dictionary holds.

    Files: `.safetensors`, or what `torch.save` wrote of tensors and plain values; and the weights that come with
    excite, as NETWORK.DATA. which: the model's own weights or their running average ("ema"); "auto": the first that
    there is, in that order (of a run of ours: its average). Raises UsageError for a missing file, ExciteError for one
    that is damaged, needs code to be run, holds no tensors of that kind, or has a bad card.
    """
    if isinstance(source, Mapping):
        return _unwrap(source, "a dictionary", which)
    path = locate(source)
    checkpoint = _unwrap(_read_file(path), str(source if on_hub(str(source)) else path), which, from_file=True)
    return checkpoint if checkpoint.card is not None else replace(checkpoint, named=named_beside(path))


def is_checkpoint(name: str) -> bool:
    """Return whether a name is that of weights (a file, a run directory, NETWORK.DATA), not a network's or Python's."""
    return on_hub(name) or (":" not in name and (Path(name).exists() or bundled_file(name) is not None))


def locate(path: str | Path) -> Path:
    """Return the file a path means: itself, that of a run's result (else best, else last), weights within excite.

    Of a repository of the hub it is the kept file, which is fetched where there is none.

    Raises UsageError where there is none, ExciteError where nothing can be fetched.
    """
    if on_hub(str(path)):
        return fetch(str(path))
    path = Path(path)
    inside = bundled_file(str(path)) if not path.exists() else None
    if inside is not None:
        return inside
    if path.is_dir():
        for name in (*_result(path), *IN_A_RUN):
            if (path / name).is_file():
                return path / name
        raise UsageError(f"{path} holds no checkpoint; expected a run directory with checkpoints/best.ckpt")
    if not path.is_file():
        raise UsageError(
            f"no checkpoint {str(path)!r}: there is no file of this name; expected a file with weights (.ckpt, "
            f".safetensors, .pth, .pt), a run directory{_or_bundled()}"
        )
    return path


def home(file: Path) -> Path:
    """Return the folder for what is made of a checkpoint: its run's, else its own; of weights within excite or of the
    hub, a folder in runs/.
    """
    if file.parts[-3:-2] == ("snapshots",) and file.parts[-4].startswith("models--"):
        return Path("runs") / "-".join(file.parts[-4].split("--")[1:])
    if file.is_relative_to(FOLDER):
        return Path("runs") / f"{file.stem}.{file.parent.name}"
    return file.parent.parent if file.parent.name == "checkpoints" else file.parent


def _or_bundled() -> str:
    names = [f"{name}.{data}" for data, networks in bundled().items() for name in networks]
    return f", or weights that come with excite ({', '.join(names)})" if names else ""


def _result(run: Path) -> list[str]:
    """Return the checkpoint whose score is a finished run's result, as its summary says; nothing where it does not."""
    try:
        with (run / "summary.json").open("rb") as file:
            summary = json.loads(file.read(LARGEST_SUMMARY))
    except (OSError, ValueError, RecursionError):
        return []
    named = summary.get("checkpoint") if isinstance(summary, dict) else None
    return [name for name in IN_A_RUN if name == named]


def unreadable(path: Path, reason: str) -> ExciteError:
    """Return the error for a file that cannot be read, in the words that every verb uses."""
    return ExciteError(f"cannot read checkpoint {path}: {reason}")


def _read_file(path: Path) -> object:
    if path.suffix in EXPORTED:
        raise unreadable(path, "it is an exported network; `excite predict`, `excite test` and `excite bench` take it")
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as error:
        raise unreadable(path, error.strerror or type(error).__name__) from error
    if not head:
        raise unreadable(path, "it is empty")
    if path.suffix == ".safetensors" or head[8:10] == b'{"':
        return _read_safetensors(path)
    if zipfile.is_zipfile(path) and _is_packed(path):
        raise unreadable(path, "its parts are compressed, as torch.save never writes them; they may fill the memory")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's remarks on foreign pickles help nobody here
            with torch.serialization.safe_globals(harmless()):
                return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise unreadable(path, _refusal(error)) from error
    except Exception as error:  # damaged bytes lead the unpickler anywhere: struct, index, runtime and zip errors
        raise unreadable(path, _damage(error)) from error


def _is_packed(path: Path) -> bool:
    """True where a part of an archive is compressed: it may hold far more than the file does."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(part.compress_type != zipfile.ZIP_STORED for part in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return False  # torch says what is wrong


def _read_safetensors(path: Path) -> dict[str, object]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as content:
            metadata = content.metadata() or {}
            state: dict[str, object] = {key: content.get_tensor(key) for key in content.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise unreadable(path, f"it is damaged ({str(error).splitlines()[0]})") from error
    if "excite" not in metadata:
        return state
    # As in a run's checkpoint, where the keys have a prefix.
    weights = {CARDS["excite"] + key: tensor for key, tensor in state.items()}
    card = parse_card(metadata["excite"], str(path))
    trained = card.get("trained", {}) if isinstance(card, dict) else {}
    return {"excite": card, "state_dict": weights, "excite_config": trained}


def _refusal(error: Exception) -> str:
    """Return what a refused pickle asked for. Torch's own advice, to read it without protection, is not passed on."""
    text = " ".join(str(error).split())
    for mark in ("Unsupported global: GLOBAL ", "Unsupported class "):
        if mark in text:
            name = text.split(mark, 1)[1].split(" ", 1)[0]
            return (
                f"it needs {name} to be run or built, and a file from elsewhere may run anything; "
                "where you trust it, save its weights alone: torch.save(model.state_dict(), ...)"
            )
    if "Unsupported operand" in text:
        return "it was pickled in another way than torch's own (protocol 2), or is damaged; save it again by torch.save"
    return "it holds more than tensors and plain values, or is damaged"


def _damage(error: Exception) -> str:
    text = str(error).strip()
    if "TorchScript" in text:
        return "it is a TorchScript program, which is code; save its weights alone: torch.save(model.state_dict(), ...)"
    # Of a file that is none, torch says no more than a number, or advises to read it without protection.
    if not text or isinstance(error, KeyError) or "weights_only" in text:
        return f"it is damaged, or nothing that torch.save wrote ({type(error).__name__})"
    return text.splitlines()[0]


def _unwrap(content: object, source: str, which: Which, from_file: bool = False) -> Checkpoint:
    """Find the state dict inside what a file held, and take common prefixes off its keys."""
    checkpoint = _weights_of(content, source, which)
    for key, tensor in checkpoint.weights.items():
        reason = _unfit(tensor, from_file)
        if reason is not None:
            raise ExciteError(f"{source}: its entry {key!r} {reason}")
    return checkpoint


def _unfit(tensor: torch.Tensor, from_file: bool) -> str | None:
    """Return why a tensor cannot be weights, None where it can."""
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_complex():
        return f"is a tensor of {tensor.dtype}, {tensor.layout}; weights are plain, dense, real numbers"
    if from_file and tensor.is_meta:
        return "has a shape and no numbers (it was saved on the meta device)"
    # A view may repeat a single number a trillion times, and whoever copies it asks for as much memory.
    if from_file and tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        return f"of shape {list(tensor.shape)} holds fewer numbers than that"
    return None


def _weights_of(content: object, source: str, which: Which) -> Checkpoint:
    if not isinstance(content, Mapping):
        raise ExciteError(f"{source} holds {type(content).__name__}, not a dictionary of tensors")
    for entry, prefix in CARDS.items():
        if entry in content:
            return _own(content, entry, prefix, source, which)
    weights = unwrap(content, which, source)
    if weights is None:
        raise ExciteError(f"{source} holds no tensors; its keys: {_some(content)}")
    return Checkpoint(weights.state, source, notes=weights.notes, beside=weights.beside)


def _own(content: Mapping[object, object], entry: str, prefix: str, source: str, which: Which) -> Checkpoint:
    """Read what a run of ours or `save_bundle` wrote: weights, card and configuration."""
    kind = DetectorCard if entry == "excite_detector" else NetworkSpec
    card = kind.from_dict(content[entry], source)
    state, config = content.get("state_dict"), content.get("excite_config", {})
    if which == "model":
        state = content.get(CURRENT, state)
    elif which == "ema" and CURRENT not in content:
        raise ExciteError(f"{source} has no averaged weights; --weights auto takes what there is")
    if not isinstance(state, Mapping):
        raise ExciteError(f"{source} holds a card and no weights (state_dict); its keys: {_some(content)}")
    if not isinstance(config, Mapping):
        raise ExciteError(f"{source}: its configuration is {type(config).__name__}, not a mapping of options")
    for name in ("data", "val_split"):  # what commands take from it
        if not isinstance(config.get(name, ""), str):
            raise ExciteError(f"{source}: its configuration says {name}: {shown(config[name])}, which is no text")
    if not is_plain(config):
        raise ExciteError(f"{source}: its configuration holds more than numbers, texts, and lists and mappings of them")
    weights = {key.removeprefix(prefix): tensor for key, tensor in tensors(state).items() if key.startswith(prefix)}
    return Checkpoint(weights, source, card, {str(k): v for k, v in config.items()})


def _some(content: Mapping[object, object], most: int = 6) -> str:
    keys = [str(k) for k in content]
    return (", ".join(keys[:most]) + (", ..." if len(keys) > most else "")) or "none"
