"""Text of pages that are mailed: no folders of the machine, no credentials."""

from pathlib import Path

import pytest

from lgm.reports.portable import portable, portable_argument


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/home/me/runs/best.ckpt", "…/best.ckpt"),
        ("run_dir=/tmp/x data.path=~/sets/chairs/", "run_dir=…/x data.path=…/chairs"),
        ("put it at /root/.cache/vgg16.pth (528 MB), or so", "put it at …/vgg16.pth (528 MB), or so"),
        ("C:\\Users\\me\\a.ckpt and \\\\host\\share\\b.ply", "…/a.ckpt and …/b.ply"),
        ("file:///home/me/a.json", "…/a.json"),
        ("[/home/me/a,/home/me/b]", "[…/a,…/b]"),
        ("https://host/a/b.tar", "https://host/a/b.tar"),
        ("hf:owner/name/file.safetensors", "hf:owner/name/file.safetensors"),
        ("runs/first/checkpoints/best.ckpt", "runs/first/checkpoints/best.ckpt"),
        ("callbacks=[turntable,mesh] a/b 3 / 4", "callbacks=[turntable,mesh] a/b 3 / 4"),
        ("download.pytorch.org/models/vgg.pth", "download.pytorch.org/models/vgg.pth"),
    ],
)
def test_absolute_paths_are_cut_to_their_last_name(text, expected):
    assert portable(text) == expected


def test_what_lies_in_the_working_directory_is_relative_to_it(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert portable(f"ckpt={tmp_path}/runs/a.ckpt") == "ckpt=runs/a.ckpt"


def test_paths_with_blanks_are_one_argument():
    assert portable_argument("data.path=/home/me/my set") == "data.path=…/my set"
    assert portable_argument("data.path=/home/me/a,/home/me/b") == "data.path=…/a,…/b"


def test_credentials_are_masked():
    assert "secret" not in portable("https://me:secret@host/a")


def test_the_home_folder_names_a_person():
    assert portable_argument(f"ckpt={Path.home()}") == "ckpt=~"
