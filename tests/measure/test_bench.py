"""Timing: order, ratios, spreads; and the bench around it."""

import json
import math
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import excite
from excite import ops
from excite.cli.main import main
from excite.errors import ExciteError, UsageError
from excite.measure.bench import Clock, Timing, environment, interleave, ratio
from excite.measure.bench.memory import peak_memory
from excite.measure.bench.plots import bars, latency_accuracy
from excite.measure.bench.run import bench
from excite.measure.bench.timing import median_interval, quantile
from excite.measure.bench.variants import inference, training, variants
from excite.measure.names import accuracies
from excite.measure.records import load_records


class Scripted(Clock):
    """A clock on which each call takes as long as it says."""

    def __init__(self) -> None:
        self.now = 0.0

    def start(self) -> None:
        self.began = self.now

    def stop(self) -> float:
        return self.now - self.began

    def call(self, seconds: float, log: list[str], name: str):
        def run() -> None:
            log.append(name)
            self.now += seconds

        return run


def test_functions_run_in_turn_forwards_and_backwards() -> None:
    clock, log = Scripted(), []
    calls = {n: clock.call(1.0, log, n) for n in "abc"}
    interleave(calls, 4, warmup=1, min_time=0, clock=clock)
    assert "".join(log[6:]) == "abccbaabccba"  # after one warm-up and one calibrating call of each


def test_times_and_ratios() -> None:
    clock, log = Scripted(), []
    calls = {"a": clock.call(0.010, log, "a"), "b": clock.call(0.025, log, "b")}
    timings = interleave(calls, 5, min_time=0.1, clock=clock)
    assert (timings["a"].calls, timings["b"].calls) == (10, 4)
    assert timings["a"].median == pytest.approx(0.010)
    assert timings["a"].iqr == pytest.approx(0, abs=1e-12)
    found = ratio(timings["b"], timings["a"])
    assert [found.value, found.low, found.high, found.ci_low, found.ci_high] == pytest.approx([2.5] * 5)
    assert (found.coverage, found.rounds) == (0.9375, 5)


def test_a_drifting_machine_does_not_move_the_ratio() -> None:
    drift = [1.0, 1.5, 3.0, 2.0, 1.2]
    a = Timing("a", 1, drift)
    b = Timing("b", 1, [1.1 * d for d in drift])
    found = ratio(b, a)
    assert found.value == pytest.approx(1.1)
    assert found.high - found.low == pytest.approx(0, abs=1e-9)


def test_the_ratio_is_taken_within_each_round() -> None:
    """Not of the medians, which are of different rounds here."""
    a, b = Timing("a", 1, [1.0, 2.0, 4.0, 1.0, 8.0]), Timing("b", 1, [3.0, 3.0, 4.0, 1.5, 16.0])
    assert (a.median, b.median) == (2.0, 3.0)
    assert ratio(b, a).value == 1.5
    c = Timing("c", 1, [3.0, 2.0, 4.8, 3.0, 8.0])
    assert ratio(c, a).value == pytest.approx(1.2)  # of 3, 1, 1.2, 3, 1; of the medians 1.5
    assert ratio(a, c).value == pytest.approx(1 / 1.2)


def test_spread_holds_the_middle_of_the_rounds() -> None:
    a, b = Timing("a", 1, [1.0] * 21), Timing("b", 1, [1 + i / 100 for i in range(21)])
    found = ratio(b, a)
    assert (found.value, found.low, found.high) == pytest.approx((1.10, 1.01, 1.19))
    assert found.low < found.ci_low < found.value < found.ci_high < found.high
    assert quantile([1, 2, 3, 4], 0.5) == 2.5


def test_interval_of_the_median_is_that_of_the_coin() -> None:
    for n, (rank, coverage) in {5: (1, 0.9375), 6: (1, 0.96875), 9: (2, 0.9609375), 15: (4, 0.96484375)}.items():
        values = [float(v) for v in range(n)]
        assert median_interval(values) == (rank - 1, n - rank, pytest.approx(coverage))
    with pytest.raises(UsageError, match="at least two"):
        median_interval([1.0])


NOISES: dict[str, Callable[[random.Random], float]] = {  # each has the median 0
    "normal": lambda draw: draw.gauss(0, 1),
    "one round in ten ten times as noisy": lambda draw: draw.gauss(0, 10 if draw.random() < 0.1 else 1),
    "slow rounds far more often than fast ones": lambda draw: math.exp(draw.gauss(0, 1)) - 1,
    "two speeds": lambda draw: draw.choice((-1, 1)) + draw.gauss(0, 0.1),
}


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("rounds", [6, 7, 9, 11, 15, 21])
def test_interval_of_a_ratio_holds_the_truth_as_often_as_it_says(rounds: int, noise: str) -> None:
    draw, trials, held = random.Random(rounds), 800, 0
    for _ in range(trials):
        drift = [1 + draw.random() for _ in range(rounds)]  # of the machine, under both functions alike
        slower = [d * 1.05 * math.exp(0.02 * NOISES[noise](draw)) for d in drift]
        measured = ratio(Timing("b", 1, slower), Timing("a", 1, drift))
        held += measured.ci_low <= 1.05 <= measured.ci_high
        assert measured.coverage >= 0.95
    # 800 trials of 0.95 have a standard deviation of 0.008.
    assert held / trials >= 0.93


@pytest.mark.parametrize("options", [{"rounds": 2}, {"warmup": 0}, {"min_time": -1.0}])
def test_impossible_timing(options: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="timing needs"):
        interleave({"a": lambda: None}, **{"rounds": 3, **options})
    with pytest.raises(UsageError, match="0 functions"):
        interleave({}, 3)


def test_variants_are_every_combination() -> None:
    made = variants(["a", "b"], ["eager", "channels-last"], ["fp32"], ["torch"])
    assert [v.label for v in made] == ["a [eager]", "b [eager]", "a [channels-last]", "b [channels-last]"]
    assert [v.label for v in variants(["a"], ["eager"], ["fp32"], ["torch"])] == ["a"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((["a"], ["fast"], ["fp32"], ["torch"]), "unknown mode 'fast'"),
        ((["a"], ["eager"], ["fp8"], ["torch"]), "unknown precision 'fp8'"),
        ((["a"], ["eager"], ["fp32"], ["tensorrt"]), "unknown engine 'tensorrt'"),
        ((["a"], ["compiled"], ["fp32"], ["openvino"]), "has no mode 'compiled'"),
        ((["a", "a"], ["eager"], ["fp32"], ["torch"]), "named twice"),
        (([], ["eager"], ["fp32"], ["torch"]), "at least one model"),
    ],
)
def test_impossible_variants(arguments: tuple[list[str], ...], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        variants(*arguments)


def net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    )


def only(**options: str):
    return variants(["n"], [options.get("mode", "eager")], [options.get("precision", "fp32")], ["torch"])[0]


def test_inference_runs_in_eval_mode_in_the_asked_precision() -> None:
    model = net().train()
    modes: list[bool] = []
    model[0].register_forward_hook(lambda module, inputs, output: modes.append(module.training))
    out = inference(only(precision="bf16"), model, (2, 3, 8, 8), "cpu")()
    assert modes == [False]
    assert (out.dtype, tuple(out.shape), out.requires_grad) == (torch.bfloat16, (2, 4), False)


def test_channels_last_reaches_the_network() -> None:
    seen = []
    model = net()
    model[0].register_forward_hook(lambda m, a, y: seen.append((a[0], m.weight)))
    inference(only(mode="channels-last"), model, (2, 3, 8, 8), "cpu")()
    assert all(t.is_contiguous(memory_format=torch.channels_last) for t in seen[0])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_training_step_trains(precision: str) -> None:
    model = net()
    before = [p.clone() for p in model.parameters()]
    running = model[1].running_mean.clone()
    step = training(only(precision=precision), model, (4, 3, 8, 8), "cpu")
    first = float(step())
    for _ in range(5):
        last = float(step())
    assert last < first
    assert all(not torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True) if p.dim() > 1)
    assert not torch.equal(model[1].running_mean, running)


def test_training_that_cannot_be() -> None:
    with pytest.raises(UsageError, match="fp16 needs CUDA"):
        training(only(precision="fp16"), net(), (4, 3, 8, 8), "cpu")
    other = variants(["n"], ["eager"], ["fp32"], ["openvino"])[0]
    with pytest.raises(UsageError, match="does not train"):
        training(other, net(), (4, 3, 8, 8), "cpu")


def test_peak_memory_on_the_cpu() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 1, bias=False), nn.Conv2d(8, 16, 1, bias=False))
    x = torch.zeros(1, 3, 10, 10)
    weights = 4 * (24 + 128)

    def forward() -> None:
        with torch.no_grad():
            model(x)

    assert peak_memory(forward, model, "cpu") == weights + 4 * 100 * (8 + 16)
    step = training(only(), net(), (4, 3, 8, 8), "cpu")
    step()
    assert peak_memory(step, net(), "cpu") > 4 * 4 * 8 * 36  # at least the first convolution's output is kept


def test_peak_memory_is_that_of_the_kernels_that_run() -> None:
    model = excite.create_model("eca_resnet20", num_classes=10)
    x = torch.randn(8, 3, 16, 16)

    def step() -> None:
        model(x).sum().backward()

    with ops.use("reference"):
        modules = peak_memory(step, model, "cpu")
    with ops.use("fused"):
        fused = peak_memory(step, model, "cpu")
    assert fused < 0.95 * modules


def small_report(**options):
    chosen = variants(["resnet20", "eca_resnet20"], ["eager"], ["fp32"], ["torch"])
    from excite.models import create_model

    builders = {v.model: (lambda name=v.model: create_model(name, num_classes=10)) for v in chosen}
    return bench(chosen, builders, **{"input_shape": (3, 16, 16), "rounds": 3, "warmup": 1, "min_time": 0.0, **options})


def test_bench_measures_every_task_and_batch_size(tmp_path: Path) -> None:
    seen = []
    report = small_report(
        tasks=("latency", "throughput", "training"), batch_sizes=(2, 3), progress=lambda *what: seen.append(what)
    )
    assert {(r.task, r.batch_size) for r in report.results} == {
        ("latency", 1), ("throughput", 2), ("throughput", 3), ("training", 2), ("training", 3),
    }  # fmt: skip
    for r in report.results:
        assert 0 < r.quartile_low <= r.seconds <= r.quartile_high
        assert r.rate == pytest.approx(r.batch_size / r.seconds)
        assert len(r.samples) == r.rounds == 3
        assert r.ratio_low <= r.ratio <= r.ratio_high
        assert r.ratio == 1 or r.label == "eca_resnet20"
        assert r.peak_bytes is not None
        assert r.peak_bytes > 4 * 270_000
    by_task = {(r.task, r.batch_size): r.peak_bytes for r in report.results if r.label == "resnet20"}
    assert by_task["throughput", 3] > by_task["latency", 1]
    assert by_task["training", 3] > 2 * by_task["throughput", 3]
    assert ("training, batch 3", 3, 3) in seen
    for file in (
        bars(report, tmp_path / "b.png"),
        latency_accuracy(report, {"resnet20": 92.0}, tmp_path / "a.png", "x"),
    ):
        assert file.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UsageError, match=r"plots are PNG"):
        bars(report, tmp_path / "b.jpg")
    with pytest.raises(UsageError, match="no accuracy for any"):
        latency_accuracy(report, {}, tmp_path / "a.png", "x")


def test_records_of_a_bench_join_the_tables(tmp_path: Path) -> None:
    report = small_report(input_shape=(3, 224, 224), memory=False)
    (tmp_path / "run.json").write_text(json.dumps(report.to_dict({"eca_resnet20": "kernel_size=3"})))
    records = load_records(tmp_path)
    assert [(r.model, r.options, r.dataset, r.column, r.run) for r in records] == [
        ("resnet20", "", "speed", "FPS", "run.json"),
        ("eca_resnet20", "kernel_size=3", "speed", "FPS", "run.json"),
    ]
    assert records[0].value == report.results[0].rate
    assert not small_report(memory=False).to_dict()["records"]  # another input size than the published speeds'


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tasks": ("speed",)}, "unknown task 'speed'"),
        ({"tasks": ()}, "at least one task"),
        ({"batch_sizes": (0,)}, "batch sizes must be at least 1"),
        ({"tasks": ("training",), "batch_sizes": ()}, "need at least one batch size"),
    ],
)
def test_impossible_benches(options: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        small_report(**options)


def test_a_failing_network_is_named_with_its_layer() -> None:
    with pytest.raises(ExciteError, match=r"n: forward failed in layer '0' \(Conv2d\)"):
        bench(variants(["n"], ["eager"], ["fp32"], ["torch"]), {"n": net}, input_shape=(5, 8, 8))


def test_accuracies() -> None:
    assert accuracies(["resnet50"], None)[0] == {"resnet50": 75.89}
    assert accuracies(["a"], ["a=71.5"]) == ({"a": 71.5}, "as given")
    for wrong in ("a", "b=3", "a=x", "a=101"):
        with pytest.raises(UsageError, match="accuracy"):
            accuracies(["a"], [wrong])


def test_environment_says_where() -> None:
    values = environment()
    assert values["threads"] == torch.get_num_threads()
    assert values["processor"]
    assert values["versions"]["torch"] == torch.__version__.partition("+")[0]


def test_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file, picture = tmp_path / "b.json", tmp_path / "b.png"
    command = ["bench", "resnet20", "eca_resnet20", "--size", "16", "--rounds", "3", "--min-time", "0"]
    command += ["--task", "latency", "--out", str(file), "--plot", str(picture)]
    assert main([*command, "--options.eca_resnet20.kernel_size", "5"]) == 0
    text = capsys.readouterr().out
    assert "time / resnet20" in text
    assert "90 % of rounds" in text
    values = json.loads(file.read_text())
    assert [r["label"] for r in values["results"]] == ["resnet20", "eca_resnet20"]
    assert values["environment"]["processor"] in text
    assert picture.stat().st_size > 1000
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["settings"]["rounds"] == 3


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_the_table_tells_modes_apart(capsys: pytest.CaptureFixture[str]) -> None:
    given = ["resnet20", "--mode", "eager", "channels-last", "--rounds", "3", "--min-time", "0", "--size", "32"]
    assert main(["bench", *given, "--task", "latency"]) == 0
    text = capsys.readouterr().out
    assert "resnet20 [eager]" in text
    assert "resnet20 [channels-last]" in text


def test_cuda_asked_for_where_there_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "resnet20", "--device", "cuda"]) == 2
    assert "torch finds no GPU here; use --device cpu" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["resnet20", "--mode", "quick"], "--mode quick: expected a list, each one of 'eager'"),
        (["resnet20", "--size", "0"], "at least 1 pixel"),
        (["resnet20", "--threads", "0"], "--threads 0"),
        (["resnet20", "--accuracy", "x=1"], "accuracy 'x=1'"),
        (["resnet2x"], "unknown model"),
    ],
)
def test_bad_input(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *arguments]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda() -> None:
    report = small_report(device="cuda", tasks=("latency", "training"), batch_sizes=(2,))
    assert report.environment["gpu"]
    assert all(r.seconds > 0 and r.peak_bytes for r in report.results)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_other_engines(engine: str) -> None:
    pytest.importorskip(engine)
    chosen = variants(["n"], ["eager"], ["fp32"], ["torch", engine])
    report = bench(chosen, {"n": net}, input_shape=(3, 16, 16), rounds=3, warmup=1, min_time=0.0)
    assert [r.engine for r in report.results] == ["torch", engine]


@pytest.mark.slow
def test_compiled() -> None:
    report = bench(variants(["n"], ["compiled"], ["fp32"], ["torch"]), {"n": net}, input_shape=(3, 16, 16), rounds=3)
    assert report.results[0].peak_bytes is None


@pytest.mark.parametrize("command", ["bench", "export"])
def test_the_number_of_classes_is_not_ignored_beside_a_checkpoint(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from excite.checkpoints.bundle import save_bundle
    from excite.models import create_model

    save_bundle(tmp_path / "net.safetensors", create_model("resnet20", num_classes=3, width=4))
    words = [command, str(tmp_path / "net.safetensors"), "--num-classes", "7"]
    words += ["--out", str(tmp_path / "net.onnx")] if command == "export" else []
    assert main(words) == 2
    assert "--num-classes" in capsys.readouterr().err


def test_exported_files_stand_beside_networks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from excite.export import export_model
    from excite.models import NetworkSpec

    how = {"size": 16, "resize": 16, "mean": [0.5] * 3, "std": [0.25] * 3}
    spec = NetworkSpec("resnet20", 3, options={"width": 4}, preprocess=how)
    file = tmp_path / "net.pt2"
    export_model(spec.build(), spec, file, format="torch-export", input_size=16)
    quick = ["--rounds", "3", "--min-time", "0.001", "--warmup", "1"]
    words = ["bench", str(file), "resnet20", "--options.resnet20.width", "4", *quick, "--json"]
    assert main([*words, "--size", "16"]) == 0
    results = json.loads(capsys.readouterr().out)["results"]
    assert [(r["model"], r["engine"], r["precision"], r["task"]) for r in results] == [
        (str(file), "torch", "as exported", "latency"),
        ("resnet20", "torch", "fp32", "latency"),
    ]
    for more, reason in [
        (["--size", "32"], "give --size 16"),
        (["--size", "16", "--task", "throughput"], "exported for batches of 1"),
        (["--size", "16", "--task", "training"], "does not train"),
        (["--size", "16", "--precision", "bf16"], "a precision of its own"),
        (["--size", "16", "--num-classes", "3", "--model", "resnet20"], "without --model"),
    ]:
        assert main([*words, *more]) == 2
        assert reason in capsys.readouterr().err
