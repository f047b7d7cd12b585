"""One recorder: counters, surgery, the training summary and the method cards read the same trace."""

import itertools

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import excite
from excite.cli.method_cards import cost
from excite.errors import ExciteError
from excite.inspect.trace import run_on_fakes, run_on_meta, run_on_zeros
from excite.measure import profile_model
from excite.surgery.graph import follow
from excite.train.summary import count


@pytest.mark.parametrize("name", ["resnet20", "cbam_resnet20", "emca_eca_resnet20", "timm/mobilenetv3_small_050"])
def test_all_users_count_the_same(name: str) -> None:
    model = excite.create_model(name, num_classes=4).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, 32, 32))
    macs = counter.get_total_flops() // 2
    assert macs > 0
    assert profile_model(model, 32).macs["macs"] == macs
    assert follow(model, (3, 32, 32)).trace.macs == macs
    assert count(model, 32) == (sum(p.numel() for p in model.parameters()), macs)


def test_method_cards_count_as_the_flop_counter_does() -> None:
    module = excite.create_attention("cbam", 64)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(torch.zeros(1, 64, 14, 14))
    assert cost("cbam", 64, 14)[1] == counter.get_total_flops() // 2 > 0


@pytest.mark.parametrize("training", [True, False])
def test_every_way_of_running_sees_the_same_graph(training: bool) -> None:
    model = excite.create_model("se_resnet20", num_classes=4).train(training)
    like = next(model.parameters())
    shape = (1, 3, 16, 16)
    traces = [run_on_meta(model, shape), run_on_fakes(model, shape, like), run_on_zeros(model, shape, like)]
    first = traces[0]
    assert len(first.calls["layer1.0.conv1"]) == 1
    assert first.nodes[first.results[0]].shape == (1, 4)
    for other in traces[1:]:
        assert [(n.shape, n.inputs, n.stack, n.channel_dim) for n in other.nodes] == [
            (n.shape, n.inputs, n.stack, n.channel_dim) for n in first.nodes
        ]
        assert (other.macs, other.outputs) == (first.macs, first.outputs)
    assert model.training is training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_shapes_without_data_are_those_with_data() -> None:
    for dims in (1, 2, 3):
        conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
        for k, s, p, d, groups in itertools.product((1, 3), (1, 2, 3), (0, 2), (1, 2, 3), (1, 2)):
            model = conv(2, 4, k, s, p, d, groups)
            shape = (1, 2, *(9, 8, 7)[:dims])
            assert run_on_meta(model, shape).nodes[-1].shape == tuple(model(torch.zeros(shape)).shape), model
    for k, s, p in itertools.product((2, 3), (1, 2, None), (0, 1)):
        pool = nn.MaxPool2d(k, s, p)
        shape = (1, 2, 9, 8)
        assert (
            run_on_meta(nn.Sequential(nn.Conv2d(2, 2, 1), pool), shape).outputs["1"] == pool(torch.zeros(shape)).shape
        )


def test_tensors_that_are_gone_are_not_mistaken_for_new_ones() -> None:
    class Fresh(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for _ in range(20):
                x = x + torch.ones(1, 2, 4)  # no descendant of the input, whatever address it takes
            return x

    trace = run_on_zeros(Fresh(), (1, 2, 4), torch.zeros(()))
    adds = [node for node in trace.nodes if node.op == "add"]
    assert [node.inputs for node in adds] == [(i,) for i in range(20)]


def test_a_failure_names_its_layer_and_leaves_nothing_behind() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(5, 4, 3)).train()
    with pytest.raises(ExciteError, match=r"layer '1' \(Conv2d\)"):
        run_on_meta(model, (1, 3, 8, 8))
    assert model[1].training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
