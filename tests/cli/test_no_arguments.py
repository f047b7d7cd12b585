"""The first commands a newcomer types have no arguments at all."""

from excite.cli.parsing import parse
from excite.cli.train import train


def test_train_without_arguments_is_eca_on_digits() -> None:
    call = parse(train, "excite train", [])
    assert call is not None
    config = call["config"]
    assert (config.model, config.data, config.recipe) == ("eca_resnet20", "digits", "digits")


def test_detect_train_without_arguments_draws_shapes() -> None:
    from excite.cli import COMMANDS
    from excite.cli.main import load

    detect = COMMANDS["detect"]
    assert isinstance(detect, dict)
    call = parse(load(detect["train"]), "excite detect train", [])
    assert call is not None
    assert call["config"].data == "shapes"
