"""The gate of ECA as torch's Conv1d and as `excite.ops.correlate` does it, without C and with: by batch and channels.

python benchmarks/gate.py
"""

import itertools
from typing import Any

import torch
from torch import nn

from excite.measure.bench import environment, interleave, ratio
from excite.measure.bench.environment import in_words
from excite.ops import correlate as module
from excite.ops.correlate import Correlate

FORMS = ("Conv1d", "sums", "C")


def main() -> None:
    """Print a Markdown table."""
    print(f"{in_words(environment())}\n")
    print(
        "| batch | channels | " + " | ".join(f"{form} forward | backward" for form in FORMS) + " | C, ratio to Conv1d |"
    )
    print("|---:|---:|" + "---:|---:|" * len(FORMS) + "---:|")
    kernels = module.native
    for batch, channels in itertools.product((1, 4, 16, 64), (64, 512, 2048)):
        conv = nn.Conv1d(1, 1, 5, padding=2, bias=False)
        s, grad = torch.randn(batch, channels, requires_grad=True), torch.randn(batch, channels)

        def forward(form: str, conv: nn.Conv1d = conv, s: torch.Tensor = s) -> torch.Tensor:
            if form == "Conv1d":
                return conv(s[:, None])[:, 0]
            module.native = kernels if form == "C" else lambda: None
            return Correlate.apply(s, conv.weight)

        def both(form: str, forward: Any = forward, grad: torch.Tensor = grad) -> None:
            forward(form).backward(grad)

        calls = {form: lambda form=form, forward=forward: forward(form) for form in FORMS}
        calls |= {f"{form} both": lambda form=form, both=both: both(form) for form in FORMS}
        found = interleave(calls, rounds=15, min_time=0.005)
        module.native = kernels
        times = []
        for form in FORMS:
            one, two = (1e6 * found[k].median for k in (form, f"{form} both"))
            times += [f"{one:.0f} us", f"{two - one:.0f} us"]
        r = ratio(found["C both"], found["Conv1d both"])
        print(
            f"| {batch} | {channels} | {' | '.join(times)} | {r.value:.2f} [{r.ci_low:.2f}, {r.ci_high:.2f}] |",
            flush=True,
        )


if __name__ == "__main__":
    main()
