"""Open mutants of every format in this one process, and print a line of JSON for each that does not end as it should.

    python tests/fuzz/fuzz.py FOLDER SEED FROM UPTO [short]

The mutant of a seed and a number is always the same. short: without exported networks, which take long to make; other
formats, so other mutants. A mutant may be read, or refused with our error. Any other exception, SECONDS of processor
time and more than MEMORY are failures. FOLDER/current says what is open, should the process end.
"""

import contextlib
import json
import logging
import os
import random
import resource
import signal
import sys
import tempfile
import traceback
import warnings
from pathlib import Path
from typing import Any

SECONDS, MEMORY = 20, 3 << 30  # of processor time for one mutant; of bytes beside what the samples need


class SlowError(BaseException):
    """A mutant took too long."""


def mutant(name: str, form: Any, seed: int, number: int) -> bytes:
    from mutate import mutate, mutate_values

    chance = random.Random(f"{seed} {name} {number}")
    if form.write is not None and (not form.words or chance.random() < 0.6):
        with contextlib.suppress(TypeError, ValueError, OverflowError):  # what cannot be written is not read
            return form.write(mutate_values(form.values, chance))
    return mutate(form.content, form.words, chance)


def outcome(form: Any, path: Path) -> str | None:
    """Return what went wrong, None where the file was read or refused."""
    from excite.errors import ExciteError

    def slow(*_: Any) -> None:
        raise SlowError

    signal.signal(signal.SIGPROF, slow)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        form.open(path)
    except ExciteError as error:
        text = str(error)
        if not text.strip():
            return "an error without words"
        return "torch's advice to read without protection" if "weights_only=False" in text else None
    except SlowError:
        return f"more than {SECONDS} s"
    except BaseException as error:
        place = traceback.extract_tb(error.__traceback__)
        own = next(
            (f"{f.filename.rpartition('/src/')[2]}:{f.lineno}" for f in reversed(place) if "/excite/" in f.filename), ""
        )
        return f"{type(error).__name__}: {str(error)[:200]} ({own})"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return None


def main(folder: Path, seed: int, start: int, end: int, short: str = "") -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    os.environ["EXCITE_CACHE"] = str(folder / "cache")
    import torch
    from samples import formats

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=folder) as beside:
        forms = formats(Path(beside), slow=not short)
        for form in forms.values():  # they are valid, and what is loaded on first use is loaded
            (folder / form.name).write_bytes(form.content)
            form.open(folder / form.name)
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, -1))
        current = os.open(folder / "current", os.O_WRONLY | os.O_CREAT)
        names, counts = list(forms), dict.fromkeys(forms, 0)
        for number in range(start, end):
            name = names[number % len(names)]
            form = forms[name]
            if random.Random(f"{seed} {number}").random() > form.share:
                continue
            os.pwrite(current, f"{number:>12} {name:<40}".encode(), 0)
            path = folder / form.name
            path.unlink()  # a library that is loaded lives on in the old file
            path.write_bytes(mutant(name, form, seed, number))
            counts[name] += 1
            wrong = outcome(form, path)
            if wrong:
                print(json.dumps({"format": name, "seed": seed, "number": number, "wrong": wrong}), flush=True)
        print(json.dumps({"counts": counts}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:5]), *sys.argv[5:])
