"""A set whose cameras do not fit is refused while it is packed, as soon as that is sure; no other set is."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from data_tools.pack import command as pack
from data_tools.pack import objects as pack_objects
from data_tools.pack.wrong_set import SplitProgress, is_wrong_already
from data_tools.shared.naming import stable_hash
from tests.unit.data_tools.test_data_tools_shards import make_renders

NUM_OBJECTS = 60
# In the order in which they are packed.
UIDS = sorted((f"object-{i:03d}" for i in range(NUM_OBJECTS)), key=stable_hash)


@pytest.fixture(scope="module")
def renders(tmp_path_factory):
    return make_renders(tmp_path_factory.mktemp("renders"), UIDS)


@pytest.fixture
def tested(monkeypatch):
    """Makes the reprojection test fault these uids; the list of those that it was asked about."""
    asked = []

    def fault(misfits):
        def reproject(sample):
            asked.append(sample.uid)
            faults = (f"cameras of {sample.uid} do not match",) if sample.uid in misfits else ()
            return SimpleNamespace(faults=faults)

        monkeypatch.setattr(pack_objects, "reproject", reproject)
        return asked

    return fault


def pack_into(renders, out, *options: str, shard_mb: str = "0.05") -> int:
    return pack.main(
        [
            str(renders),
            "--out",
            str(out),
            "--format",
            "rendered",
            "--workers",
            "1",
            "--shard-mb",
            shard_mb,
            *options,
        ]
    )


def is_pack_of(out, names) -> bool:
    lines = (out / "objects.jsonl").read_text().splitlines()
    return (out / "index.json").is_file() and len(lines) == len(names)


# Asked of the shards that are written, and within the only one.
@pytest.mark.parametrize("shard_mb", ["0.02", "10"])
def test_a_wrong_set_is_refused_at_its_beginning(renders, tmp_path, tested, capsys, shard_mb):
    asked, out = tested(UIDS), tmp_path / "out"
    message = r"of 6 of 6 objects do not fit .*the set is wrong, whatever .* \(object '.*another --out"
    for _ in range(2):  # the same command again says the same
        with pytest.raises(ValueError, match=message):
            pack_into(renders, out, shard_mb=shard_mb)
    assert "left out: object" in capsys.readouterr().out
    assert len(asked) <= 12
    assert not (out / "index.json").exists() and not list(out.glob("*.partial"))
    with pytest.raises(ValueError, match="reprojection=True, now False"):
        pack_into(renders, out, "--no-reprojection", shard_mb=shard_mb)
    assert pack_into(renders, tmp_path / "all", "--no-reprojection") == 0
    assert is_pack_of(tmp_path / "all", UIDS)


def test_bad_objects_at_the_beginning_do_not_condemn_the_set(renders, tmp_path, tested):
    """Four of the first five, and no other: 7 % of the set."""
    misfits = UIDS[:2] + UIDS[3:5]
    tested(misfits)
    assert pack_into(renders, tmp_path / "out") == 0
    assert is_pack_of(tmp_path / "out", set(UIDS) - set(misfits))


def test_what_is_sure_of_finished_shards_is_said_without_reading_on(renders, tmp_path, tested, capsys):
    """A tenth of the whole set is known to be wrong, spread over the shards."""
    asked, out = tested(UIDS[::5]), tmp_path / "out"
    with pytest.raises(ValueError, match=r"cameras of 6 of \d+ objects do not fit"):
        pack_into(renders, out)
    assert 26 <= len(asked) <= 36
    assert not (out / "index.json").exists() and not list(out.glob("*.partial"))
    num_read = len(asked)
    capsys.readouterr()
    with pytest.raises(ValueError, match="the set is wrong"):
        pack_into(renders, out)
    assert len(asked) == num_read and "shards were there before" in capsys.readouterr().out


def test_a_tenth_is_refused_and_less_is_not(renders, tmp_path, tested):
    tested(UIDS[-5:])
    assert pack_into(renders, tmp_path / "less") == 0
    tested(UIDS[-6:])
    with pytest.raises(ValueError, match=r"cameras of 6 of 60 objects do not fit"):
        pack_into(renders, tmp_path / "tenth")


def test_splits_are_judged_each_by_their_size(renders, tmp_path, tested):
    """All of a small split that someone chose are wrong: few of the set."""
    chosen = UIDS[::11]
    lines = [f"{uid} {'odd' if uid in chosen else 'train'}" for uid in UIDS]
    (tmp_path / "splits.txt").write_text("\n".join(lines))
    tested(chosen[:-1])
    assert pack_into(renders, tmp_path / "out", "--assign", str(tmp_path / "splits.txt")) == 0
    assert is_pack_of(tmp_path / "out", set(UIDS) - set(chosen[:-1]))


def first_refusal(misfits: np.ndarray) -> int | None:
    """After how many of a set [N] of 0 and 1 it is refused early; asked after each."""
    known = np.cumsum(misfits)
    for seen, count in enumerate(known, 1):
        if is_wrong_already([SplitProgress(len(misfits), seen, int(count), int(count))], len(misfits)):
            return seen
    return None


def test_how_many_objects_are_enough():
    rng = np.random.default_rng(0)
    assert first_refusal(np.ones(1_000_000)) == 13
    mixed = [rng.permutation(np.arange(5000) < 5000 * fraction) for fraction in [0.09] * 5 + [0.099] * 5]
    assert [first_refusal(misfits) for misfits in mixed] == [None] * 10
    fifth = first_refusal(rng.permutation(np.arange(50_000) < 10_000))
    assert fifth is not None and 200 < fifth < 2000
