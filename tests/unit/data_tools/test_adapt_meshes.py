"""Folders of ABO and TexVerse, laid out as their pages say, become meshes with names and licences."""

from __future__ import annotations

import csv
import functools
import gzip
import io
import json
import tempfile
from pathlib import Path

import pytest

from data_tools.adapt import command as adapt
from data_tools.adapt.meshes import base
from data_tools.shared.sources import find_meshes, read_metadata
from tests.gltf_files import INDICES, POSITIONS, GltfFile

ABO_COLUMNS = [
    "3dmodel_id",
    "path",
    "meshes",
    "materials",
    "textures",
    "images",
    "image_height_max",
    "image_height_min",
    "image_width_max",
    "image_width_min",
    "vertices",
    "faces",
    "extent_x",
    "extent_y",
    "extent_z",
]


@functools.cache
def glb() -> bytes:
    file = GltfFile()
    attributes = {"POSITION": file.accessor(POSITIONS, min=[0, 0, 0], max=[3, 2, 0])}
    mesh = file.add(
        "meshes", primitives=[{"attributes": attributes, "indices": file.accessor(INDICES, "uint16")}]
    )
    file.add("scenes", nodes=[file.add("nodes", mesh=mesh)])
    with tempfile.TemporaryDirectory() as folder:
        return file.save(Path(folder)).read_bytes()


def known(out: Path) -> dict[str, dict]:
    return {entry["uid"]: entry for entry in map(read_metadata, find_meshes([str(out)]))}


def run(folder: Path, layout: str, out: Path, *options: str) -> int:
    return adapt.main([str(folder), "--layout", layout, "--out", str(out), *options])


@pytest.fixture
def abo(tmp_path) -> Path:
    """As README.md of abo-3dmodels.tar and abo-listings.tar describes them."""
    root = tmp_path / "abo"
    models = {
        "B01N2PLWIL": "L/B01N2PLWIL.glb",
        "B075QFCHM9": "9/B075QFCHM9.glb",
        "B07H469871": "1/B07H469871.glb",
    }
    table = io.StringIO()
    writer = csv.DictWriter(table, ABO_COLUMNS, restval="1")
    writer.writeheader()
    for model, path in models.items():
        writer.writerow({"3dmodel_id": model, "path": path})
        if model != "B07H469871":
            place = root / "3dmodels" / "original" / path
            place.parent.mkdir(parents=True)
            place.write_bytes(glb())
    (root / "3dmodels" / "metadata").mkdir()
    (root / "3dmodels" / "metadata" / "3dmodels.csv.gz").write_bytes(gzip.compress(table.getvalue().encode()))
    (root / "3dmodels" / "LICENSE-CC-BY-4.0.txt").write_text("Creative Commons Attribution 4.0 International")
    (root / "listings" / "metadata").mkdir(parents=True)
    products = [
        {"item_id": "B000", "item_name": [{"language_tag": "en_US", "value": "A mug"}]},
        {
            "item_id": "B7", "3dmodel_id": "B01N2PLWIL", "product_type": [{"value": "HOME_BED_AND_BATH"}],
            "item_name": [{"language_tag": "de", "value": "Ha"}, {"language_tag": "en_GB", "value": "Hook"}],
        },
        {"3dmodel_id": "B075QFCHM9", "item_name": [{"language_tag": "ja_JP", "value": "ソファ"}]},
        {"3dmodel_id": "B075QFCHM9", "item_name": [{"language_tag": "en_US", "value": "later"}]},
    ]  # fmt: skip
    lines = "".join(json.dumps(product, ensure_ascii=False) + "\n" for product in products)
    (root / "listings" / "metadata" / "listings_0.json.gz").write_bytes(gzip.compress(lines.encode()))
    return root


def test_abo(abo, tmp_path, capsys):
    assert run(abo, "abo", tmp_path / "out") == 0
    output = capsys.readouterr().out
    assert "2 adapted, 1 failed" in output
    assert "failed B07H469871: 3dmodels/original/1/B07H469871.glb does not exist" in output
    objects = known(tmp_path / "out")
    assert objects["B01N2PLWIL"] == {
        "uid": "B01N2PLWIL", "name": "Hook", "category": "home bed and bath", "author": "Amazon.com",
        "licence": "CC-BY-4.0", "source": "Amazon Berkeley Objects: B01N2PLWIL",
    }  # fmt: skip
    assert objects["B075QFCHM9"]["name"] == "ソファ" and "category" not in objects["B075QFCHM9"]
    assert (tmp_path / "out" / "B01N2PLWIL.glb").is_symlink()
    assert json.loads((tmp_path / "out" / "report.jsonl").read_text())["uid"] == "B07H469871"
    assert run(abo / "3dmodels", "abo", tmp_path / "copied", "--copy") == 0
    assert not (tmp_path / "copied" / "B01N2PLWIL.glb").is_symlink()


def test_abo_says_what_it_lacks_and_reads_the_licence_that_comes_along(abo, tmp_path, capsys):
    (abo / "3dmodels" / "LICENSE-CC-BY-4.0.txt").unlink()
    for path in (abo / "listings" / "metadata").iterdir():
        path.unlink()
    assert run(abo, "abo", tmp_path / "out") == 0
    output = capsys.readouterr().out
    assert "has no LICENSE and no README" in output and "has no listings/metadata" in output
    assert "licence" not in known(tmp_path / "out")["B01N2PLWIL"]
    (abo / "README.md").write_text("Creative Commons Attribution-NonCommercial 4.0 International")
    run(abo, "abo", tmp_path / "early")
    assert known(tmp_path / "early")["B01N2PLWIL"]["licence"] == "CC-BY-NC-4.0"


def test_abo_never_leads_out_of_its_folder(abo, tmp_path, capsys):
    (tmp_path / "secret.glb").write_bytes(glb())
    text = "3dmodel_id,path\nB1,../../../secret.glb\n"
    (abo / "3dmodels" / "metadata" / "3dmodels.csv.gz").write_bytes(gzip.compress(text.encode()))
    assert run(abo, "abo", tmp_path / "out") == 1
    assert "leads out of 3dmodels/original" in capsys.readouterr().out
    (abo / "3dmodels" / "metadata" / "3dmodels.csv.gz").write_bytes(b"\x1f\x8b cut")
    with pytest.raises(ValueError, match=r"3dmodels.csv.gz is not a whole gzip file"):
        run(abo, "abo", tmp_path / "out")
    with pytest.raises(FileNotFoundError, match=r"give the folder of abo-3dmodels.tar"):
        run(tmp_path, "abo", tmp_path / "out")


UIDS = [f"{i:032x}" for i in range(1, 4)]


@pytest.fixture
def texverse(tmp_path) -> Path:
    """As the repositories TexVerse and TexVerse-1K lie on a disk."""
    root = tmp_path / "texverse"
    for folder, uid, size in (
        ("glbs_1k/000-000", UIDS[0], 1024), ("glbs_4k/000-000", UIDS[0], 4096), ("glbs_2k/000-001", UIDS[1],
        2048), ("glbs_2k/000-001", UIDS[2], 2048),
    ):  # fmt: skip
        (root / "glbs" / folder).mkdir(parents=True, exist_ok=True)
        (root / "glbs" / folder / f"{uid}_{size}.glb").write_bytes(glb())
    rows = {
        UIDS[0]: {"license": "CC Attribution", "user": "ann7", "user_display": "Ann", "name": "Chair"},
        "absent": {"license": "CC Attribution", "note": "x" * 200},
        UIDS[1]: {
            "license": "CC Attribution-NonCommercial-ShareAlike",
            "user": "bob",
            "name": "Vase",
            "n": [1, {}],
        },
    }
    (root / "metadata.json").write_text(json.dumps(rows))
    (root / "caption.json").write_text(json.dumps({UIDS[0]: "a red chair", UIDS[1]: {"caption": "a vase"}}))
    return root


def test_texverse(texverse, tmp_path, capsys):
    assert run(texverse, "texverse", tmp_path / "out") == 0
    output = capsys.readouterr().out
    assert "3 adapted, 0 failed" in output and "1 of 3 objects have no row" in output
    assert "CC-BY-4.0 1, CC-BY-NC-SA-4.0 1, unknown 1" in output
    objects = known(tmp_path / "out")
    assert objects[UIDS[0]] == {
        "uid": UIDS[0], "name": "Chair", "author": "Ann", "licence": "CC-BY-4.0", "caption": "a red chair",
        "source": f"https://sketchfab.com/3d-models/{UIDS[0]}",
    }  # fmt: skip
    assert (objects[UIDS[1]]["author"], objects[UIDS[1]]["caption"]) == ("bob", "a vase")
    assert (tmp_path / "out" / f"{UIDS[0]}.glb").resolve().name == f"{UIDS[0]}_1024.glb"  # the smallest


def test_texverse_of_one_size(texverse, tmp_path, capsys):
    assert run(texverse, "texverse", tmp_path / "out", "--texture", "4k") == 0
    assert [path.name for path in (tmp_path / "out").glob("*.glb")] == [f"{UIDS[0]}.glb"]
    with pytest.raises(ValueError, match=r"has no glbs/glbs_\*/\*/<id>_<size>.glb with textures of 8k"):
        run(texverse, "texverse", tmp_path / "other", "--texture", "8k")
    with pytest.raises(ValueError, match="--texture '3k' must be one of 1k, 2k, 4k, 8k"):
        run(texverse, "texverse", tmp_path / "other", "--texture", "3k")
    (texverse / "metadata.json").unlink()
    assert run(texverse, "texverse", tmp_path / "bare") == 0
    assert "metadata.json does not exist: licences and authors are not known" in capsys.readouterr().out


def test_a_table_is_read_without_holding_it(texverse, monkeypatch):
    rows = json.loads((texverse / "metadata.json").read_text())
    for chunk in (1, 7, 64):
        monkeypatch.setattr(base, "_CHUNK", chunk)
        assert dict(base.json_members(texverse / "metadata.json")) == rows
    text = (texverse / "metadata.json").read_text()
    for broken in (text[:-40], "[1]", "", text.replace(":", ";", 1)):
        (texverse / "broken.json").write_text(broken)
        with pytest.raises(ValueError, match=r"broken.json is not"):
            dict(base.json_members(texverse / "broken.json"))
    (texverse / "empty.json").write_text(" { } ")
    assert dict(base.json_members(texverse / "empty.json")) == {}


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (["--fov", "40"], "--fov has no effect on --layout abo"),
        (["--texture", "1k"], "--texture has no effect on --layout abo"),
    ],
)
def test_options_of_other_layouts_are_refused(abo, tmp_path, options, match):
    with pytest.raises(ValueError, match=match):
        run(abo, "abo", tmp_path / "out", *options)
    with pytest.raises(ValueError, match="--copy has no effect on --layout lgm"):
        run(abo, "lgm", tmp_path / "out", "--copy")
