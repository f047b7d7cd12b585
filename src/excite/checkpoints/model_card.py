"""The page that goes with weights, shared or bundled: Markdown as the Hugging Face hub reads it, made of a card."""

import json
import re
from collections.abc import Mapping
from typing import Any

import yaml

from excite.common.tables import printable
from excite.models import NetworkSpec
from excite.registry import METHODS, get_method

# Any: facts of a training, as JSON holds them.

TEMPLATE = """---
{front}---

# {title}

{sentence}

| | |
|---|---|
{rows}

{score}## Use

```python
import excite

model = excite.load("{source}")     # in eval mode; model.excite_card says how images are prepared
```

```
excite predict {source} IMAGE...
excite train {network} --init {source} --data imagefolder:PATH
```
{timm}"""

TIMM = """
With timm{extra}:

```python
{imports}
model = timm.create_model("hf-hub:{repository}", pretrained=True)
```
"""


def model_card(
    spec: NetworkSpec,
    trained: Mapping[str, Any],
    source: str,
    *,
    parameters: int,
    timm: str | None = None,
    license: str | None = None,
) -> str:
    """Return the text of the page.

    source: as `excite.load` takes the weights: "hf-hub:OWNER/NAME", or "NETWORK.DATA" of bundled ones.
    trained: what is known of the training: data, recipe, seed, epochs, command, commit, and under "test" or
    "validation" images, top1 and top5 (shares). timm: the architecture's name there, None where timm has none.
    """
    method = spec.attach or next((m for m in METHODS if spec.name.startswith(f"{m}_")), None)
    score, kind = _score(trained)
    repository = source.removeprefix("hf-hub:")
    data = trained.get("data")
    rows = {"network": _code(spec.name) + (f" with {_code(spec.attach)} attached" if spec.attach else "")}
    rows |= {"options": ", ".join(_code(f"{k}={v}") for k, v in {**spec.options, **spec.attach_options}.items())}
    rows |= {"parameters": f"{parameters:,}", "classes": f"{spec.num_classes}"}
    if spec.class_names:
        names = [_text(name) for name in spec.class_names]
        rows["classes"] += f": {', '.join(names[:12])}" + (", ..." if len(names) > 12 else "")
    if spec.preprocess:
        how = spec.preprocess
        rows["images"] = (
            f"shorter side {how['resize']}, central {how['size']}x{how['size']}, mean {_numbers(how['mean'])}, "
            f"deviation {_numbers(how['std'])}"
        )
    rows |= {
        word: _text(trained.get(word)) for word in ("data", "recipe", "epochs", "seed", "commit", "machine", "note")
    }
    if trained.get("command"):
        rows["command"] = _code(trained["command"])
    if method:
        rows["paper"] = _text(get_method(method).paper)
    table = "\n".join(f"| {word} | {text} |" for word, text in rows.items() if text not in ("", "None"))
    library = "excite" if timm is None or timm.startswith("excite_") else "timm"
    front: dict[str, Any] = {"library_name": library, "pipeline_tag": "image-classification"}
    if license:
        front["license"] = license
    front["tags"] = ["image-classification", "channel-attention", *([method] if method else []), "excite"]
    if score:
        metrics = [{"type": "accuracy", "name": word, "value": round(100 * value, 2)} for word, value in score.items()]
        dataset = {"name": _text(data), "type": re.sub(r"[^\w.-]", "-", str(data)), "split": kind}
        task = {"type": "image-classification"}
        front["model-index"] = [
            {"name": repository.rpartition("/")[2], "results": [{"task": task, "dataset": dataset, "metrics": metrics}]}
        ]
    own = library == "excite"
    usage = TIMM.format(
        repository=repository,
        extra=" (it knows the network once `excite.timm` is imported)" if own else "",
        imports="import excite.timm\nimport timm\n" if own else "import timm\n",
    )
    images = trained.get(kind, {}).get("images") if kind else None
    figures = ", ".join(f"{word} {100 * value:.2f} %" for word, value in score.items())
    return TEMPLATE.format(
        front=yaml.safe_dump(front, sort_keys=False, allow_unicode=True),
        title=_text(repository.rpartition("/")[2]),
        sentence=f"A convolutional network{f' with channel attention ({method})' if method else ''} for images of "
        f"{spec.num_classes} classes.",
        rows=table,
        score=f"## Score\n\n{figures} on {images} images ({kind}) of {_text(data)}.\n\n" if score else "",
        source=source,
        network=spec.name,
        timm=usage if timm else "",
    )


def _score(trained: Mapping[str, Any]) -> tuple[dict[str, float], str]:
    """Return top-1 and top-5 as shares, and the split they are of; empty where the file says nothing."""
    for split in ("test", "validation"):
        figures = trained.get(split)
        if isinstance(figures, Mapping):
            words = {"top-1": figures.get("top1"), "top-5": figures.get("top5")}
            numbers = {k: v for k, v in words.items() if isinstance(v, float) and 0 <= v <= 1}
            if numbers:
                return numbers, split
    return {}, ""


def _text(value: object) -> str:
    """Return somebody else's words in one line without marks that a page obeys."""
    return re.sub(r"([\\`*_|<>\[\]#&])", r"\\\1", printable(value)[:500])


def _code(value: object) -> str:
    """Return somebody else's words as code."""
    return "`" + re.sub(r"[`|]", "'", printable(value)[:300]) + "`"


def _numbers(values: object) -> str:
    return json.dumps(values)
