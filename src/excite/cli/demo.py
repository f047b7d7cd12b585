"""`excite demo`: the page to play with."""

from excite.common.tables import say
from excite.errors import UsageError


def demo(
    checkpoints: list[str] = [],  # noqa: B006  (read, never written)
    *,
    model: list[str] = [],  # noqa: B006
    host: str = "127.0.0.1",
    port: int = 7860,
) -> None:
    """Serve a page that shows what networks see in a picture, and what their attention does to it.

    Drop a picture on it or take a sample: the most probable classes, Grad-CAM and channel weights of two networks side
    by side. Sliders pull the weights of a stage towards one (attention off) or towards another picture's, and show how
    the prediction moves. The page works offline; only this machine reaches it unless --host says otherwise.

    Args:
        checkpoints: checkpoints, run directories or random:NAME (default: the networks that come with excite).
        model: build this network for the weights instead of the one that a checkpoint names; one for all of them, or
            one for each in their order.
        host: the address to listen on; 0.0.0.0 lets every machine of the network in.
        port: the port to listen on; 0 takes a free one.

    Examples:
        excite demo
        excite demo runs/eca_resnet20-digits random:eca_resnet50 --port 8000
    """
    from excite.common.extras import require

    require("gradio", "captum", "matplotlib")
    if not 0 <= port <= 65535:
        raise UsageError(f"--port must be from 0 (a free one) to 65535, got {port}")
    from excite.explain.networks import models_of, open_networks
    from excite.pretrained import bundled

    sources = checkpoints or [f"{name}.{data}" for data, names in bundled().items() for name in names]
    networks = open_networks(sources, models_of(sources, model))
    from excite.demo.app import LOOPBACK, server

    with server(networks, host, port) as (running, url, listening):
        who = "this machine alone" if host in LOOPBACK else "every machine that reaches it, without a password"
        say(f"{url}  (for {who}; Ctrl+C stops it)")
        running.run(sockets=[listening])
