"""Files from anywhere, as a person meets them on the command line: exit code 2, one line that names them."""

from __future__ import annotations

import json

import pytest

from data_tools import attribution
from data_tools.shared.command import run_command
from data_tools.stats import command as stats
from data_tools.verify import command as verify
from tests.datasets import sample_files, write_index, write_shard
from tests.integration.running import MICRO, SHORT, run_script
from tests.own_images import Shoot


def one_line(result, *said: str) -> str:
    """The error, the only one; a warning of a broken sample may stand before it, in the log."""
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr + result.stdout
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert line.isprintable() and all(word in line for word in said), line
    return line


def shards(folder, change=lambda files: None):
    """A set of one object, as `change` leaves its files."""
    files = sample_files("a")
    change(files)
    write_index(folder, [write_shard(folder / "a.tar", [files])], {"train": ["a.tar"], "val": ["a.tar"]})
    return folder


def no_tar(folder):
    shards(folder)
    size = (folder / "a.tar").stat().st_size
    (folder / "a.tar").write_bytes(b"a.cameras.json".ljust(size, b"\xff"))


def no_index(folder):
    shards(folder)
    (folder / "index.json").write_text("[" * 100_000)


def no_table(folder):
    shards(folder)
    (folder / "objects.jsonl").write_bytes(b'{"shard": "a.tar", "uid": \xff}\n')


def a_camera_at_infinity(folder):
    def change(files):
        content = json.loads(files["a.cameras.json"])
        content["c2w"][3][3] = 1e39
        files["a.cameras.json"] = json.dumps(content).encode()

    shards(folder, change)


def a_lens_of_no_angle(folder):
    shards(
        folder,
        lambda files: files.update({"a.cameras.json": files["a.cameras.json"].replace(b"49.1", b"1e-30")}),
    )


def an_image_of_a_gigapixel(folder):
    def change(files):
        content = bytearray(files["a.view_000.png"])
        content[16:24] = (1 << 15).to_bytes(4, "big") * 2
        files["a.view_000.png"] = bytes(content)

    shards(folder, change)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (no_tar, ["a.tar"]),
        (no_index, ["index.json", "nested too deeply"]),
        (no_table, ["objects.jsonl line 1"]),
        (a_camera_at_infinity, ["object 'a'", "view 3", "1e+39"]),
        (a_lens_of_no_angle, ["object 'a'", "fov_y_deg=1e-30"]),
        (an_image_of_a_gigapixel, ["object 'a'", "view 0 is 32768 × 32768"]),
    ],
)
def test_training_on_a_set_from_anywhere(tmp_path, spoil, said):
    spoil(tmp_path / "set")
    filters = ["data.filters.licence.allow=[CC*]"] if spoil is no_table else []
    result = run_script(
        "train.py", *MICRO, *SHORT, *filters, f"data.path={tmp_path / 'set'}", f"run_dir={tmp_path / 'run'}"
    )
    one_line(result, *said)


@pytest.mark.parametrize("name", ["a.ckpt", "a.safetensors"])
def test_evaluating_weights_from_anywhere(tmp_path, dataset, name):
    (tmp_path / name).write_bytes(b"\xff" * 4096)
    result = run_script(
        "evaluate.py",
        f"ckpt={tmp_path / name}",
        f"data.path={dataset}",
        "trainer=cpu",
        f"run_dir={tmp_path / 'run'}",
    )
    one_line(result, name)


def test_evaluating_own_images_from_anywhere(tmp_path):
    folder = Shoot.of(size=(16, 16)).write_transforms(tmp_path / "images")
    content = json.loads((folder / "transforms.json").read_text())
    content["w"] = float("inf")
    (folder / "transforms.json").write_text(json.dumps(content))
    result = run_script(
        *("evaluate.py", "data=images", "data/background=keep", "ckpt=mini", "trainer=cpu"),
        *(f"data.path={folder}", f"run_dir={tmp_path / 'run'}"),
    )
    one_line(result, "transforms.json frame 0", "w=inf")


@pytest.mark.parametrize("spoil", [no_index, no_tar, a_camera_at_infinity, an_image_of_a_gigapixel])
@pytest.mark.parametrize("tool", [verify, stats])
def test_the_data_tools_on_a_set_from_anywhere(tmp_path, capfd, tool, spoil):
    spoil(tmp_path)
    with pytest.raises(SystemExit) as left:
        run_command(lambda: tool.main([str(tmp_path), "--workers", "1"]))
    said = capfd.readouterr()
    lines = (said.out + said.err).splitlines()
    if tool is verify and spoil is not no_index:  # it names each fault, on its own line
        assert left.value.code == 1 and any(line.startswith("shard a.tar: ") for line in lines), lines
        assert all(line.startswith(("shard a.tar: ", "index.json: ")) for line in lines), lines
    else:
        assert left.value.code == 2 and len(lines) == 1 and lines[0].startswith("error: "), lines


def test_an_attribution_of_a_table_from_anywhere(tmp_path, capsys):
    no_table(tmp_path)
    with pytest.raises(SystemExit) as left:
        run_command(lambda: attribution.main([str(tmp_path), "--out", str(tmp_path / "a.md")]))
    assert left.value.code == 2 and "objects.jsonl" in capsys.readouterr().err
    assert not (tmp_path / "a.md").exists()
