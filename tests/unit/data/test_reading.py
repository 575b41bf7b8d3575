"""Objects at random places in tars: what is read, and what is not."""

import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image
from torch.utils.data import DataLoader
from webdataset.tariterators import tarfile_samples

from lgm.data.schema.decode import decode_rgba
from lgm.data.schema.sample import BrokenSample
from lgm.data.sources.shards import ShardSource
from lgm.data.stream.batches import EvalStream, TrainStream
from lgm.data.stream.datamodule import ObjectDataModule
from lgm.data.transport.members import ShardMembers, read_file
from lgm.data.views import HeldOutViews, RandomViews
from tests.datasets import sample_files, write_dataset, write_index, write_shard


def open_tar(folder, num_objects=5, **options):
    objects = [sample_files(f"object-{i}", i, **options) for i in range(num_objects)]
    shard = write_shard(folder / "all-000000.tar", objects)
    write_index(folder, [shard])
    return (folder / shard["name"]).open("rb")


def test_members_are_what_webdataset_streams(tmp_path):
    open_tar(tmp_path).close()
    path = tmp_path / "all-000000.tar"
    with tarfile.open(path, "a", format=tarfile.PAX_FORMAT) as tar:
        for name, content in (
            ("__meta__", b"skipped"),
            ("folder/long" + 30 * "name" + ".JSON", b"{}"),  # a long name has a header of its own
            ("object-0.json", b"a second sample of the same name"),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    expected = list(tarfile_samples([{"url": str(path)}]))
    members = ShardMembers()
    with path.open("rb") as file:
        members.extend(file)
        assert members.uids == [sample["__key__"] for sample in expected]
        for ordinal, sample in enumerate(expected):
            files = members.files(ordinal)
            contents = {key: read_file(file, place, key, "uid") for key, place in files.items()}
            assert contents == {key: value for key, value in sample.items() if not key.startswith("__")}


class Watched(io.BytesIO):
    """A file in memory that knows how far it was read."""

    furthest = 0

    def read(self, size=-1):
        content = super().read(size)
        self.furthest = max(self.furthest, self.tell())
        return content


def test_headers_are_read_no_further_than_needed(tmp_path):
    whole = ShardMembers()
    with open_tar(tmp_path) as shard:
        file = Watched(shard.read())
        whole.extend(file)
        file.furthest = 0
        members = ShardMembers()
        for known in range(1, 6):
            members.extend(file, known)
            assert members.uids == whole.uids[:known]
            assert members.files(known - 1) == whole.files(known - 1)
            # Of the next object one header alone, which says that this one is whole.
            assert file.furthest < max(offset for offset, _ in members.files(known - 1).values()) + 20_000
        assert len(members) == len(whole) == 5 * 12


def test_only_the_bytes_of_the_views_in_use_are_read(tmp_path, monkeypatch):
    open_tar(tmp_path, size=64).close()
    read = []
    monkeypatch.setattr(
        "lgm.data.sources.shards.read_file",
        lambda file, place, key, uid: read.append(key) or read_file(file, place, key, uid),
    )
    ShardSource(tmp_path).load(0, 3).decode([2, 7])
    assert read == ["cameras.json", "view_002.png", "view_007.png"]


def test_a_name_that_stands_twice_and_a_tar_that_ends_early(tmp_path):
    files = sample_files("object-0")
    path = tmp_path / "all.tar"
    shard = write_shard(path, [files, {"object-0.json": b"{}"}, sample_files("object-1")])
    write_index(tmp_path, [{**shard, "samples": 2}])
    source = ShardSource(tmp_path)
    with pytest.raises(BrokenSample, match="'object-0': a file name stands twice"):
        source.load(0, 0)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
    source = ShardSource(tmp_path)
    with pytest.raises(BrokenSample, match=r"'object-1': .* images but 10 cameras"):
        source.load(0, 1)


def test_a_uid_with_dots_is_named(tmp_path):
    write_index(tmp_path, [write_shard(tmp_path / "all.tar", [sample_files("chair.v2")])])
    with pytest.raises(ValueError, match=r"named 'chair.v2', and a uid ends .* e.g. to 'chair_v2'"):
        ShardSource(tmp_path).check(1)


def compressed(mode: str, image_format: str, **options) -> bytes:
    held = io.BytesIO()
    color = {"RGBA": (9, 200, 9, 255), "RGB": (9, 200, 9), "L": 99, "P": 3, "CMYK": (1, 2, 3, 4)}[mode]
    Image.new(mode, (8, 8), color).save(held, image_format, **options)
    return held.getvalue()


def test_opaque_images_may_lack_their_alpha():
    lossy = compressed("RGBA", "WEBP", quality=90)
    assert Image.open(io.BytesIO(lossy)).mode == "RGB"  # what Pillow makes of it
    pixels = decode_rgba([lossy, compressed("RGBA", "PNG"), compressed("RGB", "PNG")], [0, 1, 2], "x")
    assert pixels.shape == (3, 8, 8, 4) and (pixels[..., 3] == 255).all()
    assert np.abs(pixels[0].astype(int) - pixels[1]).max() < 8
    for mode in ("L", "P"):
        with pytest.raises(BrokenSample, match=f"view 4 is {mode}, expected RGBA"):
            decode_rgba([compressed(mode, "PNG")], [4], "x")
    with pytest.raises(BrokenSample, match=r"view 4 cannot be decoded: \d+ bytes, neither WebP nor PNG"):
        decode_rgba([compressed("CMYK", "TIFF")], [4], "x")


def mixed_dataset(folder):
    """Objects with 10, 10, 12, 12 and 10 views, the last of twice the size."""
    kinds = [(10, 32), (10, 32), (12, 32), (12, 32), (10, 64)]
    objects = [sample_files(f"object-{i}", i, views, size) for i, (views, size) in enumerate(kinds)]
    write_index(folder, [write_shard(folder / "all.tar", objects)])
    return folder


def test_evaluation_starts_a_new_batch_where_objects_differ(tmp_path):
    stream = EvalStream(ShardSource(mixed_dataset(tmp_path)), HeldOutViews(4), batch_size=3)
    batches = list(stream)
    assert [batch.uids for batch in batches] == [
        ("object-0", "object-1"),
        ("object-2", "object-3"),
        ("object-4",),
    ]
    assert [tuple(batch.target.images.shape[1:]) for batch in batches] == [
        (6, 3, 32, 32),
        (8, 3, 32, 32),
        (6, 3, 64, 64),
    ]


@pytest.mark.parametrize("num_consumers", [1, 2, 3, 8])
def test_evaluation_deals_objects_not_shards(tmp_path, num_consumers):
    folder = write_dataset(tmp_path / "set", train=(7, 3), val=())
    source, opened = ShardSource(folder), []
    open_shard = source.files.open
    source.files.open = lambda shard: opened.append(shard.name) or open_shard(shard)
    shares = []
    for rank in range(num_consumers):
        stream = EvalStream(source, HeldOutViews(4), 1, rank, num_consumers, max_objects=6)
        shares.append([uid for batch in stream for uid in batch.uids])
    assert [uid for share in shares for uid in share] == [f"object-{i:03d}" for i in range(6)]
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert set(opened) == {"train-000000.tar"}  # nothing behind the last wanted object


def test_more_loader_processes_than_objects_are_refused_at_the_start(dataset):
    options = {"micro_batch_size": 1, "num_workers": 4}
    module = ObjectDataModule(
        lambda split: ShardSource(dataset, split), RandomViews(4, 6), HeldOutViews(4), **options
    )
    module.check("fit")
    module.check("test", num_devices=8)
    with pytest.raises(ValueError, match=r"6 objects are too few for 8 loader processes .*data.num_workers"):
        module.check("fit", num_devices=2)
    with pytest.raises(ValueError, match=r"6 objects are too few for 8 loader processes"):
        module.check("fit", num_nodes=2)


def test_training_objects_of_two_sizes_are_refused_at_the_start(tmp_path):
    options = {"train_split": None, "val_split": None}
    for size, refused in ((1, False), (2, True)):
        module = ObjectDataModule(
            lambda split: ShardSource(mixed_dataset(tmp_path)),
            RandomViews(4, 6),
            HeldOutViews(4),
            micro_batch_size=size,
            **options,
        )
        if not refused:
            module.check("fit")
            continue
        with pytest.raises(ValueError, match=r"'object-3' has 32 × 32, 'object-4' has 64 × 64; pack them"):
            module.check("fit")


def test_streams_travel_to_processes_that_are_not_forked(dataset):
    stream = TrainStream(ShardSource(dataset, "train"), RandomViews(4, 6), 2, seed=0)
    next(iter(stream))
    loader = DataLoader(stream, batch_size=None, num_workers=1, multiprocessing_context="spawn")
    assert next(iter(loader)).uids == next(iter(stream)).uids


def test_a_split_by_uid_knows_the_places(tmp_path):
    folder = write_dataset(tmp_path / "set", train=(4,), val=(2,))
    index = json.loads((folder / "index.json").read_text())
    index["splits"] = {"odd": ["object-001", "object-003", "object-005"]}
    (folder / "index.json").write_text(json.dumps(index))
    source = ShardSource(folder, "odd")
    assert source.shard_sizes == [2, 1]
    assert [source.load(*source.locate(i)).uid for i in range(3)] == index["splits"]["odd"]
