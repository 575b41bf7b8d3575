"""Packing and verifying, with renders made of random images: no graphics needed."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data_tools.engines.base import engine_class
from data_tools.pack import command as pack
from data_tools.shared.plan import make_plan
from data_tools.shared.renders import check_settings, is_complete, write_object
from data_tools.stats import command as stats
from data_tools.verify import command as verify
from lgm.cameras import orbit_poses
from lgm.data.schema.sample import parse_cameras, parse_index
from lgm.files import file_sha256

NUM_VIEWS = 5
RESOLUTION = 16


def make_renders(folder: Path, uids: list[str]) -> Path:
    plan = make_plan(resolution=RESOLUTION, num_views=NUM_VIEWS)
    check_settings(folder, {**plan.summary(), "engine": "test", "engine_version": "1"})
    for number, uid in enumerate(uids):
        generator = np.random.default_rng(number)
        views = generator.integers(1, 256, (NUM_VIEWS, RESOLUTION, RESOLUTION, 4), dtype=np.uint8)
        write_object(folder, {"uid": uid, "author": "Ann"}, plan, iter(views), "png")
    return folder


@pytest.fixture(scope="module")
def renders(tmp_path_factory) -> Path:
    return make_renders(tmp_path_factory.mktemp("renders"), [f"object-{i}" for i in range(12)])


def pack_into(renders: Path, out: Path, *options: str) -> Path:
    arguments = [str(renders), "--out", str(out), "--workers", "1", "--shard-mb", "0.03", *options]
    assert pack.main(arguments) == 0
    return out


def test_a_sheet_that_the_inputs_hardly_see_can_be_left_out(tmp_path):
    renders = make_renders(tmp_path / "renders", ["solid"])
    plan = make_plan(resolution=RESOLUTION, num_views=NUM_VIEWS)
    views = np.zeros((NUM_VIEWS, RESOLUTION, RESOLUTION, 4), dtype=np.uint8)
    views[:4, 8, 8] = 255  # a line seen edge-on; from above it fills the image
    views[4] = 255
    write_object(renders, {"uid": "sheet"}, plan, iter(views), "png")
    out = pack_into(renders, tmp_path / "some", "--min-input-coverage", "0.01")
    assert [json.loads(line)["uid"] for line in (out / "objects.jsonl").read_text().splitlines()] == ["solid"]
    (report,) = (json.loads(line) for line in (out / "report.jsonl").read_text().splitlines())
    assert report["uid"] == "sheet" and "hardly seen in the canonical views" in report["reason"]
    out = pack_into(renders, tmp_path / "all", "--min-input-coverage", "0.003")
    assert len((out / "objects.jsonl").read_text().splitlines()) == 2


def test_what_a_canonical_view_does_not_show_is_left_out_with_a_line(tmp_path, capsys):
    renders = make_renders(tmp_path / "renders", ["solid"])
    plan = make_plan(resolution=RESOLUTION, num_views=NUM_VIEWS)
    for uid, alpha in (("card", 0), ("ghost", 7)):
        views = np.full((NUM_VIEWS, RESOLUTION, RESOLUTION, 4), 255, dtype=np.uint8)
        views[3, ..., 3] = alpha
        write_object(renders, {"uid": uid}, plan, iter(views), "png")
    for image_format in ("webp", "png", "rendered"):
        out = pack_into(renders, tmp_path / image_format, "--format", image_format)
        assert "left out: object 'card': view 3, a canonical input, is empty" in capsys.readouterr().out
        assert {json.loads(line)["uid"] for line in (out / "report.jsonl").open()} == {"card", "ghost"}
        assert verify.main([str(out), "--workers", "1"]) == 0


def faults(folder: Path, capsys) -> list[str]:
    capsys.readouterr()
    assert verify.main([str(folder), "--workers", "1"]) == 1
    return capsys.readouterr().out.splitlines()


def rewrite(folder: Path, change) -> None:
    """Change the members of the first shard and put the right size and checksum into the index."""
    index = json.loads((folder / "index.json").read_text())
    path = folder / index["shards"][0]["name"]
    with tarfile.open(path) as tar:
        members = {m.name: tar.extractfile(m).read() for m in tar}
    members = change(members) or members
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    index["shards"][0] |= {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
    (folder / "index.json").write_text(json.dumps(index))


def first(members: dict[str, bytes], key: str) -> str:
    return next(name for name in members if name.endswith(f".{key}"))


def image(mode: str, size: tuple[int, int], color) -> bytes:
    held = io.BytesIO()
    Image.new(mode, size, color).save(held, "WEBP" if mode == "RGBA" else "PNG", lossless=True)
    return held.getvalue()


def test_good_set(renders, tmp_path, capsys):
    folder = pack_into(renders, tmp_path / "out", "--splits", "train=0.7,val=0.3")
    capsys.readouterr()
    assert verify.main([str(folder), "--workers", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 and lines[0].startswith("ok: 12 objects (train ")
    index = parse_index((folder / "index.json").read_text(), "index.json")
    assert len(index.shards) > 2 and set(index.splits) == {"train", "val"}
    assert set(index.splits["train"]) | set(index.splits["val"]) == {s.name for s in index.shards}
    assert index.render["resolution"] == RESOLUTION and index.render["views"] == NUM_VIEWS
    assert {"trajectory", "radius", "fov_y_deg", "engine", "engine_version"} <= set(index.render)
    assert not list(folder.glob("*.partial"))


def test_same_renders_same_bytes(renders, tmp_path):
    one = pack_into(renders, tmp_path / "one")
    two = pack_into(renders, tmp_path / "two", "--workers", "2")
    names = sorted(p.name for p in one.iterdir())
    assert names == sorted(p.name for p in two.iterdir())
    assert all((one / n).read_bytes() == (two / n).read_bytes() for n in names)


def test_webdataset_reads_it(renders, tmp_path):
    webdataset = pytest.importorskip("webdataset", reason="webdataset is missing; pip install webdataset")
    folder = pack_into(renders, tmp_path / "out")
    shards = sorted(str(p) for p in folder.glob("*.tar"))
    samples = list(webdataset.WebDataset(shards, shardshuffle=False, empty_check=False))
    assert len(samples) == 12
    for sample in samples:
        assert parse_cameras(sample["cameras.json"], sample["__key__"]).num_views == NUM_VIEWS
        assert json.loads(sample["json"])["uid"] == sample["__key__"]
        assert sum(key.startswith("view_") for key in sample) == NUM_VIEWS


def test_png_and_lossless_keep_every_visible_pixel(renders, tmp_path):
    original = np.array(Image.open(renders / "object-0" / "view_002.png"))
    for options in (("--format", "png"), ("--lossless",)):
        folder = pack_into(renders, tmp_path / options[-1].strip("-"), *options)
        for path in folder.glob("*.tar"):
            with tarfile.open(path) as tar:
                for member in tar:
                    if member.name.startswith("object-0.view_002"):
                        packed = np.array(Image.open(tar.extractfile(member)))
                        np.testing.assert_array_equal(packed, original)


def test_images_are_copied_as_rendered(renders, tmp_path, capsys):
    folder = pack_into(renders, tmp_path / "out", "--format", "rendered")
    members = {}
    for path in folder.glob("*.tar"):
        with tarfile.open(path) as tar:
            members |= {member.name: tar.extractfile(member).read() for member in tar}
    for path in renders.glob("*/view_*"):
        assert members[f"{path.parent.name}.{path.name}"] == path.read_bytes()
    assert parse_index((folder / "index.json").read_text(), "index").render["format"] == "rendered"
    assert verify.main([str(folder), "--workers", "1"]) == 0


@pytest.mark.parametrize(
    "spoil", [lambda content: content[:-20], lambda content: content[:60] + b"!" + content[61:]]
)
def test_a_broken_image_is_not_copied(tmp_path, capsys, spoil):
    renders = make_renders(tmp_path / "renders", ["a", "b"])
    image_path = renders / "a" / "view_004.png"
    image_path.write_bytes(spoil(image_path.read_bytes()))
    folder = pack_into(renders, tmp_path / "out", "--format", "rendered")
    assert parse_index((folder / "index.json").read_text(), "index").num_samples == 1
    assert "left out: object 'a': view_004.png" in capsys.readouterr().out


@pytest.mark.parametrize("size", [9000, 9216, 12345])
def test_truncated_tar(renders, tmp_path, capsys, size):
    folder = pack_into(renders, tmp_path / "out")
    path = folder / "train-000000.tar"
    path.write_bytes(path.read_bytes()[:size])
    found = faults(folder, capsys)
    assert any(f"train-000000.tar: {size} bytes, index.json says" in f for f in found)
    assert any("truncated" in f for f in found)


def test_changed_byte(renders, tmp_path, capsys):
    folder = pack_into(renders, tmp_path / "out")
    path = folder / "train-000001.tar"
    content = bytearray(path.read_bytes())
    content[1000] ^= 1  # in the padding after the first file: the tar still reads
    path.write_bytes(content)
    assert faults(folder, capsys) == ["shard train-000001.tar: its sha256 is not the one in index.json"]


def test_missing_shard_and_stranger(renders, tmp_path, capsys):
    folder = pack_into(renders, tmp_path / "out")
    (folder / "train-000001.tar").rename(folder / "train-000099.tar")
    found = faults(folder, capsys)
    assert "shard train-000001.tar: file is missing" in found
    assert any(f.startswith("shard train-000099.tar: lies in the folder") for f in found)


def test_wrong_count_and_splits_in_the_index(renders, tmp_path, capsys):
    folder = pack_into(renders, tmp_path / "out")
    index = json.loads((folder / "index.json").read_text())
    index["shards"][0]["samples"] += 1
    index["splits"]["val"] = ["train-000000.tar", "nowhere.tar"]
    (folder / "index.json").write_text(json.dumps(index))
    text = "\n".join(faults(folder, capsys))
    assert "objects, index.json says" in text
    assert "stands in splits 'train' and 'val'" in text
    assert "names 'nowhere.tar'" in text


def drop_view(members):
    del members[first(members, "view_003.webp")]


def skew_camera(members):
    name = first(members, "cameras.json")
    content = json.loads(members[name])
    content["c2w"][2][0] += 0.1
    members[name] = json.dumps(content).encode()


def lift_canonical(members):
    name = first(members, "cameras.json")
    content = json.loads(members[name])
    content["c2w"][1] = content["c2w"][4]
    members[name] = json.dumps(content).encode()


def cameras_with(azimuth_deg=(0, 90, 180, 270), **changes):
    def change(members):
        name = first(members, "cameras.json")
        content = {**json.loads(members[name]), **changes}
        poses = orbit_poses([0.0] * 4, azimuth_deg, torch.full((4,), 1.5, dtype=torch.float64))
        content["c2w"][:4] = poses.reshape(4, 16).tolist()
        members[name] = json.dumps(content).encode()

    return change


def spoil_image(members):
    members[first(members, "view_001.webp")] = b"RIFF nonsense"


def jpeg_image(members):
    held = io.BytesIO()
    Image.new("RGB", (16, 16), "red").save(held, "JPEG")
    members[first(members, "view_001.webp")] = held.getvalue()


def grey_image(members):
    members[first(members, "view_001.webp")] = image("L", (16, 16), 99)


def small_image(members):
    members[first(members, "view_001.webp")] = image("RGBA", (16, 8), (9, 9, 9, 99))


def empty_image(members):
    members[first(members, "view_001.webp")] = image("RGBA", (16, 16), (9, 9, 9, 0))


def wrong_uid(members):
    members[first(members, "json").replace("cameras.", "")] = b'{"uid": "someone"}'


def no_metadata(members):
    del members[next(n for n in members if n.count(".") == 1)]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (drop_view, "4 images but 5 cameras, view 3 is missing"),
        (skew_camera, "view 2: c2w[:3, :3] is no rotation"),
        (lift_canonical, "view 1: is canonical but stands at height"),
        (cameras_with(canonical_inputs=[0, 0, 0, 0]), "names a view twice in canonical_inputs (0, 0, 0, 0)"),
        (cameras_with(canonical_inputs=[0, 1, 2, 9]), "names canonical_inputs (0, 1, 2, 9) but has 5 views"),
        (cameras_with(canonical_inputs=[]), "names 0 canonical_inputs, expected 4: elevation 0, azimuth 0,"),
        (cameras_with(canonical_inputs=[0, 1]), "names 2 canonical_inputs, expected 4"),
        (cameras_with([0, 90, 185, 270]), "view 2: is canonical input 2 but stands at azimuth 185.0"),
        (spoil_image, "view 1: image cannot be decoded: 13 bytes, neither WebP nor PNG"),
        (jpeg_image, "bytes, neither WebP nor PNG"),  # which training could not read either
        (grey_image, "view 1: image is L, not RGBA"),
        (small_image, "view 1: image is 16x8, expected 16x16"),
        (empty_image, "view 1: image is empty"),
        (wrong_uid, "json names the uid 'someone'"),
        (no_metadata, "json is missing"),
    ],
)
def test_a_broken_object_is_named(renders, tmp_path, capsys, change, fault):
    folder = pack_into(renders, tmp_path / "out")
    rewrite(folder, change)
    (line,) = faults(folder, capsys)
    assert line.startswith("shard train-000000.tar: object 'object-") and fault in line


def test_the_same_faults_in_the_same_words(renders, tmp_path, capsys):
    def spoil(members):
        views = [name for name in members if ".view_" in name]
        for number, content in enumerate((b"", b"\x89PNG\r\n\x1a\n", b"RIFF", image("L", (9, 9), 5)[:40])):
            members[views[number]] = content
        members[views[4]] = members[views[4]][:100]

    folder = pack_into(renders, tmp_path / "out")
    rewrite(folder, spoil)
    lines = faults(folder, capsys)
    assert len(lines) == 5 and lines == faults(folder, capsys)
    assert all("view " in line and " at 0x" not in line for line in lines)


@pytest.mark.parametrize(
    ("change", "azimuths"),
    [
        (cameras_with(canonical_inputs=[0, 3, 2, 1]), {3: 90, 1: 270}),
        (cameras_with([0, 10, 20, 30]), {1: 90, 2: 180, 3: 270}),
        (cameras_with([45, 135, 225, 315]), {0: 0, 1: 90, 2: 180, 3: 270}),
    ],
)
def test_canonical_views_stand_where_the_schema_says(renders, tmp_path, capsys, change, azimuths):
    folder = pack_into(renders, tmp_path / "out")
    rewrite(folder, change)
    lines = faults(folder, capsys)
    for line, (view, azimuth) in zip(lines, azimuths.items(), strict=True):
        assert f"view {view}: is canonical input" in line and line.endswith(f"not at {azimuth}")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda render: render.clear(), "render lacks resolution, trajectory, engine, engine_version, "),
        (lambda render: render.pop("radius"), "render lacks radius"),
        (lambda render: render.update(radius="1.5"), "render has radius='1.5', which is no positive number"),
        (lambda render: render.update(resolution=0), "render has resolution=0, which is no positive number"),
    ],
)
def test_an_index_says_how_its_images_were_made(renders, tmp_path, capsys, change, says):
    folder = pack_into(renders, tmp_path / "out")
    index = json.loads((folder / "index.json").read_text())
    change(index["render"])
    (folder / "index.json").write_text(json.dumps(index))
    (line,) = faults(folder, capsys)
    assert line.startswith(f"index.json: {says}")


def test_folder_without_index_is_one_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"index.json does not exist"):
        verify.main([str(tmp_path)])


def test_incomplete_object_is_left_out(tmp_path, capsys):
    renders = make_renders(tmp_path / "renders", ["a", "b"])
    (renders / "a" / "view_002.png").unlink()
    assert not is_complete(renders / "a", NUM_VIEWS) and is_complete(renders / "b", NUM_VIEWS)
    pack_into(renders, tmp_path / "out")
    output = capsys.readouterr().out
    assert "left out: object 'a': 4 images but 5 cameras, view 2 is missing" in output
    assert "1 objects" in output


def test_an_opaque_image_is_no_fault(renders, tmp_path):
    folder = pack_into(renders, tmp_path / "out")

    def opaque(members):
        held = io.BytesIO()
        Image.new("RGBA", (16, 16), (9, 200, 9, 255)).save(held, "WEBP", quality=90)
        assert Image.open(held).mode == "RGB"
        members[first(members, "view_001.webp")] = held.getvalue()

    rewrite(folder, opaque)
    assert verify.main([str(folder), "--workers", "1"]) == 0


def test_an_object_whose_name_can_be_no_uid_is_refused(tmp_path):
    renders = make_renders(tmp_path / "renders", ["a", "b"])
    (renders / "a").rename(renders / "chair.v2")
    with pytest.raises(ValueError, match=r"'chair.v2' can be no uid, .* e.g. to 'chair_v2-"):
        pack_into(renders, tmp_path / "out")


def test_pack_refuses_what_makes_no_sense(renders, tmp_path):
    for options, message in (
        (("--format", "png", "--quality", "80"), "no effect on --format png"),
        (("--format", "rendered", "--resolution", "8"), "copies images of 16 pixels; for --resolution 8"),
        (("--resolution", "64"), "between 8 and 16"),
        (("--splits", "train=0.9,val=0.2"), "adds up to 1.1"),
    ):
        with pytest.raises(ValueError, match=message):
            pack_into(renders, tmp_path / "out", *options)
    folder = pack_into(renders, tmp_path / "out")
    with pytest.raises(ValueError, match=r"holds shards already, packed with render=.* now"):
        pack_into(renders, folder, "--lossless")
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange" / "a.tar").write_bytes(b"")
    with pytest.raises(ValueError, match="strange holds shards already; remove them"):
        pack_into(renders, tmp_path / "strange")


def test_settings_of_one_folder_do_not_mix(renders):
    with pytest.raises(ValueError, match="resolution=16, now 32"):
        check_settings(renders, {"resolution": 32})


def test_renders_drawn_with_another_supersample_do_not_mix(tmp_path):
    pytest.importorskip("moderngl", reason="moderngl is missing; pip install 'lgm-training[render]'")
    engine = engine_class("opengl")
    older = {"engine": "opengl", "engine_version": engine.version}
    assert engine.settings() == engine.settings(supersample=2, device_index=1) == older
    check_settings(tmp_path / "usual", older)
    check_settings(tmp_path / "usual", engine.settings(supersample=2))
    with pytest.raises(ValueError, match="supersample=None, now 4"):
        check_settings(tmp_path / "usual", engine.settings(supersample=4))
    check_settings(tmp_path / "fine", engine.settings(supersample=4))
    with pytest.raises(ValueError, match="supersample=4, now None"):
        check_settings(tmp_path / "fine", engine.settings())


def test_stats_and_sheet(renders, tmp_path, capsys):
    folder = pack_into(renders, tmp_path / "out")
    sheet = tmp_path / "sheet.png"
    assert stats.main([str(folder), "--sheet", str(sheet), "--tile", "16", "--columns", "3"]) == 0
    assert "objects     12" in capsys.readouterr().out
    assert Image.open(sheet).size == (3 * (4 * 16 + 8), 4 * (16 + 12))


def test_the_bundled_set_verifies(capsys):
    folder = Path(pack.__file__).parents[2] / "lgm" / "assets" / "quickstart"
    command = [str(folder), "--workers", "1", "--no-reprojection"]  # that: test_reprojection.py
    assert verify.main(command) == 0, capsys.readouterr().out
    index = verify.read_index(folder)
    sizes = verify.split_sizes(index)
    assert sizes["train"] >= 48 and sizes["val"] >= 12
    assert sum(shard.bytes for shard in index.shards) <= 6_000_000
