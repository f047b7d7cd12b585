"""AP: ours against pycocotools, VOC's rule by hand, per-class rows and curves."""

import contextlib
import io
import json

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from excite.common.files import write_json
from excite.detect.data import open_split
from excite.detect.data.base import Annotation, DetectionDataset, Sample
from excite.detect.data.segments import decode, to_json
from excite.detect.evaluate import all_metrics, show
from excite.detect.metrics import coco_metrics
from excite.detect.results import read_results
from excite.detect.voc_ap import area, eleven_points, match, voc_metrics
from excite.errors import ExciteError, UsageError

NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl")


def invent(dataset, seed=0):
    """Detections near the truth with jitter, wrong labels, doubles and false alarms; masks are shifted truth."""
    rng = np.random.default_rng(seed)
    results = []
    for index, sample in enumerate(dataset.samples):
        for thing in sample.annotations:
            for _ in range(int(rng.integers(0, 3))):
                box = np.array(thing.box) + rng.normal(0, 0.06, 4) * max(thing.box[2:])
                box[2:] = np.maximum(box[2:], 1)
                label = thing.label if rng.random() < 0.85 else int(rng.integers(1, len(dataset.class_names) + 1))
                mask = np.roll(dataset.mask(index, thing), int(rng.integers(-3, 4)), axis=int(rng.integers(0, 2)))
                results.append(
                    {
                        "image_id": sample.image_id,
                        "category_id": dataset.category_ids[label - 1],
                        "bbox": [float(np.float32(v)) for v in box],
                        "score": float(np.float32(rng.random())),
                        "segmentation": to_json(mask),
                    }
                )
    return results


def reference(annotations, results, kind):
    """pycocotools' summary of a results file."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations))
        evaluation = COCOeval(truth, truth.loadRes(str(results)), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return dict(zip(NAMES, evaluation.stats[:6], strict=True)), evaluation


def masks_only(file):
    """The same results without boxes: beside a box, pycocotools takes a mask's size (s, m, l) from the box."""
    results = json.loads(file.read_text())
    copy = file.with_name("masks.json")
    copy.write_text(json.dumps([{k: v for k, v in r.items() if k != "bbox"} for r in results]))
    return copy


def test_ap_equals_pycocotools_on_the_same_file(shared_data, tmp_path):
    root = shared_data / "coco_tiny"
    dataset = open_split(f"coco:{root}", "val", masks=True)
    file = tmp_path / "results.json"
    write_json(file, invent(dataset))
    ours = coco_metrics(read_results(file, dataset, masks=True), dataset, masks=True)
    annotations = root / "annotations" / "instances_val2017.json"
    for kind, name in (("bbox", "box"), ("segm", "mask")):
        expected, evaluation = reference(annotations, file, kind)
        if kind == "segm":
            assert [ours[name][k] for k in NAMES[:3]] == pytest.approx([expected[k] for k in NAMES[:3]], abs=1e-6)
            expected, evaluation = reference(annotations, masks_only(file), kind)
        assert expected["AP"] > 0.05
        assert [ours[name][k] for k in NAMES] == pytest.approx([expected[k] for k in NAMES], abs=1e-6)
        rows = {row["class"]: row for row in ours[name]["per_class"]}
        column = dataset.class_names.index("person")
        precision = evaluation.eval["precision"][:, :, column, 0, -1]
        assert rows["person"]["AP"] == pytest.approx(precision.mean(), abs=1e-6)
        assert rows["person"]["AP50"] == pytest.approx(precision[0].mean(), abs=1e-6)
        np.testing.assert_allclose(ours[name]["curves"]["person"], precision[0], atol=1e-6)


def dataset_of(*images, names=("a", "b")):
    samples = [Sample(i, 100, 100, annotations=list(annotations)) for i, annotations in enumerate(images)]
    return DetectionDataset(samples, names)


def found(image, label, box, score):
    return {"image_id": image, "category_id": label, "bbox": list(box), "score": score}


def test_perfect_detections_score_one_and_none_score_zero():
    data = dataset_of([Annotation((10, 10, 30, 30), 1, 900)], [Annotation((40, 40, 50, 50), 2, 2500)], [])
    perfect = [found(0, 1, (10, 10, 30, 30), 0.9), found(1, 2, (40, 40, 50, 50), 0.8)]
    metrics = all_metrics(perfect, data)
    assert metrics["box"]["AP"] == pytest.approx(1)
    assert metrics["voc"]["AP50"] == metrics["voc"]["AP50_11point"] == 1
    nothing = all_metrics([], data)
    assert nothing["box"]["AP"] == nothing["voc"]["AP50"] == 0
    assert "category" in show(nothing)


def test_a_crowd_is_neither_to_be_found_nor_wrong_to_find():
    thing, crowd = Annotation((10, 10, 20, 20), 1, 400), Annotation((50, 50, 40, 40), 1, 1600, crowd=True)
    inside = [found(0, 1, (55, 55, 20, 20), 0.99), found(0, 1, (10, 10, 20, 20), 0.5)]
    assert coco_metrics(inside, dataset_of([thing, crowd]))["box"]["AP"] == pytest.approx(1)
    assert coco_metrics(inside, dataset_of([thing]))["box"]["AP"] == pytest.approx(0.5, abs=0.01)
    assert coco_metrics(inside, dataset_of([thing, crowd]))["box"]["per_class"][0]["objects"] == 1


def test_an_overlap_counts_up_to_its_threshold_for_a_class_and_for_all():
    """Of 0.72: half of the thresholds from 0.5 to 0.95 are below it, 0.75 is not."""
    data = dataset_of([Annotation((0, 0, 50, 100), 1, 5000)], names=("a",))
    metrics = coco_metrics([found(0, 1, (0, 0, 50, 72), 0.9)], data)["box"]
    for row in (metrics, metrics["per_class"][0]):
        figures = [row[name] for name in ("AP", "AP50", "AP75", "AR100")]
        assert figures == pytest.approx([0.5, 1, 0, 0.5])


def test_voc_rule_by_hand():
    # Five detections by falling score: right, double (wrong), difficult (nothing), wrong place, right.
    easy, other = Annotation((0, 0, 10, 10), 1, 100), Annotation((50, 50, 10, 10), 1, 100)
    hard = Annotation((30, 30, 10, 10), 1, 100, difficult=True)
    data = dataset_of([easy, other, hard], names=("a",))
    results = [
        found(0, 1, (0, 0, 10, 10), 0.9),
        found(0, 1, (1, 0, 10, 10), 0.8),
        found(0, 1, (30, 30, 10, 10), 0.7),
        found(0, 1, (80, 80, 10, 10), 0.6),
        found(0, 1, (50, 50, 10, 10), 0.5),
    ]
    right, wrong = match(results, {0: data.samples[0].annotations})
    assert right.tolist() == [True, False, False, False, True]
    assert wrong.tolist() == [False, True, False, True, False]
    # Precision after each: 1, 1/2, 1/2, 1/3, 2/4; recall: 1/2 ... 1. Area: 1/2 * 1 + 1/2 * 1/2.
    metrics = voc_metrics(results, data)
    assert metrics["AP50"] == pytest.approx(0.75)
    assert metrics["AP50_11point"] == pytest.approx((6 * 1 + 5 * 0.5) / 11)
    assert metrics["per_class"][0]["objects"] == 2


def test_voc_takes_the_best_overlap_even_if_it_is_taken():
    # The devkit's rule: the second detection overlaps the first object most, which is taken, so it is wrong.
    annotations = [Annotation((0, 0, 10, 10), 1, 100), Annotation((4, 0, 10, 10), 1, 100)]
    results = [found(0, 1, (0, 0, 10, 10), 0.9), found(0, 1, (1, 0, 10, 10), 0.8)]
    right, wrong = match(results, {0: annotations})
    assert right.tolist() == [True, False]
    assert wrong.tolist() == [False, True]


def test_voc_area_and_points_of_a_known_curve():
    recall, precision = np.array([0.25, 0.5, 0.5, 0.75]), np.array([1.0, 0.5, 0.4, 0.6])
    assert area(recall, precision) == pytest.approx(0.25 + 0.5 * 0.6)
    assert eleven_points(recall, precision) == pytest.approx((3 * 1 + 5 * 0.6) / 11)


def test_voc_equals_coco_where_their_rules_agree():
    # Without difficult objects and doubles, COCO's 101-point AP50 and the area differ by the sampling alone.
    rng = np.random.default_rng(1)
    images, results = [], []
    for i in range(40):
        x, y = rng.uniform(0, 60, 2)
        images.append([Annotation((x, y, 30, 30), 1, 900)])
        shift = rng.uniform(0, 20)
        results.append(found(i, 1, (x + shift, y, 30, 30), float(rng.random())))
    data = dataset_of(*images, names=("a",))
    assert voc_metrics(results, data)["AP50"] == pytest.approx(coco_metrics(results, data)["box"]["AP50"], abs=0.02)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 5}, "detection 0 is on image 5"),
        ({"category_id": 9}, "category_id 9"),
        ({"segmentation": [[1, 2]]}, "no polygon"),
    ],
)
def test_bad_results_files(tmp_path, change, message):
    data = dataset_of([Annotation((0, 0, 10, 10), 1, 100)])
    file = tmp_path / "r.json"
    write_json(file, [{**found(0, 1, (0, 0, 10, 10), 0.5), **change}])
    with pytest.raises(ExciteError, match=message):
        read_results(file, data)


def test_results_files_that_are_none(tmp_path):
    data = dataset_of([])
    with pytest.raises(UsageError, match="no file"):
        read_results(tmp_path / "none.json", data)
    (tmp_path / "r.json").write_text("{}")
    with pytest.raises(ExciteError, match="a list of detections"):
        read_results(tmp_path / "r.json", data)
    (tmp_path / "r.json").write_text('[{"image_id": 0}]')
    with pytest.raises(ExciteError, match="has no bbox, category_id, score"):
        read_results(tmp_path / "r.json", data)
    (tmp_path / "r.json").write_text(json.dumps([found(0, 1, (0, 0, 1, 1), 0.5)]))
    with pytest.raises(ExciteError, match="has no segmentation"):
        read_results(tmp_path / "r.json", data, masks=True)
    assert decode(to_json(np.ones((3, 4))), 3, 4).sum() == 12
