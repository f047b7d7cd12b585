import pytest
import torch
from torch import nn

from excite import create_model, recipes
from excite.data import open_data
from excite.data.arrays import ArrayImages
from excite.data.preprocess import Preprocess
from excite.detect.config import DetectConfig
from excite.engine.optim import lr_factor, make_optimizer, split_parameters
from excite.engine.seeds import INDEXED, WORDS, derive, epoch_order, generator
from excite.errors import UsageError
from excite.train import TrainConfig
from excite.train.augment import crop_and_flip, mixer, train_transform
from excite.train.config import resolve_recipe
from excite.train.loaders import CachedEvalLoader, CachedTrainLoader, WorkerLoader, image_readers
from imagesets import image_folder


def test_seeds_differ_and_repeat():
    assert derive("order", 1, 2) == derive("order", 1, 2)
    assert len({derive("order", a, b) for a in range(20) for b in range(20)}) == 400
    assert derive("order", 0, 1) != derive("order", 1, 0)


def test_no_two_streams_share_numbers():
    """Zeros count too: the first epoch, process, batch and image are zeros."""
    places = [(s, e, r, i) for s in (0, 1) for e in range(4) for r in range(3) for i in range(4)]
    seeds = [derive(stream, *place) for stream in WORDS for place in places if stream in INDEXED or place[3] == 0]
    assert len(set(seeds)) == len(seeds)


def test_order_is_a_permutation_shared_out_evenly():
    whole = epoch_order(10, 0, 3)
    assert sorted(whole.tolist()) == list(range(10))
    assert not torch.equal(whole, epoch_order(10, 0, 4))
    parts = [epoch_order(10, 0, 3, rank, 3) for rank in range(3)]
    assert [len(p) for p in parts] == [3, 3, 3]
    assert len(set(torch.cat(parts).tolist())) == 9


def test_crop_and_flip_is_a_window_of_the_padded_image():
    images = torch.randint(1, 255, (64, 3, 8, 8), dtype=torch.uint8)
    out = crop_and_flip(images, 2, True, generator("augmentation", 0, 0))
    assert out.shape == images.shape
    assert out.dtype == torch.uint8
    padded = nn.functional.pad(images, (2, 2, 2, 2))
    flips = 0
    for before, after in zip(padded, out, strict=True):
        windows = [before[:, t : t + 8, x : x + 8] for t in range(5) for x in range(5)]
        straight = any(torch.equal(w, after) for w in windows)
        assert straight or any(torch.equal(w.flip(-1), after) for w in windows)
        flips += not straight
    assert 15 < flips < 50
    assert torch.equal(crop_and_flip(images, 0, False, generator("augmentation", 0, 0)), images)


STEPS = 10  # per epoch


@pytest.mark.parametrize("kind", [TrainConfig, DetectConfig])
@pytest.mark.parametrize(
    ("options", "factors"),
    [
        ({"schedule": "step", "step_epochs": 30, "epochs": 100}, {0: 1, 29.9: 1, 30: 0.1, 60: 0.01, 99: 0.001}),
        ({"schedule": "step", "milestones": [8, 11], "epochs": 12}, {0: 1, 7.9: 1, 8: 0.1, 10.9: 0.1, 11: 0.01}),
        ({"schedule": "exponential", "step_epochs": 1, "gamma": 0.98, "epochs": 400}, {10.5: 0.98**10}),
        ({"schedule": "exponential", "step_epochs": 1, "gamma": 0.5, "milestones": [8]}, {2: 0.25, 8: 0.5**8}),
        ({"schedule": "cosine", "epochs": 10}, {0: 1, 5: 0.5, 10: 0}),
        ({"schedule": "cosine", "epochs": 10, "warmup_epochs": 2}, {0: 0, 1: 0.5, 2: 1, 6: 0.5, 10: 0}),
        ({"schedule": "cosine", "epochs": 10, "warmup_steps": 20}, {0: 0.001, 1: 0.5005, 2: 1, 6: 0.5, 10: 0}),
        ({"schedule": "cosine", "epochs": 10, "warmup_steps": 0, "warmup_epochs": 2}, {0: 0, 1: 0.5, 2: 1, 6: 0.5}),
        ({"schedule": "constant", "epochs": 3, "warmup_steps": 500}, {0: 0.001, 0.5: 0.5005, 1: 1, 3: 1}),
        ({"schedule": "constant", "warmup_epochs": 0.5}, {0: 0, 0.25: 0.5, 0.5: 1, 7: 1}),
    ],
)
def test_learning_rate_schedules(kind, options, factors):
    """Both kinds of run have all schedules, and either warm-up."""
    config = kind(**{"milestones": [], "warmup_steps": None, **options})
    config.check()
    for epoch, factor in factors.items():
        assert lr_factor(config, epoch * STEPS, STEPS) == pytest.approx(factor, abs=1e-9), epoch


def test_no_decay_spares_norms_biases_and_attention():
    model = create_model("se_resnet20", num_classes=10)
    names = {id(p): n for n, p in model.named_parameters()}
    decayed, free = ([names[id(p)] for p in group] for group in split_parameters(model, ["norm", "bias", "attention"]))
    assert set(decayed) | set(free) == set(names.values())
    assert all("attention" not in n and "bn" not in n and not n.endswith("bias") for n in decayed)
    assert "conv1.weight" in decayed
    assert "fc.weight" in decayed
    assert "layer1.0.attention.gate.reduce.weight" in free
    assert split_parameters(model, [])[1] == []
    optimizer = make_optimizer(model, TrainConfig(no_decay=["norm"], weight_decay=0.1))
    assert [g["weight_decay"] for g in optimizer.param_groups] == [0.1, 0.0]


def test_mixing_gives_soft_labels():
    labels = torch.arange(8) % 4
    for changes in ({"mixup": 0.5}, {"cutmix": 1.0}, {"mixup": 0.5, "cutmix": 1.0}):
        images, soft = mixer(TrainConfig(**changes), 4)(torch.rand(8, 3, 8, 8), labels)
        assert soft.shape == (8, 4)
        assert torch.allclose(soft.sum(1), torch.ones(8))
        assert images.shape == (8, 3, 8, 8)
    assert mixer(TrainConfig(), 4) is None


@pytest.mark.parametrize("augment", ["crop", "resized-crop", "none"])
def test_transforms_give_uint8_squares(augment):
    config = TrainConfig(augment=augment, randaugment=9, flip=True)
    image = torch.randint(0, 255, (3, 50, 40), dtype=torch.uint8)
    for transform in (train_transform(config, 24), Preprocess(24, 32).image):
        out = transform(image)
        assert (out.shape, out.dtype) == ((3, 24, 24), torch.uint8)


def test_cached_batches_depend_on_seed_and_epoch_only():
    images = ArrayImages(torch.randint(0, 255, (20, 3, 8, 8), dtype=torch.uint8), torch.arange(20))
    config = TrainConfig(batch_size=8, padding=2, flip=True)
    loader, other = CachedTrainLoader(images, config), CachedTrainLoader(images, config)
    first = list(loader)
    assert [len(y) for _, y in first] == [8, 8]
    loader.set_epoch(1)
    second = list(loader)
    other.set_epoch(1)
    assert all(torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(second, other, strict=True))
    assert not torch.equal(first[0][1], second[0][1])
    assert loader.waited > 0


def loaders(seed: int, *, cached: bool, alike: bool, flip: bool) -> tuple[list, list]:
    """The training batches of two epochs, and those of a validation; alike: all images are the same."""
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 255, (1 if alike else 24, 3, 8, 8), generator=draw, dtype=torch.uint8)
    images = ArrayImages(pixels.expand(24, -1, -1, -1).contiguous(), torch.arange(24))
    config = TrainConfig(batch_size=4, seed=seed, padding=3, flip=flip, workers=0, augment="crop" if alike else "none")
    if cached:
        loader, val = CachedTrainLoader(images, config), CachedEvalLoader(images, 4)
    else:
        transform = train_transform(config, 8)
        readers = image_readers(config, train=(images, transform), val=(images, transform))
        loader, val = (WorkerLoader(readers, split, 24, config) for split in ("train", "val"))
    batches = []
    for epoch in (0, 1):
        loader.set_epoch(epoch)
        batches.append(list(loader))
    return batches, list(val)


@pytest.mark.parametrize("cached", [True, False])
def test_order_depends_on_seed_and_epoch(cached):
    orders = []
    for seed in (0, 1, 1):
        epochs, val = loaders(seed, cached=cached, alike=False, flip=False)
        orders.append([torch.cat([labels for _, labels in epoch]).tolist() for epoch in epochs])
        assert torch.cat([labels for _, labels in val]).tolist() == list(range(24))
    assert orders[1] == orders[2]
    different = [tuple(order) for run in orders[:2] for order in run]
    assert len(set(different)) == 4
    assert all(sorted(order) == list(range(24)) for order in different)


@pytest.mark.parametrize("cached", [True, False])
def test_augmentation_depends_on_seed_epoch_and_image(cached):
    """All images are the same: what differs is how they are cut and turned."""
    runs = []
    for seed in (0, 1, 1):
        epochs, _ = loaders(seed, cached=cached, alike=True, flip=True)
        runs.append([torch.stack([images for images, _ in epoch]) for epoch in epochs])
    assert all(torch.equal(a, b) for a, b in zip(runs[1], runs[2], strict=True))
    by_image = []
    for seed in (0, 1):
        for epoch in loaders(seed, cached=cached, alike=True, flip=True)[0]:
            views = {int(label): image for images, labels in epoch for image, label in zip(images, labels, strict=True)}
            by_image.append([views[i] for i in range(24)])
    for i, views in enumerate(by_image):
        for others in by_image[:i]:  # 1 of 98 are the same by chance
            assert sum(torch.equal(a, b) for a, b in zip(views, others, strict=True)) < 6
    batches = runs[0][0]
    assert not any(torch.equal(batches[0], other) for other in batches[1:])
    # The order differs too, so the places in it are compared: they are cut alike where only an order was drawn.
    places = [*runs[0], *runs[1]]
    assert not any(torch.equal(one, other) for i, one in enumerate(places) for other in places[:i])


@pytest.mark.parametrize("cached", [True, False])
def test_crops_reach_every_corner_and_flips_are_half(cached):
    """Where a marked pixel of the image comes to lie: within the padding on all sides, and mirrored in half of all."""
    image = torch.zeros(3, 9, 9, dtype=torch.uint8)
    image[:, 4, 4], image[0, 4, 5] = 255, 255
    images = ArrayImages(image.expand(400, -1, -1, -1).contiguous(), torch.arange(400))
    config = TrainConfig(batch_size=400, padding=3, flip=True, workers=0)
    if cached:
        batches = list(CachedTrainLoader(images, config))
    else:
        batches = list(
            WorkerLoader(image_readers(config, train=(images, train_transform(config, 9))), "train", 400, config)
        )
    places = (batches[0][0][:, 1] == 255).nonzero()
    assert places[:, 0].tolist() == list(range(400))
    assert {tuple(place) for place in places[:, 1:].tolist()} == {(i, j) for i in range(1, 8) for j in range(1, 8)}
    mirrored = [int(batches[0][0][i, 0, y, x - 1]) == 255 for i, y, x in places.tolist()]
    assert 140 < sum(mirrored) < 260


def test_a_split_loader_counts_its_incomplete_batch(tmp_path):
    source = open_data(f"imagefolder:{image_folder(tmp_path, per_class=5)}").val
    config = TrainConfig(batch_size=4, workers=0)
    loader = WorkerLoader(image_readers(config, val=(source, Preprocess(24, 32).image)), "val", len(source), config)
    assert [len(labels) for _, labels in loader] == [4, 4, 2]


def test_resized_crops_are_of_many_parts_of_an_image():
    image = torch.arange(64, dtype=torch.uint8).repeat(64, 1).expand(3, -1, -1) * 4
    transform = train_transform(TrainConfig(augment="resized-crop"), 16)
    torch.manual_seed(0)
    widths = [int(out[0, 8, -1]) - int(out[0, 8, 0]) for out in (transform(image) for _ in range(40))]
    assert min(widths) < 130
    assert max(widths) > 190


def test_randaugment_is_as_strong_as_it_is_told():
    image = torch.randint(0, 255, (3, 24, 24), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    changes = []
    for magnitude in (1, 30):
        transform = train_transform(TrainConfig(augment="none", randaugment=magnitude), 24)
        torch.manual_seed(0)
        changes.append(sum(float((transform(image).float() - image.float()).abs().mean()) for _ in range(30)))
    assert changes[0] < 0.7 * changes[1]


def test_frozen_parameters_are_not_optimised():
    model = create_model("se_resnet20", num_classes=10)
    model.conv1.weight.requires_grad_(False)
    optimized = {id(p) for group in make_optimizer(model, TrainConfig()).param_groups for p in group["params"]}
    assert optimized == {id(p) for p in model.parameters()} - {id(model.conv1.weight)}


def test_worker_processes_give_the_same_batches(tmp_path):
    source = open_data(f"imagefolder:{image_folder(tmp_path, per_class=4)}").train
    epochs = []
    for workers in (0, 1):
        config = TrainConfig(batch_size=4, workers=workers, randaugment=9, augment="resized-crop", flip=True)
        readers = image_readers(config, train=(source, train_transform(config, 24)))
        loader = WorkerLoader(readers, "train", len(source), config)
        epochs.append([])
        for epoch in (0, 1):
            loader.set_epoch(epoch)
            epochs[-1] += list(loader)
    assert len(epochs[0]) == 4
    for (images, labels), (others, same) in zip(*epochs, strict=True):
        assert torch.equal(images, others)
        assert torch.equal(labels, same)


@pytest.mark.parametrize("name", recipes.names())
def test_recipes_are_complete_and_valid(name):
    text = recipes.text(name)
    assert text.startswith("# ")
    assert "# command:  excite train" in text
    assert "# expected:" in text
    TrainConfig.from_recipe(recipe=name).check()
    needed = {"epochs", "batch_size", "lr", "weight_decay", "schedule", "augment", "flip", "momentum"}
    assert needed <= set(recipes.load(name))


def test_recipes_say_what_the_papers_say():
    eca = TrainConfig.from_recipe("eca_resnet50", "ecanet-imagenet")
    assert (eca.lr, eca.momentum, eca.weight_decay, eca.batch_size, eca.epochs) == (0.1, 0.9, 1e-4, 256, 100)
    assert (eca.schedule, eca.step_epochs, eca.gamma, eca.size, eca.resize) == ("step", 30, 0.1, 224, 256)
    mobile = TrainConfig.from_recipe("eca_mobilenet_v2", "ecanet-mobilenetv2")
    assert (mobile.lr, mobile.weight_decay, mobile.batch_size, mobile.epochs, mobile.gamma) == (
        0.045,
        4e-5,
        96,
        400,
        0.98,
    )
    assert mobile.options == {"dropout": 0.25}
    with torch.device("meta"):
        assert create_model(mobile.model, **mobile.options).classifier[0].p == 0.25
    cifar = TrainConfig.from_recipe("eca_resnet50_cifar", "emanet-cifar10")
    assert (cifar.lr, cifar.weight_decay, cifar.batch_size, cifar.epochs) == (0.1, 5e-4, 120, 200)
    assert (cifar.schedule, cifar.padding, cifar.flip, cifar.augment) == ("cosine", 4, True, "crop")


@pytest.mark.parametrize(
    ("model", "data", "recipe"),
    [
        ("eca_resnet20", "digits", "digits"),
        ("eca_resnet20", "parquet:x", "emanet-cifar10"),
        ("se_resnet50_cifar", "imagefolder:x", "emanet-cifar10"),
        ("resnet50", "cifar10", "emanet-cifar10"),
        ("timm/resnet10t", "parquet:../shared/data/cifar10", "emanet-cifar10"),
        ("timm/resnet10t", "parquet:/data/CIFAR-100/train.parquet", "emanet-cifar10"),
        ("torchvision/mobilenet_v2", "imagefolder:cifar10/", "emanet-cifar10"),
        ("resnet50", "hfds:uoft-cs/cifar10", "emanet-cifar10"),
        ("resnet50", "imagefolder:/home/cifar/photographs/all", "ecanet-imagenet"),
        ("resnet50", "imagefolder:x", "ecanet-imagenet"),
        ("eca_mobilenet_v2", "hfds:x", "ecanet-mobilenetv2"),
        ("torchvision/mobilenet_v2", "hfds:x", "ecanet-mobilenetv2"),
        ("timm/mobilenetv2_100", "hfds:x", "ecanet-imagenet"),
    ],
)
def test_auto_recipe(model, data, recipe):
    assert resolve_recipe("auto", model, data) == recipe


def test_wrong_recipes(tmp_path):
    with pytest.raises(UsageError, match="unknown recipe 'modem'; did you mean 'modern'"):
        recipes.load("modem")
    with pytest.raises(UsageError, match=r"no recipe file nowhere\.yaml"):
        recipes.load("nowhere.yaml")
    own = tmp_path / "own.yaml"
    own.write_text("epoch: 3\n")
    with pytest.raises(UsageError, match="unknown option 'epoch'; did you mean 'epochs'"):
        TrainConfig.from_recipe(recipe=str(own))
    own.write_text("- 1\n")
    with pytest.raises(UsageError, match="must be a mapping"):
        recipes.load(str(own))
    own.write_text("a: [")
    with pytest.raises(UsageError, match="is not YAML"):
        recipes.load(str(own))


def test_from_run_needs_a_run(tmp_path):
    with pytest.raises(UsageError, match=r"no config\.yaml"):
        TrainConfig.from_run(tmp_path)
