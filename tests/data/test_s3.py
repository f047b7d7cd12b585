"""Shards and comparisons in S3, against a server of this machine.

uv run --with 'moto[server]' --with s3fs pytest -m slow tests/data/test_s3.py
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from excite.comparison import run_plan
from excite.comparison.plan import make_plan
from excite.comparison.store import Store
from excite.data import open_data
from excite.data.shards import write_shards
from excite.errors import ExciteError
from excite.train import TrainConfig, fit
from imagesets import image_folder, shards

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server_of = pytest.importorskip("moto.server")
    s3fs = pytest.importorskip("s3fs")
    server = server_of.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        for name, value in {"ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b", "DEFAULT_REGION": "us-east-1"}.items():
            patch.setenv(f"AWS_{name}", value)
        patch.setenv("EXCITE_CACHE", str(tmp_path_factory.mktemp("cache")))
        s3fs.S3FileSystem().mkdir("bucket")
        yield "bucket"
        s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


def test_shards_in_a_bucket_read_as_on_disk(bucket: str, tmp_path: Path) -> None:
    import s3fs

    shards(tmp_path / "plain")
    image_folder(tmp_path / "images", per_class=5)
    write_shards(open_data(f"imagefolder:{tmp_path / 'images'}"), tmp_path / "written", shard_size=3)
    for name in ("plain", "written"):
        s3fs.S3FileSystem().put(f"{tmp_path / name}/", f"{bucket}/{name}/", recursive=True)
    specs = {
        f"wds:s3://{bucket}/plain/{{train-000,train-001,val-000}}.tar": f"wds:{tmp_path}/plain/*.tar",
        f"wds:s3://{bucket}/written/": f"wds:{tmp_path / 'written'}",
    }
    for there, here in specs.items():
        one, two = open_data(there), open_data(here)
        for first, second in ((one.train, two.train), (one.val, two.val)):
            assert [first.encoded(i) for i in range(len(first))] == [second.encoded(i) for i in range(len(second))]
            assert list(first.labels) == list(second.labels)
    with pytest.raises(ExciteError, match=f"cannot fetch s3://{bucket}/plain/train-007.tar"):
        open_data(f"wds:s3://{bucket}/plain/train-007.tar")
    small = {"options": {"width": 4, "blocks_per_stage": "1,1,1"}, "size": 32, "workers": 0, "logger": "none"}
    spec = f"wds:s3://{bucket}/written/"
    config = TrainConfig(
        "resnet20", data=spec, epochs=1, batch_size=5, device="cpu", quiet=True, out=str(tmp_path / "run"), **small
    )
    assert len(fit(config).rows) == 1


def test_a_comparison_in_a_bucket_goes_on_elsewhere(bucket: str, tmp_path: Path) -> None:
    train = {"epochs": 1, "limit_train": 32, "limit_val": 10, "batch_size": 32}
    plan = make_plan("none,eca", "resnet20", "digits", seeds=1, train=train)
    address, lines = f"s3://{bucket}/kept", []
    first = run_plan(plan, tmp_path / "one", store=address, report=lines.append)
    assert {"runs/none-seed0/summary.json", "runs/eca-seed0/checkpoints/last.ckpt"} <= set(Store(address).files())
    second = run_plan(plan, tmp_path / "two", store=address, report=lines.append)
    assert lines[-1] == "2 of 2 runs are there already"
    assert [row.top1 for row in second.rows] == [row.top1 for row in first.rows]
    missing = Store("s3://nobodys-bucket/kept")
    with pytest.raises(ExciteError, match="--store s3://nobodys-bucket/kept: "):
        missing.send(tmp_path / "one", "", ["plan.json"])
