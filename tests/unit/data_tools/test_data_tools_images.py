"""Images on their way into a shard, and who belongs to which split."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from data_tools.pack.images import downscale, encode, fill_transparent
from data_tools.shared.splits import arrange, parse_fractions, read_assignment


def test_lossy_images_keep_alpha_and_the_outline():
    pixels = np.zeros((64, 64, 4), dtype=np.uint8)
    pixels[20:45, 17:40] = (220, 60, 40, 255)
    decoded = np.array(Image.open(io.BytesIO(encode(pixels, "webp", 90))))
    np.testing.assert_array_equal(decoded[..., 3], pixels[..., 3])
    visible = pixels[..., 3] > 0
    assert np.abs(decoded[visible].astype(int) - pixels[visible]).max() <= 6
    assert (fill_transparent(pixels)[..., :3] == (220, 60, 40)).all()


def test_downscaling_takes_no_colour_from_the_background():
    pixels = np.zeros((8, 8, 4), dtype=np.uint8)
    pixels[:, :3] = (200, 100, 50, 255)
    small = downscale(pixels, 4)
    np.testing.assert_array_equal(small[:, 1], [[200, 100, 50, 128]] * 4)
    np.testing.assert_array_equal(small[:, 2], 0)


def test_splits_keep_groups_together_and_lists_are_followed(tmp_path):
    uids = [f"u{i}" for i in range(200)]
    groups = {uid: {"group": f"g{i // 4}"} for i, uid in enumerate(uids)}
    arranged = arrange(uids, groups.__getitem__, parse_fractions("train=0.8,val=0.2"), None)
    owner = {uid: split for split, members in arranged.items() for uid in members}
    assert all(owner[uids[i]] == owner[uids[i // 4 * 4]] for i in range(200))
    assert 10 < len(arranged["val"]) < 80
    (tmp_path / "list").write_text("u1 val # held out\nu2 train\n")
    assignment = read_assignment(tmp_path / "list")
    assert arrange(uids, groups.__getitem__, None, assignment) == {"train": ["u2"], "val": ["u1"]}
    both = arrange(uids, groups.__getitem__, parse_fractions("train=0.8,val=0.2"), assignment | {"u2": "val"})
    moved = {uid: split for split, members in both.items() for uid in members if owner[uid] != split}
    assert moved.items() <= dict.fromkeys(("u0", "u1", "u2", "u3"), "val").items()  # with all of their group
    with pytest.raises(ValueError, match="puts 'u2' into 'train' and others of its group 'g0' into 'val'"):
        arrange(uids, groups.__getitem__, parse_fractions("train=0.8,val=0.2"), assignment)
    with pytest.raises(ValueError, match=r"'u2'.*not rendered"):
        arrange(["u1", "u3"], groups.__getitem__, None, {"u1": "val", "u2": "val"})
