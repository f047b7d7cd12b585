"""Options that are sequences themselves: one for all stages, or one for each."""

import pytest

from excite.errors import UsageError
from excite.models import create_model


def kernels(model) -> list[list[int]]:
    return [[b.kernel_size[0] for b in getattr(model, f"layer{i}")[0].conv2.branches] for i in range(1, 5)]


@pytest.mark.parametrize("value", [(1, 3, 5, 7), "1,3,5,7", [1, 3, 5, 7]])
def test_a_plain_list_is_the_value(value) -> None:
    assert kernels(create_model("psa_resnet50", kernels=value)) == [[1, 3, 5, 7]] * 4


def test_a_list_of_lists_has_one_per_stage() -> None:
    given = [[1, 3, 5, 7], [3, 5, 7, 9], [1, 3, 3, 3], [3, 3, 3, 3]]
    assert kernels(create_model("psa_resnet50", kernels=given)) == given


def test_a_list_for_other_options_has_one_per_stage() -> None:
    model = create_model("eca_resnet50", kernel_size=[3, 5, 5, 7])
    assert [getattr(model, f"layer{i}")[0].attention.gate.conv.kernel_size[0] for i in range(1, 5)] == [3, 5, 5, 7]
    with pytest.raises(UsageError, match="4 stages"):
        create_model("eca_resnet50", kernel_size=[3, 5])
