"""`excite push`: share a network on the Hugging Face hub."""

import json as json_
from pathlib import Path

from excite.errors import UsageError


def push(
    checkpoint: str,
    repository: str,
    *,
    model: str | None = None,
    private: bool = False,
    license: str | None = None,
    message: str | None = None,
    out: Path | None = None,
    json: bool = False,
) -> None:
    """Share a network on the Hugging Face hub: model.safetensors with its card, a page, and config.json for timm.

    Others take it as hf-hub:OWNER/NAME: excite predict, test, explain, export, train --init, excite.load; timm takes it
    too, where it knows the network. Needs an account: `hf auth login`.

    Args:
        checkpoint: a run directory, a .ckpt, .safetensors or .pth file, or weights that come with excite.
        repository: OWNER/NAME on the hub; made where there is none.
        model: build this network for the weights instead of the one that the checkpoint names.
        private: make a repository that only its owner sees.
        license: of the weights, as the hub writes it (apache-2.0, cc-by-4.0); without it the page names none.
        message: of the commit.
        out: the folder to write to, instead of sharing the files.
        json: print JSON.

    Examples:
        excite push runs/eca_resnet20-digits my-name/eca-digits
        excite push eca50.safetensors my-name/eca50 --license apache-2.0 --out page/
    """
    from excite.checkpoints.sharing import files_of, upload
    from excite.common.files import write_bytes

    files = files_of(checkpoint, repository, model=model, license=license)
    if out is not None:
        existing = [name for name in files if (out / name).exists()]
        if existing:
            raise UsageError(f"{out} holds {existing[0]} already; give another folder")
        for name, content in files.items():
            write_bytes(out / name, content)
        where = str(out)
    else:
        where = upload(files, repository, private=private, message=message)
    if json:
        sizes = {name: len(content) for name, content in files.items()}
        print(json_.dumps({"checkpoint": checkpoint, "repository": repository, "to": where, "files": sizes}, indent=2))
        return
    print(f"{'written to' if out else 'shared as'} {where}")
    for name, content in files.items():
        print(f"  {name:<20}{len(content):>12,} bytes")
    if out is None:
        print(f"next: excite predict hf-hub:{repository} IMAGE...")
