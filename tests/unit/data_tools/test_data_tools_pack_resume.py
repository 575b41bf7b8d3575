"""A pack that is killed and run again: the same bytes, and never half a file under a whole one's name."""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_tools.pack import command as pack
from data_tools.pack import jobs as pack_jobs
from data_tools.pack.jobs import plan_shards
from data_tools.verify import command as verify
from lgm.data.schema.sample import parse_index
from tests.clock import wait_until
from tests.forked import Forked
from tests.unit.data_tools.test_data_tools_shards import make_renders

OPTIONS = ("--splits", "train=0.8,val=0.2", "--shard-mb", "0.05", "--lossless")


@pytest.fixture(scope="module")
def renders(tmp_path_factory) -> Path:
    made = make_renders(tmp_path_factory.mktemp("renders"), [f"object-{i:03d}" for i in range(120)])
    (made / "object-007" / "view_002.png").unlink()
    return made


@pytest.fixture(scope="module")
def uninterrupted(renders, tmp_path_factory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("whole") / "out"
    assert pack.main([str(renders), "--out", str(out), *OPTIONS, "--workers", "1"]) == 0
    return contents(out)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def assert_nothing_half(out: Path, whole: dict[str, bytes]) -> None:
    for path in out.glob("*"):
        if path.is_file() and not path.name.endswith(".partial"):
            assert path.read_bytes() == whole[path.name], f"{path.name} is not what it should be"


def stands_still_after(shards: int, out: Path, workers: int) -> None:
    """From then on this process, which packs, does nothing more, and a file beside the folder says so: one
    that writes the shards itself in the middle of the next, one that has others do it with these at work."""

    def stand_still():
        out.with_name("stands_still").touch()
        while True:
            signal.pause()

    if workers == 1:
        original, written = pack_jobs.write_shard, []

        def write(path, objects):
            def some():
                for number, entry in enumerate(objects):
                    if number and len(written) == shards:
                        stand_still()
                    yield entry

            record = original(path, some())
            written.append(path)
            return record

        pack_jobs.write_shard = write
    else:
        remember, known = pack.PackState.remember, []

        def remembered(*arguments):
            remember(*arguments)
            known.append(1)
            if len(known) == shards:
                stand_still()

        pack.PackState.remember = remembered


def children(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in path.read_text().split()] if path.exists() else []  # not on all kernels


def has_ended(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return True
    return status.rpartition(")")[2].split()[0] in "ZX"  # nobody may be there to take note of it


# Moments by what lies in the folder: nothing but a beginning, some shards, most of them.
@pytest.mark.parametrize(
    ("workers", "shards", "then"), [(1, 0, 1), (1, 3, 2), (2, 1, 1), (2, 12, 1), (1, 20, 1)]
)
def test_killed_and_run_again(renders, uninterrupted, tmp_path, workers, shards, then):
    out = tmp_path / "out"
    command = [str(renders), "--out", str(out), *OPTIONS, "--workers"]

    def begin():
        stands_still_after(shards, out, workers)
        pack.main([*command, str(workers)])

    process = Forked(begin)
    try:
        wait_until((tmp_path / "stands_still").exists, process)
        orphans = children(process.pid)
    finally:
        process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not (out / "index.json").exists()
    assert_nothing_half(out, uninterrupted)
    assert len(list(out.glob("*.tar"))) >= shards
    assert workers > 1 or len(list(out.glob("*.partial"))) == 1
    # At once, while the killed one's workers may still be busy.
    assert pack.main([*command, str(then)]) == 0
    assert contents(out) == uninterrupted
    assert verify.main([str(out), "--workers", "1"]) == 0
    wait_until(lambda: all(map(has_ended, orphans)))
    assert contents(out) == uninterrupted, "a worker that outlived its parent changed something"


class Killed(BaseException):
    """Stands for the end of the process at an exact place."""


def full_after(num_shards: int):
    """write_shard on a disk that has room for so many."""
    original, written = pack_jobs.write_shard, []

    def write(path, objects):
        if len(written) == num_shards:
            raise OSError(28, "No space left on device")
        written.append(path)
        return original(path, objects)

    return write


@pytest.mark.parametrize("place", ["remember", "finish", "begin", "_forget"])
def test_killed_between_two_steps(renders, uninterrupted, tmp_path, monkeypatch, place):
    """Right before and right after each step of the memory."""
    for when in ("before", "after"):
        out = tmp_path / when
        original = getattr(pack.PackState, place)
        calls = []

        @functools.wraps(original)
        def interrupted(*arguments, original=original, calls=calls, when=when):
            calls.append(place)
            if when == "after":
                original(*arguments)
            if len(calls) == 1:
                raise Killed
            return original(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(pack.PackState, place, interrupted)
            with pytest.raises(Killed):
                pack.main([str(renders), "--out", str(out), *OPTIONS, "--workers", "1"])
        if out.exists():
            assert_nothing_half(out, uninterrupted)
        assert pack.main([str(renders), "--out", str(out), *OPTIONS, "--workers", "1"]) == 0
        assert contents(out) == uninterrupted


def test_finished_shards_are_not_written_again(renders, uninterrupted, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    written = []
    original = pack_jobs.write_shard

    def write(path, objects):
        if len(written) == 4:
            raise Killed
        written.append(path.name)
        return original(path, objects)

    monkeypatch.setattr(pack_jobs, "write_shard", write)
    with pytest.raises(Killed):
        pack.main([str(renders), "--out", str(out), *OPTIONS, "--workers", "1"])
    first, written[:] = written[:], []
    monkeypatch.setattr(pack_jobs, "write_shard", lambda p, o: (written.append(p.name), original(p, o))[1])
    # A shard that someone cut since is written again.
    (out / first[1]).write_bytes(b"half")
    assert pack.main([str(renders), "--out", str(out), *OPTIONS, "--workers", "1"]) == 0
    assert set(written) & set(first) == {first[1]}
    assert contents(out) == uninterrupted
    written.clear()
    capsys.readouterr()
    assert pack.main([str(renders), "--out", str(out), *OPTIONS, "--workers", "1"]) == 0
    assert not written and "complete before: 119 objects" in capsys.readouterr().out
    (out / first[0]).unlink()
    with pytest.raises(ValueError, match=r"missing or not of .* remove .*index.json"):
        pack.main([str(renders), "--out", str(out), *OPTIONS, "--workers", "1"])


def test_changed_renders_and_other_options_are_refused(renders, tmp_path):
    copied = shutil.copytree(renders, tmp_path / "renders")
    command = [str(copied), "--out", str(tmp_path / "out"), *OPTIONS, "--workers", "1"]
    assert pack.main(command) == 0
    for options, message in (
        (["--shard-mb", "0.1"], "packed with shard_mb=0.05, now 0.1"),
        (["--max-white", "0.5"], "packed with max_white=1.0, now 0.5"),
    ):
        with pytest.raises(ValueError, match=message):
            pack.main([*command, *options])
    shutil.rmtree(copied / "object-003")
    with pytest.raises(
        ValueError, match=r"begun with 120 objects, now there are 119.*renders or their splits"
    ):
        pack.main(command)


def brighter(path: Path) -> None:
    image = np.array(Image.open(path))
    image[..., :3] |= 0x0F
    Image.fromarray(image).save(path)


@pytest.mark.parametrize("name", ["meta.json", "cameras.json", "view_001.png"])
def test_renders_that_changed_since_are_refused(renders, tmp_path, monkeypatch, name):
    copied = tmp_path / "renders"
    copied.mkdir()
    for part in ("render.json", "object-003", "object-004", "object-005"):
        source = renders / part
        (shutil.copytree if source.is_dir() else shutil.copy)(source, copied / part)
    half, whole, older = (
        [str(copied), "--out", str(tmp_path / out), "--shard-mb", "0.01", "--workers", "1"]
        for out in ("half", "whole", "older")
    )
    assert pack.main(whole) == pack.main(older) == 0
    with monkeypatch.context() as patch, pytest.raises(ValueError, match="No space"):  # noqa: PT012
        patch.setattr(pack_jobs, "write_shard", full_after(1))
        pack.main(half)
    assert len(list((tmp_path / "half").glob("*.tar"))) == 1
    for path in copied.glob("*/*"):
        os.utime(path, (0, 0))  # copied elsewhere: no change
    assert pack.main(whole) == 0
    changed = copied / "object-004" / name
    if name == "view_001.png":
        brighter(changed)
    else:
        changed.write_text(changed.read_text().replace("Ann", "Bob").replace("49.1", "50.1"))
    for command in (half, whole):
        with pytest.raises(ValueError, match=r"begun with other renders.*metadata, cameras or images"):
            pack.main(command)
    # As a version that did not note what the renders held left them.
    for out in ("half", "older"):
        path = tmp_path / out / ".pack.json"
        settings = json.loads(path.read_text())
        del settings["content_digest"]
        path.write_text(json.dumps(settings))
    assert pack.main(older) == 0
    with pytest.raises(ValueError, match=r"begun by an older version.* another --out"):
        pack.main(half)


def test_two_at_once_are_refused(renders, tmp_path):
    state = pack.PackState(tmp_path)
    with state.locked(), pytest.raises(ValueError, match="another pack is writing"):
        pack.main([str(renders), "--out", str(tmp_path), *OPTIONS])


def test_what_is_left_out_stands_in_the_report(uninterrupted):
    (line,) = uninterrupted["report.jsonl"].splitlines()
    assert json.loads(line)["uid"] == "object-007" and "view 2 is missing" in json.loads(line)["reason"]
    index = parse_index(uninterrupted["index.json"], "index.json")
    sizes = [shard.bytes for shard in index.shards]
    assert index.num_samples == 119 and len(sizes) > 25
    assert 0.6 * 50_000 < sum(sizes) / len(sizes) < 1.4 * 50_000


def test_shards_are_planned_evenly():
    arranged = {"train": [str(i) for i in range(10)], "val": ["a"]}
    jobs = plan_shards(arranged, object_bytes=100, shard_bytes=350)
    assert [len(job.uids) for job in jobs] == [3, 3, 4, 1]
    assert [job.name for job in jobs] == [f"train-{i:06d}.tar" for i in range(3)] + ["val-000000.tar"]
    assert sum((job.uids for job in jobs), ()) == (*arranged["train"], "a")
    assert len(plan_shards(arranged, object_bytes=1e9, shard_bytes=1)) == 11


def test_a_full_disk_is_one_line(renders, tmp_path, monkeypatch):
    monkeypatch.setattr(pack_jobs, "write_shard", full_after(0))
    with pytest.raises(ValueError, match=r"train-000000.tar: .*No space left.* run the same command again"):
        pack.main([str(renders), "--out", str(tmp_path / "out"), *OPTIONS, "--workers", "1"])
