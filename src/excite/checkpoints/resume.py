"""What of a file that is no run directory may go into a run."""

from collections.abc import Mapping
from pathlib import Path

from excite.checkpoints.importing import network_of
from excite.checkpoints.reading import Checkpoint, read_checkpoint
from excite.errors import ExciteError, UsageError


def no_run(file: str | Path) -> UsageError:
    """Return the error for a file given as the run to resume: what it is, and what of it a run can take.

    Raises UsageError for a missing file, ExciteError for one that cannot be read.
    """
    checkpoint = read_checkpoint(file)
    place = Path(file)
    if checkpoint.card is not None:
        run = place.parent.parent if place.parent.name == "checkpoints" else place.parent
        remedy = f"--resume {run}" if (run / "config.yaml").is_file() else f"--init {file} starts a new run from it"
        return UsageError(f"--resume takes a run directory, and {file} is a checkpoint; {remedy}")
    try:
        report = network_of(checkpoint)[1]
    except ExciteError as error:
        return UsageError(f"--resume takes a run directory, and nothing of {file} fits a run: {error}")
    flags = {name: name if name == "placement" else f"options.{name}" for name in report.options}
    words = "".join(f" --{flags[name]} {_word(value)}" for name, value in report.options.items())
    return UsageError(
        f"--resume takes a run directory, and {file} is a file of {report.layout}; its weights start a new run: "
        f"excite train {report.model}{words} --init {file}; {_not_taken(checkpoint)}"
    )


def _not_taken(checkpoint: Checkpoint) -> str:
    """Say which of the file's epoch and optimizer there are; a new run takes neither."""
    epoch = checkpoint.beside.get("epoch")
    there = [f"its epoch ({epoch})"] if isinstance(epoch, int) else []
    if any("optim" in name and isinstance(value, Mapping | list) for name, value in checkpoint.beside.items()):
        there.append("its optimizer's state")
    if not there:
        return "it holds no epoch and no optimizer to go on with"
    return f"{' and '.join(there)} cannot be taken over, so give --epochs and --lr for the rest"


def _word(value: object) -> str:
    """Return an option's value as a word of the command line."""
    if not isinstance(value, list | tuple):
        return str(value)
    inner = ",".join(_word(v) for v in value)
    return f"[{inner}]" if any(isinstance(v, list | tuple) for v in value) else inner
