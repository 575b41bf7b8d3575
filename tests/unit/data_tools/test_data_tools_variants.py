"""Variants: the same everywhere, what they say is what is drawn, and none where one is measured."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("trimesh", reason="trimesh is missing; pip install 'lgm-training[mesh]'")

import trimesh

from data_tools.attribution import read_objects
from data_tools.meshes.load import load_mesh
from data_tools.meshes.normals import face_normals
from data_tools.meshes.surfaces import UnrenderableMesh
from data_tools.shared.naming import is_uid
from data_tools.shared.plan import make_plan
from data_tools.shared.renders import update_metadata
from data_tools.shared.splits import arrange
from data_tools.shared.variants import Companion, part_uids, variants_of
from lgm.data.schema.sample import Index, ShardInfo

CHAIR = {"uid": "chair", "author": "Ann", "licence": "CC0-1.0"}
UIDS = ["bed", "chair", "lamp"]
ANY = 10**6


def box(folder: Path, name: str, size: tuple[float, float, float]) -> Path:
    path = folder / f"{name}.ply"
    trimesh.creation.box(size).export(path)
    return path


def corners(mesh) -> tuple[np.ndarray, np.ndarray]:
    points = np.concatenate([surface.positions.reshape(-1, 3) for surface in mesh.surfaces])
    return points.min(axis=0), points.max(axis=0)


def test_drawn_from_the_name_alone():
    found = list(variants_of(CHAIR, 4, UIDS))
    assert found == list(variants_of(CHAIR, 4, UIDS))
    assert found[:2] == list(variants_of(CHAIR, 2, UIDS))  # more of them change none that are there
    assert [entry["uid"] for entry in found] == [f"chair-variant{number}" for number in (1, 2, 3, 4)]
    assert all(entry["group"] == "chair" and entry["author"] == "Ann" for entry in found)
    assert [len(part_uids(entry)) for entry in found] == [1, 2, 1, 2]
    for entry in found:
        first, *others = entry["variant"]["parts"]
        assert first["uid"] == "chair" and all(other["uid"] in ("bed", "lamp") for other in others)
        assert bool(first["turn_deg"]) == bool(others)
        assert all(1 / 1.5 <= factor <= 1.5 for part in (first, *others) for factor in part["stretch"])
    assert len({str(entry["variant"]["parts"][0]["stretch"]) for entry in found}) == 4
    for number, entry in enumerate(found, 1):
        assert all(("tints" in part) == (number in (3, 4)) for part in entry["variant"]["parts"])


def test_a_single_mesh_has_nothing_beside_it_and_a_group_is_kept():
    found = list(variants_of({"uid": "a", "group": "chairs"}, 2, ["a"]))
    assert [part_uids(entry) for entry in found] == [["a"], ["a"]]
    assert {entry["group"] for entry in found} == {"chairs"}


def test_long_names_stay_apart_and_names():
    uids = ["x" * 79 + last for last in "ab"]
    names = {entry["uid"] for uid in uids for entry in variants_of({"uid": uid}, 12, uids)}
    assert len(names) == 24 and all(map(is_uid, names))


def test_stretched_positions_have_the_normals_of_what_they_became(tmp_path):
    path = tmp_path / "ball.ply"
    trimesh.creation.icosphere(subdivisions=3).export(path, vertex_normal=True)
    linear = np.eye(4)
    linear[:3, :3] = np.diag([2.0, 1.0, 0.5])
    mesh = load_mesh(path, "sphere", linear, ANY)
    low, high = corners(mesh)
    np.testing.assert_allclose(high - low, [1.2, 0.6, 0.3], atol=0.01)
    for surface in mesh.surfaces:
        given = surface.normals / np.linalg.norm(surface.normals, axis=-1, keepdims=True)
        flat = face_normals(surface.positions)
        flat /= np.linalg.norm(flat, axis=-1, keepdims=True)
        assert (given * flat[:, None]).sum(axis=-1).min() > 0.9  # a ball's own would go down to 0.6


@pytest.mark.parametrize("on_top", [False, True])
def test_a_companion_stands_on_the_ground_or_on_top(tmp_path, on_top):
    table, cup = box(tmp_path, "table", (1, 1, 1)), box(tmp_path, "cup", (1, 2, 1))
    companion = Companion(cup, np.eye(3), size=0.5, offset=(0.8, 0.0), on_top=on_top)
    mesh = load_mesh(table, "box", np.eye(4), ANY, [companion])
    of_table, of_cup = (corners(type(mesh)([surface])) for surface in mesh.surfaces)
    ground = of_table[1][1] if on_top else of_table[0][1]
    assert of_cup[0][1] == pytest.approx(ground)
    middle = (of_cup[0] + of_cup[1] - of_table[0] - of_table[1]) / 2
    side = of_table[1][0] - of_table[0][0]
    assert middle[0] == pytest.approx(0.8 * side / (1.2 / 3**0.5)) and middle[2] == pytest.approx(0)
    low, high = corners(mesh)
    np.testing.assert_allclose(low + high, 0, atol=1e-9)  # all together in the middle
    assert (high - low).max() == pytest.approx(1)
    with pytest.raises(UnrenderableMesh, match="24 triangles, more than --max-triangles 20"):
        load_mesh(table, "box", np.eye(4), 20, [companion])
    cup.write_bytes(b"")
    with pytest.raises(UnrenderableMesh, match=r"cup.ply beside it: empty file"):
        load_mesh(table, "box", np.eye(4), ANY, [companion])


def test_surfaces_take_tints_in_turn_and_a_companion_its_own(tmp_path):
    (tmp_path / "pair.mtl").write_text("newmtl a\nKd 1 1 1\nnewmtl b\nKd 0.6 0.6 0.6\n")
    for name in ("pair", "beside"):
        corners_ = "".join(f"v {x} {y} {z}\n" for x, y, z in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)))
        faces = "usemtl a\nf 1 2 3\nusemtl b\nf 1 3 4\nf 1 4 2\n"
        (tmp_path / f"{name}.obj").write_text("mtllib pair.mtl\n" + corners_ + faces)
    companion = Companion(tmp_path / "beside.obj", np.eye(3), 0.5, (0.8, 0.0), False, ((0.5, 0.5, 0.5),))

    def colors(tints):
        mesh = load_mesh(tmp_path / "pair.obj", "box", np.eye(4), ANY, [companion], tints)
        return np.array([surface.material.base_color for surface in mesh.surfaces])

    plain, tinted = colors(()), colors(((0.2, 0.4, 0.8), (1.0, 1.0, 3.0)))
    np.testing.assert_allclose(tinted[0], plain[0] * [0.2, 0.4, 0.8, 1])
    np.testing.assert_allclose(tinted[1], np.minimum(plain[1] * [1, 1, 3, 1], 1))
    assert (tinted[1][2] == 1) == (plain[1][2] > 1 / 3)
    np.testing.assert_allclose(tinted[2:], plain[2:])
    np.testing.assert_allclose(plain[2:], plain[:2] * [0.5, 0.5, 0.5, 1])


def test_the_plan_of_a_variant_is_what_its_metadata_says(tmp_path):
    variant = list(variants_of(CHAIR, 2, UIDS))[1]
    plan = make_plan(resolution=32, num_views=4, up="z")
    made = plan.for_object(variant, [tmp_path / "other.obj"])
    first, other = variant["variant"]["parts"]
    # The file's z is up; what is up is stretched and not turned.
    np.testing.assert_allclose(
        made.world_from_file[:3, :3] @ [0, 0, 1], [0, first["stretch"][1], 0], atol=1e-12
    )
    assert made.companions[0].path == tmp_path / "other.obj" and made.companions[0].size == other["size"]
    np.testing.assert_allclose(made.companions[0].linear @ [0, 0, 1], [0, other["stretch"][1], 0], atol=1e-12)
    plain = plan.for_object(CHAIR)
    assert np.array_equal(plain.world_from_file, plan.world_from_file) and plain.companions == ()
    assert made.tints == made.companions[0].tints == plain.tints == ()
    recolored = list(variants_of(CHAIR, 4, UIDS))[3]
    made = plan.for_object(recolored, [tmp_path / "other.obj"])
    said = [part["tints"] for part in recolored["variant"]["parts"]]
    assert [list(map(list, tints)) for tints in (made.tints, made.companions[0].tints)] == said


def test_none_is_held_out_and_none_in_training_shows_what_is():
    metadata = {uid: {"uid": uid} for uid in UIDS}
    for uid in UIDS:
        metadata.update({entry["uid"]: entry for entry in variants_of(metadata[uid], 6, UIDS)})
    splits = arrange(
        metadata, metadata.__getitem__, {"train": 0.5, "val": 0.5}, {"bed": "val", "chair": "train"}
    )
    assert not any("variant" in uid for uid in splits["val"])
    held_out = set(splits["val"])
    kept = [uid for uid in splits["train"] if "variant" in uid]
    assert kept and all(not held_out & set(part_uids(metadata[uid])) for uid in kept)
    wanted = [
        uid for uid, entry in metadata.items() if part_uids(entry) and not held_out & set(part_uids(entry))
    ]
    assert sorted(kept) == sorted(wanted)
    del metadata["lamp"]  # its rendering failed: nobody can say where it belongs
    splits = arrange(
        metadata, metadata.__getitem__, {"train": 0.5, "val": 0.5}, {"bed": "val", "chair": "train"}
    )
    assert not any("lamp" in part_uids(metadata[uid]) for uid in splits["train"])


def test_how_a_variant_was_made_is_never_said_anew(tmp_path):
    before, after = (list(variants_of(CHAIR, 2, uids))[1] for uids in (["bed", "chair"], ["chair", "sofa"]))
    folder = tmp_path / before["uid"]
    folder.mkdir()
    (folder / "meta.json").write_text(json.dumps(before))
    update_metadata(tmp_path, {**after, "author": "Bob"})
    said = json.loads((folder / "meta.json").read_text())
    assert said["variant"] == before["variant"] != after["variant"] and said["author"] == "Bob"


def test_attribution_names_each_work_once(tmp_path):
    shard = ShardInfo("train-0.tar", 3, 10_240, "0" * 64)
    index = Index((shard,), splits={"train": (shard.name,)})
    lines = [{**entry, "shard": shard.name} for entry in (CHAIR, *variants_of(CHAIR, 2, UIDS))]
    (tmp_path / "objects.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "index.json").write_text(index.to_json())
    assert [entry["uid"] for entry in read_objects(tmp_path)] == ["chair"]
