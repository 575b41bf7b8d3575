"""Near-duplicates by geometry, and the page that names the authors. No graphics needed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("trimesh", reason="trimesh is missing; pip install 'lgm-training[mesh]'")
import trimesh

from data_tools import attribution
from data_tools.group import command as group
from data_tools.meshes.signature import distance, near_pairs, signature
from lgm.data.schema.sample import Index, ShardInfo

FLIP_X = np.diag([-1.0, 1, 1])
QUARTER = np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])


def lamp(bend: float = 0.0) -> trimesh.Trimesh:
    """Lopsided on every axis; `bend` moves its arm."""
    parts = [
        trimesh.creation.box([0.8, 0.1, 0.6]),
        trimesh.creation.cylinder(0.05, 1.2).apply_translation([0.2, 0.5, 0.1]),
        trimesh.creation.icosphere(2, 0.2).apply_translation([0.3 + bend, 0.9, 0.2]),
    ]
    return trimesh.util.concatenate(parts)


def signature_of(mesh: trimesh.Trimesh) -> np.ndarray:
    return signature(np.asarray(mesh.triangles, dtype=np.float64))


@pytest.mark.parametrize("turn", [np.eye(3), QUARTER, QUARTER @ QUARTER, FLIP_X, FLIP_X @ QUARTER.T])
def test_moved_scaled_turned_and_mirrored_shapes_are_the_same(turn):
    mesh = lamp()
    copy = trimesh.Trimesh(3.7 * mesh.vertices @ turn.T + [5, -2, 1], mesh.faces[::-1], process=False)
    assert distance(signature_of(mesh), signature_of(copy)) < 1e-3


def test_other_triangles_of_the_same_shape_are_near_and_another_shape_is_not():
    mesh = lamp()
    assert distance(signature_of(mesh), signature_of(mesh.subdivide())) < 0.02
    apart = distance(signature_of(mesh), signature_of(lamp(bend=-0.5)))
    assert apart > 0.1
    assert distance(signature_of(mesh), signature_of(trimesh.creation.icosphere(3))) > apart


def test_the_quick_search_finds_what_comparing_all_finds():
    random = np.random.default_rng(0)
    meshes = [trimesh.creation.box(random.uniform(0.3, 1, 3)) for _ in range(12)]
    meshes += [trimesh.Trimesh(mesh.vertices @ QUARTER.T, mesh.faces) for mesh in meshes[:4]]
    signatures = [signature_of(mesh) for mesh in meshes]
    found = {(i, j) for i, j, _ in near_pairs(signatures, 0.1)}
    wanted = {
        (i, j) for i in range(16) for j in range(i + 1, 16) if distance(signatures[i], signatures[j]) <= 0.1
    }
    assert found == wanted and {(i, i + 12) for i in range(4)} <= found
    assert near_pairs(signatures[:1], 0.1) == []


def test_pairs_become_groups():
    assert group.connect([(0, 3), (4, 5), (3, 1)]) == [[0, 1, 3], [4, 5]]


def test_sidecars_get_their_group_and_lose_a_wrong_one(tmp_path, capsys):
    mesh = lamp()
    for name, turn in (("red", np.eye(3)), ("blue", QUARTER)):
        trimesh.Trimesh(mesh.vertices @ turn.T, mesh.faces).export(tmp_path / f"{name}.obj")
    lamp(bend=-0.5).export(tmp_path / "bent.obj")
    (tmp_path / "bent.meta.json").write_text('{"author": "Ann", "group": "red", "shoe_size": 38}')
    (tmp_path / "empty.obj").write_text("")
    command = [str(tmp_path), "--workers", "1", "--report", str(tmp_path / "pairs.jsonl")]
    assert group.main([*command, "--dry-run"]) == 0
    assert not (tmp_path / "red.meta.json").exists()
    assert group.main(command) == 0
    said = capsys.readouterr().out
    assert "empty.obj: empty file" in said
    assert "4 meshes: 2 in 1 groups, the largest of 2; 1 unreadable" in said
    read = {p.name.partition(".")[0]: json.loads(p.read_text()) for p in tmp_path.glob("*.meta.json")}
    assert read["red"] == read["blue"] == {"group": "blue"}
    assert read["bent"] == {"author": "Ann", "shoe_size": 38}
    (pair,) = (tmp_path / "pairs.jsonl").read_text().splitlines()
    assert json.loads(pair).keys() == {"a", "b", "distance"}


def test_mistakes_in_grouping_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"--tolerance 2.0 must lie"):
        group.main([str(tmp_path), "--tolerance", "2"])
    for name in ("a", "b"):
        (tmp_path / f"{name}.obj").write_text("")
        (tmp_path / f"{name}.meta.json").write_text('{"uid": "same"}')
    with pytest.raises(ValueError, match="both have the uid 'same'"):
        group.main([str(tmp_path)])


def test_the_page_of_authors(tmp_path, capsys):
    shards = tmp_path / "shards"
    shards.mkdir()
    names = ("train-000000.tar", "val-000000.tar")
    index = Index(
        tuple(ShardInfo(name, 1, 10_240, "0" * 64) for name in names),
        splits={"train": (names[0],), "val": (names[1],)},
    )
    (shards / "index.json").write_text(index.to_json())
    objects = [
        {"uid": "b", "shard": names[0], "name": "Bed | wide", "author": "Ann", "licence": "CC-BY-3.0"},
        {"uid": "a", "shard": names[1], "name": None, "licence": None},
    ]
    (shards / "objects.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in objects))
    (tmp_path / "intro.md").write_text("From somewhere.\n")
    out = tmp_path / "ATTRIBUTION.md"
    command = [str(shards), "--out", str(out), "--title", "Beds", "--intro", str(tmp_path / "intro.md")]
    assert attribution.main(command) == 0
    assert "2 objects, 1 without author or licence" in capsys.readouterr().out
    text = out.read_text()
    assert text.startswith("# Beds\n\nFrom somewhere.\n\n| licence")
    assert "| [CC-BY-3.0](https://creativecommons.org/licenses/by/3.0/) | 1 |" in text
    first, second = "| a |  | unknown | unknown | val |", "| b | Bed \\| wide | Ann | CC-BY-3.0 | train |"
    assert text.index(first) < text.index(second)
    with pytest.raises(FileNotFoundError, match=r"give a folder of data_tools.pack"):
        attribution.main([str(tmp_path), "--out", str(out)])


def test_paths_of_the_page_are_checked(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"index.json does not exist"):
        attribution.read_objects(tmp_path)
