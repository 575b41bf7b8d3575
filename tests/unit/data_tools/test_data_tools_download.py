"""Downloads from a local server with the published layout, and with the troubles of real ones."""

from __future__ import annotations

import gzip
import hashlib
import json
import signal
from contextlib import suppress
from pathlib import Path

import pytest

pytest.importorskip("requests", reason="requests is missing; pip install 'lgm-training[objaverse]'")

from data_tools.download import command as download
from data_tools.download.fetch import Fetcher, FetchError, FetchOptions, _open_partial
from data_tools.download.lists import read_captions, read_uids
from data_tools.shared.sources import find_meshes, read_metadata
from tests.clock import wait_until
from tests.forked import Forked
from tests.web_server import bad_server, nowhere

UIDS = [f"{i:032x}" for i in range(1, 8)]
FOLDERS = {uid: f"000-{i % 2:03d}" for i, uid in enumerate(UIDS)}
FAST = ("--backoff-s", "0.01", "--timeout-s", "60", "--workers", "4")


def glb(seed: int, size: int = 1000) -> bytes:
    body = hashlib.sha256(str(seed).encode()).digest() * (size // 32)
    return b"glTF\x02\0\0\0" + (len(body) + 12).to_bytes(4, "little") + body


def gz(content) -> bytes:
    return gzip.compress(json.dumps(content).encode())


def sketchfab_metadata(uid: str) -> dict:
    return {
        "uid": uid, "name": f"Chair {uid[-1]}", "license": "by", "viewerUrl": f"https://sketchfab.com/{uid}",
        "user": {"username": "ann", "displayName": "Ann"}, "categories": [{"name": "Furniture"}],
    }  # fmt: skip


@pytest.fixture
def server():
    """The layout of huggingface.co/datasets/allenai/objaverse."""
    with bad_server() as made:
        paths = {uid: f"glbs/{FOLDERS[uid]}/{uid}.glb" for uid in UIDS}
        made.files["/o/object-paths.json.gz"] = gz(paths)
        made.files["/o/lvis-annotations.json.gz"] = gz({"chair": UIDS[:3], "coffee_table": UIDS[3:4]})
        for folder in set(FOLDERS.values()):
            known = {uid: sketchfab_metadata(uid) for uid in UIDS if FOLDERS[uid] == folder}
            made.files[f"/o/metadata/{folder}.json.gz"] = gz(known)
        for number, uid in enumerate(UIDS):
            made.files[f"/o/{paths[uid]}"] = glb(number)
        yield made


def path_of(uid: str) -> str:
    return f"glbs/{FOLDERS[uid]}/{uid}.glb"


def objaverse(server, out: Path, *options: str) -> int:
    return download.main(["objaverse", "--base-url", f"{server.url}/o", "--out", str(out), *FAST, *options])


def report(out: Path) -> dict[str, dict]:
    lines = [json.loads(line) for line in (out / "report.jsonl").read_text().splitlines()]
    return {line["uid"]: line for line in lines}


def fetcher(**options) -> Fetcher:
    return Fetcher(FetchOptions(**{"timeout_s": 60.0, "backoff_s": 0.01, "retries": 2, **options}))


def test_objaverse_with_its_licences(server, tmp_path, capsys):
    captions = tmp_path / "captions.csv"
    captions.write_text(f'{UIDS[0]},"a chair, red"\n{UIDS[1]},a stool\n')
    assert objaverse(server, tmp_path / "out", "--all", "--captions", str(captions)) == 0
    assert "7 fetched, 0 complete before, 0 failed" in capsys.readouterr().out
    for number, uid in enumerate(UIDS):
        assert (tmp_path / "out" / path_of(uid)).read_bytes() == glb(number)
    known = {
        read_metadata(source)["uid"]: read_metadata(source) for source in find_meshes([str(tmp_path / "out")])
    }
    assert known[UIDS[0]] == {
        "uid": UIDS[0], "name": "Chair 1", "licence": "CC-BY-4.0", "author": "Ann", "category": "Furniture",
        "caption": "a chair, red", "source": f"https://sketchfab.com/{UIDS[0]}",
    }  # fmt: skip
    assert "caption" not in known[UIDS[2]]
    assert not list((tmp_path / "out").rglob("*.partial*"))


def test_again_fetches_nothing_and_keeps_what_someone_added(server, tmp_path, capsys):
    objaverse(server, tmp_path, "--all")
    server.requests.clear()
    sidecar = tmp_path / path_of(UIDS[0]).replace(".glb", ".meta.json")
    sidecar.write_text(json.dumps({**json.loads(sidecar.read_text()), "group": "g"}))
    assert objaverse(server, tmp_path, "--all") == 0
    assert "0 fetched, 7 complete before, 0 failed" in capsys.readouterr().out
    assert not server.requests
    assert json.loads(sidecar.read_text())["group"] == "g"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("lgm.csv", f"000-000,{UIDS[0]}\n000-001,{UIDS[1]}\n"),
        ("a.txt", f"# mine\n{UIDS[0]}\n\n{UIDS[1]}\n{UIDS[0]}\n"),
        ("paths.txt", f"000-000/{UIDS[0]}.glb\nglbs/000-001/{UIDS[1]}.glb\n"),
        ("table.csv", f"name,uid\nx,{UIDS[0]}\ny,{UIDS[1]}\n"),
        ("a.json", json.dumps([UIDS[0], f"000-001/{UIDS[1]}.glb"])),
        ("gobjaverse.json", json.dumps({"0/1": f"000-000/{UIDS[0]}.glb", "0/2": f"000-001/{UIDS[1]}.glb"})),
        ("lvis.json", json.dumps({"chair": UIDS[:2]})),
        ("captions.json", json.dumps({UIDS[0]: "a", UIDS[1]: "b"})),
    ],
)
def test_uid_lists_in_all_their_forms(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    assert read_uids(tmp_path / name) == UIDS[:2]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("cap3d.csv", f'{UIDS[0]},"a, b"\n{UIDS[1]},c\n'),
        ("header.csv", f'uid,caption\n{UIDS[0]},"a, b"\n{UIDS[1]},c\n'),
        ("a.json", json.dumps({UIDS[0]: ["a, b", "other"], f"000-001/{UIDS[1]}.glb": "c"})),
        ("a.jsonl", f'{{"uid": "{UIDS[0]}", "caption": "a, b"}}\n{{"uid": "{UIDS[1]}", "text": "c"}}\n'),
    ],
)
def test_captions_in_all_their_forms(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    assert read_captions(tmp_path / name) == {UIDS[0]: "a, b", UIDS[1]: "c"}


def test_half_a_table_is_fetched_again(server, tmp_path):
    (tmp_path / "object-paths.json.gz").write_bytes(server.files["/o/object-paths.json.gz"][:50])
    assert objaverse(server, tmp_path, "--all") == 0
    server.files["/o/object-paths.json.gz"] = b"no table"
    with pytest.raises(ValueError, match="is no gzipped JSON table; check --base-url"):
        objaverse(server, tmp_path / "other", "--all")


def test_lvis_choice_and_unknown_uids(server, tmp_path, capsys):
    (tmp_path / "list.txt").write_text(f"{UIDS[1]}\n{UIDS[5]}\nffff\n")
    listed = ("--uids", str(tmp_path / "list.txt"))
    assert objaverse(server, tmp_path / "a", *listed, "--lvis", "Chair,coffee table") == 0
    assert "1 fetched" in capsys.readouterr().out
    sidecar = tmp_path / "a" / path_of(UIDS[1]).replace(".glb", ".meta.json")
    assert json.loads(sidecar.read_text())["category"] == "chair"
    assert objaverse(server, tmp_path / "b", *listed) == 0
    assert "failed ffff: not in Objaverse 1.0" in capsys.readouterr().out
    assert report(tmp_path / "b")["ffff"]["reason"] == "not in Objaverse 1.0"
    with pytest.raises(ValueError, match="'table' is no LVIS category; like it: coffee_table"):
        objaverse(server, tmp_path / "a", "--lvis", "table")
    (tmp_path / "other.txt").write_text("28/151384\n")
    with pytest.raises(ValueError, match=r"none of 1 uids is in Objaverse 1.0"):
        objaverse(server, tmp_path / "a", "--uids", str(tmp_path / "other.txt"))


def test_parts_share_the_objects(server, tmp_path):
    for part in ("1/2", "2/2"):
        objaverse(server, tmp_path / part[0], "--all", "--part", part)
    found = [{path.name for path in (tmp_path / part).rglob("*.glb")} for part in "12"]
    assert not found[0] & found[1] and len(found[0] | found[1]) == 7 and all(found)


def test_troubles_of_servers(server, tmp_path, capsys):
    troubles = [["cut"], ["503", "429"], ["refuse"], ["404!"], ["page!"], ["unsized"], ["500!"]]
    for uid, trouble in zip(UIDS, troubles, strict=True):
        server.trouble[f"/o/{path_of(uid)}"] = trouble
    assert objaverse(server, tmp_path, "--all", "--retries", "2") == 0
    output = capsys.readouterr().out
    assert "4 fetched, 0 complete before, 3 failed" in output
    assert f"failed {UIDS[3]}: HTTP 404" in output
    assert f"failed {UIDS[4]}: the server sent a web page" in output
    assert f"failed {UIDS[6]}: HTTP 500" in output and "3 attempts" in output
    for number in (0, 1, 2, 5):
        assert (tmp_path / path_of(UIDS[number])).read_bytes() == glb(number)
    for number in (3, 4, 6):
        assert not (tmp_path / path_of(UIDS[number])).exists()
    assert server.ranged == [f"/o/{path_of(UIDS[0])}"], "what was cut goes on where it stopped"


@pytest.mark.parametrize("trouble", ["stall", "drip"])
def test_a_server_that_stalls_or_drips_holds_no_one(server, tmp_path, trouble):
    """It would stall for ever, and drip for minutes; a machine that is slow itself is given another try."""
    server.files["/a.glb"] = glb(0, 20_000)
    server.trouble["/a.glb"] = [trouble]
    fetcher(timeout_s=0.5, retries=20).fetch(f"{server.url}/a.glb", tmp_path / "a.glb")
    assert (tmp_path / "a.glb").read_bytes() == glb(0, 20_000)
    assert server.requests["/a.glb"] >= 2


def test_without_ranges_a_cut_file_starts_again(server, tmp_path):
    server.ranges = False
    server.files["/a.glb"] = glb(0, 4000)
    server.trouble["/a.glb"] = ["cut", "cut"]
    fetcher().fetch(f"{server.url}/a.glb", tmp_path / "a.glb")
    assert (tmp_path / "a.glb").read_bytes() == glb(0, 4000)


def test_a_file_that_changed_between_two_attempts_is_not_mixed(server, tmp_path):
    server.files["/a.glb"] = glb(0, 4000)
    server.trouble["/a.glb"] = ["cut!"]
    with pytest.raises(FetchError, match=r"cut|connection"):
        fetcher().fetch(f"{server.url}/a.glb", tmp_path / "a.glb")
    assert (tmp_path / "a.glb.partial").stat().st_size > 1000
    server.files["/a.glb"], server.trouble["/a.glb"] = glb(1, 4000), []
    fetcher().fetch(f"{server.url}/a.glb", tmp_path / "a.glb")
    assert (tmp_path / "a.glb").read_bytes() == glb(1, 4000)


def test_killed_before_the_renaming(server, tmp_path):
    server.files["/a.glb"] = content = glb(0, 4000)
    (tmp_path / "a.glb.partial").write_bytes(content)
    (tmp_path / "a.glb.partial.etag").write_text('"' + hashlib.md5(content).hexdigest() + '"')
    fetcher().fetch(f"{server.url}/a.glb", tmp_path / "a.glb")
    assert (tmp_path / "a.glb").read_bytes() == content
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.glb"]


def test_wrong_checksum_and_other_content(server, tmp_path):
    server.files |= {
        "/a.glb": glb(0),
        "/b.glb": b"version https://git-lfs.github.com/spec/v1\n",
        "/c.glb": b"{}",
    }
    with pytest.raises(FetchError, match=r"sha256 is .*, expected 00"):
        fetcher().fetch(f"{server.url}/a.glb", tmp_path / "a.glb", sha256="00")
    assert server.requests["/a.glb"] == 1, "the same bytes would come again"
    with pytest.raises(FetchError, match="Git LFS pointer"):
        fetcher().fetch(f"{server.url}/b.glb", tmp_path / "b.glb")
    with pytest.raises(FetchError, match="no GLB"):
        fetcher().fetch(f"{server.url}/c.glb", tmp_path / "c.glb")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def refusing():
    with nowhere() as url:
        yield url


def test_without_a_network_there_is_one_line(tmp_path, capsys, refusing):
    with pytest.raises(
        ValueError, match=r"cannot fetch http.*object-paths.json.gz: connection refused; check"
    ):
        download.main(["objaverse", "--all", "--base-url", refusing, "--out", str(tmp_path), *FAST])
    with pytest.raises(ValueError, match=r"sketchfab.parquet: connection refused"):
        download.main(["xl", "--base-url", refusing, "--out", str(tmp_path), *FAST])
    (tmp_path / "urls.txt").write_text("".join(f"{refusing}/{i}.glb\n" for i in range(50)))
    with pytest.raises(ValueError, match=r"no server can be reached, e.g. .*: connection refused"):
        download.main(["urls", str(tmp_path / "urls.txt"), "--out", str(tmp_path), *FAST])
    assert capsys.readouterr().out == ""


def test_a_network_that_goes_away_ends_the_run(server, tmp_path, capsys, refusing):
    server.files["/a.glb"] = glb(0)
    # What was reached before is not reached any more either, when it is asked whether the network is there.
    server.trouble["/a.glb"] = ["", "refuse!"]
    urls = [f"{server.url}/a.glb", *(f"{refusing}/{i}.glb" for i in range(60))]
    (tmp_path / "urls.txt").write_text("\n".join(urls))
    with pytest.raises(ValueError, match=r"no connection for the last 20 objects .* again to go on"):  # noqa: PT012
        options = ("--workers", "1", "--retries", "0")
        download.main(["urls", str(tmp_path / "urls.txt"), "--out", str(tmp_path / "out"), *FAST, *options])
    assert len(list((tmp_path / "out").glob("*.glb"))) == 1


def test_dead_servers_are_losses_and_end_nothing(server, tmp_path, capsys):
    """Sixty links of three servers that are gone, between and after what is there; slow and cut-off files
    too."""
    names = [f"{i:02d}" for i in range(6)]
    server.files |= {f"/{name}.glb": glb(i, 20_000) for i, name in enumerate(names)}
    server.trouble |= {
        "/01.glb": ["404!"],
        "/02.glb": ["cut", "cut"],
        "/03.glb": ["unsized!"],
        "/04.glb": ["503!"],
    }
    licences = {"00": ("CC-BY-4.0", "Ann"), "02": ("CC0-1.0", "")}
    with nowhere() as a, nowhere() as b, nowhere() as c:
        dead = [f"{url}/{i}.glb" for url in (a, b, c) for i in range(20)]
        rows = [
            {"url": f"{server.url}/{name}.glb", "uid": f"o{name}",
             **dict(zip(("licence", "author"), licences.get(name, ()), strict=False))}
            for name in names
        ]  # fmt: skip
        listed = [
            *rows[:3],
            *({"url": url} for url in dead[:45]),
            *rows[3:],
            *({"url": url} for url in dead[45:]),
        ]
        (tmp_path / "list.json").write_text(json.dumps(listed))
        out = tmp_path / "out"
        options = ("--workers", "1", "--retries", "2")
        assert download.main(["urls", str(tmp_path / "list.json"), "--out", str(out), *FAST, *options]) == 0
    output = capsys.readouterr().out
    assert "3 fetched, 0 complete before, 63 failed" in output
    for loss in ("server unreachable 60", "not there (HTTP 403, 404, 410) 1", "server error (other HTTP) 1"):
        assert loss in output
    assert "cut off 1" in output
    assert "licences: CC-BY-4.0 1, CC0-1.0 1, unknown 1; 3 objects, 2 without author or licence" in output
    page = (out / "ATTRIBUTION.md").read_text()
    assert "| [CC-BY-4.0](https://creativecommons.org/licenses/by/4.0/) | 1 |" in page
    assert "| o00 |  | Ann | CC-BY-4.0 |" in page and "| o05 |  | unknown | unknown |" in page
    assert "o01" not in page, "what was lost is not there to be named"
    assert len(report(out)) == 66


def test_a_server_that_never_answered_is_not_waited_for_with_each_object(server, tmp_path, refusing):
    server.files["/a.glb"] = glb(0)
    urls = [f"{server.url}/a.glb", *(f"{refusing}/{i}.glb" for i in range(8))]
    (tmp_path / "urls.txt").write_text("\n".join(urls))
    options = ("--workers", "1", "--retries", "3")
    assert (
        download.main(["urls", str(tmp_path / "urls.txt"), "--out", str(tmp_path / "out"), *FAST, *options])
        == 0
    )
    reasons = [line["reason"] for line in report(tmp_path / "out").values() if line["reason"]]
    assert len(reasons) == 8 and 0 < sum("4 attempts" in reason for reason in reasons) < 8


def test_urls_with_what_a_mesh_names(server, tmp_path, capsys):
    server.files |= {
        "/m/chair.obj": b"mtllib mat/c.mtl\nmtllib ../../etc/passwd\nv 0 0 0\nf 1 1 1\n",
        "/m/mat/c.mtl": b"newmtl a\nmap_Kd wood grain.png\nnewmtl b\nmap_Kd gone.png\n",
        "/m/mat/wood grain.png": b"image",
        "/m/a.gltf": json.dumps({"buffers": [{"uri": "b%20c.bin"}], "images": [{"uri": "data:x"}]}).encode(),
        "/m/b c.bin": b"numbers",
        "/x.glb": glb(3),
    }
    rows = [
        {"url": f"{server.url}/m/chair.obj", "uid": "chair", "licence": "CC0-1.0", "shoe_size": 38},
        f"{server.url}/m/a.gltf",
        {"url": f"{server.url}/x.glb", "uid": "x", "sha256": hashlib.sha256(glb(3)).hexdigest()},
        {"url": f"{server.url}/notes.docx"},
        {"url": f"{server.url}/x.glb", "uid": "no uid"},
    ]
    (tmp_path / "list.json").write_text(json.dumps(rows))
    out = tmp_path / "out"
    assert download.main(["urls", str(tmp_path / "list.json"), "--out", str(out), *FAST]) == 0
    assert "3 fetched, 0 complete before, 2 failed" in capsys.readouterr().out
    assert (out / "chair" / "mat" / "wood grain.png").read_bytes() == b"image"
    assert json.loads((out / "chair" / "model.meta.json").read_text()) == {
        "uid": "chair", "licence": "CC0-1.0", "source": f"{server.url}/m/chair.obj"
    }  # fmt: skip
    notes = " ".join(report(out)["chair"]["notes"])
    assert "'gone.png': HTTP 404" in notes and "'../../etc/passwd' lies outside" in notes
    (folder,) = out.glob("a-*")
    assert (folder / "b c.bin").read_bytes() == b"numbers"
    assert len(list(find_meshes([str(out)]))) == 3


def test_a_local_mirror_and_recheck(server, tmp_path, capsys):
    mirror = tmp_path / "mirror"
    for name, content in server.files.items():
        (mirror / name[1:]).parent.mkdir(parents=True, exist_ok=True)
        (mirror / name[1:]).write_bytes(content)
    command = ["objaverse", "--all", "--base-url", str(mirror / "o"), "--out", str(tmp_path / "out"), *FAST]
    assert download.main(command) == 0
    spoilt = tmp_path / "out" / path_of(UIDS[4])
    spoilt.write_bytes(glb(4)[:500])
    assert download.main([*command, "--recheck"]) == 0
    assert "1 fetched, 6 complete before" in capsys.readouterr().out
    assert spoilt.read_bytes() == glb(4)


def xl_rows(server) -> list[dict]:
    def row(identifier: str, source: str, content: bytes, file_type: str, **known) -> dict:
        return {
            "fileIdentifier": identifier, "source": source, "license": "MIT", "fileType": file_type,
            "sha256": hashlib.sha256(content).hexdigest(), "metadata": json.dumps(known),
        }  # fmt: skip

    blob = f"{server.url}/org/repo/blob/abc/models"
    server.files["/org/repo/raw/abc/models/cup.glb"] = glb(50)
    server.files["/org/repo/raw/abc/models/changed.glb"] = glb(52)
    server.files["/download:77"] = b"solid cup"
    server.files["/3d/vase.glb"] = glb(53)
    return [
        row(f"{blob}/cup.glb", "github", glb(50), "glb"),
        row(f"{blob}/changed.glb", "github", glb(51), "glb"),
        row(f"{blob}/scene.fbx", "github", b"fbx", "fbx"),
        row(f"{server.url}/3d/vase.glb", "smithsonian", glb(53), "glb", title="Vase"),
        row(f"{server.url}/thing:5/files?fileId=77", "thingiverse", b"solid cup", "stl"),
        row(f"https://sketchfab.com/3d-models/{UIDS[0]}", "sketchfab", glb(0), "glb"),
    ]


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_objaverse_xl(server, tmp_path, capsys, form):
    rows = xl_rows(server)
    table = tmp_path / f"table.{form}"
    if form == "csv":
        import csv

        with table.open("w", newline="") as held:
            writer = csv.DictWriter(held, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    else:
        pytest.importorskip("pyarrow", reason="pyarrow is missing; pip install 'lgm-training[objaverse]'")
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), table)
    out = tmp_path / "out"
    command = [
        "xl",
        "--annotations",
        str(table),
        "--objaverse-base-url",
        f"{server.url}/o",
        "--out",
        str(out),
    ]
    assert download.main([*command, *FAST]) == 0
    output = capsys.readouterr().out
    assert "4 fetched, 0 complete before, 1 failed" in output
    assert "left out, types other than --types: 1 .fbx" in output
    assert "expected " + rows[1]["sha256"] in report(out)[rows[1]["sha256"]]["reason"]
    known = {read_metadata(s)["uid"]: read_metadata(s) for s in find_meshes([str(out)])}
    assert set(known) == {rows[0]["sha256"], rows[3]["sha256"], rows[4]["sha256"], UIDS[0]}
    assert known[rows[0]["sha256"]]["author"] == "org" and known[rows[0]["sha256"]]["licence"] == "MIT"
    assert known[rows[3]["sha256"]]["name"] == "Vase"
    assert known[UIDS[0]]["author"] == "Ann"
    (tmp_path / "list.txt").write_text(rows[3]["sha256"] + "\n")
    chosen = ["--uids", str(tmp_path / "list.txt"), "--out", str(tmp_path / "one")]
    assert download.main([*command[:-2], *chosen, *FAST]) == 0
    assert "1 fetched, 0 complete before, 0 failed" in capsys.readouterr().out


def test_xl_fetches_the_published_table(server, tmp_path, capsys):
    pytest.importorskip("pyarrow", reason="pyarrow is missing; pip install 'lgm-training[objaverse]'")
    import pyarrow.parquet

    rows = [row for row in xl_rows(server) if row["source"] == "smithsonian"]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "t.parquet")
    server.files["/xl/smithsonian/smithsonian.parquet"] = (tmp_path / "t.parquet").read_bytes()
    command = [
        "xl",
        "--base-url",
        f"{server.url}/xl",
        "--sources",
        "smithsonian",
        "--out",
        str(tmp_path / "out"),
    ]
    assert download.main([*command, *FAST]) == 0
    assert "1 fetched" in capsys.readouterr().out


def begun(out: Path) -> dict[str, int]:
    """The server's paths of what partial files hold some of, and how much."""
    found = {}
    for path in out.rglob("*.partial"):
        with suppress(FileNotFoundError):  # whole meanwhile, and renamed
            if size := path.stat().st_size:
                found[f"/o/{path.relative_to(out).as_posix().removesuffix('.partial')}"] = size
    return found


@pytest.mark.parametrize("after_bytes", [100_000, 900_000, 2_000_000])
def test_killed_at_any_moment_nothing_half_counts_as_whole(server, tmp_path, after_bytes):
    for number, uid in enumerate(UIDS):
        server.files[f"/o/{path_of(uid)}"] = glb(number, 400_000)
    # The server sends so much, and then of no file more than its first bytes: however busy the machine, the
    # kill comes in the middle of one, when some of it lies on the disk.
    server.hold = lambda path, sent: server.bytes_sent >= after_bytes and sent > 0
    process = Forked(lambda: objaverse(server, tmp_path, "--all", "--workers", "2"))
    try:
        wait_until(lambda: server.held & begun(tmp_path).keys(), process)
    finally:
        process.kill()
    assert process.wait() == -signal.SIGKILL
    # All of a file, and killed before the renaming: then there is nothing that could be asked for.
    cut_off = [path for path, have in begun(tmp_path).items() if have < len(server.files[path])]
    whole = {path.name: path.read_bytes() for path in tmp_path.rglob("*.glb")}
    assert cut_off and len(whole) < 7
    for number, uid in enumerate(UIDS):
        assert whole.get(f"{uid}.glb", glb(number, 400_000)) == glb(number, 400_000)
    server.hold = lambda path, sent: False
    server.ranged.clear()
    assert objaverse(server, tmp_path, "--all") == 0
    assert sorted(server.ranged) == sorted(cut_off), "what was cut off goes on where it stopped"
    for number, uid in enumerate(UIDS):
        assert (tmp_path / path_of(uid)).read_bytes() == glb(number, 400_000)
    assert not list(tmp_path.rglob("*.partial*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["objaverse"], "say which objects: --uids"),
        (["objaverse", "--uids", "nothing.txt"], "nothing.txt does not exist"),
        (["objaverse", "--all", "--workers", "0"], "--workers"),
        (["objaverse", "--all", "--part", "2/1"], "--part '2/1'"),
        (["xl", "--sources", "shapenet"], "'shapenet' is none of sketchfab"),
        (["xl", "--annotations", "nothing.csv"], "nothing.csv does not exist"),
        (["urls", "nothing.txt"], "nothing.txt does not exist"),
    ],
)
def test_a_persons_mistake_is_one_line(tmp_path, arguments, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        download.main([*arguments, "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_a_file_is_fetched_by_one_and_a_kill_frees_it_at_once(tmp_path):
    path, started = tmp_path / "a.glb", tmp_path / "started"

    def hold():
        with _open_partial(path) as (file, _):
            file.write(b"some")
            file.flush()
            started.touch()
            signal.pause()

    process = Forked(hold)
    try:
        wait_until(started.exists, process)
        with pytest.raises(FetchError, match="another process is fetching it") as caught, _open_partial(path):
            pass
        assert caught.value.busy
    finally:
        process.kill()
    assert process.wait() == -signal.SIGKILL
    with _open_partial(path) as (file, _):
        with pytest.raises(FetchError, match="another process is fetching it"), _open_partial(path):
            pass  # nor do two threads of one process hold it
        assert file.seek(0, 2) == len(b"some"), "its content is kept"
