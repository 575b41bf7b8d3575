"""What the pages are made with: drawings, the reference of options, lists in docstrings."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]
NUMBER = re.compile(r"-?\d+\.\d+")


@pytest.fixture(autouse=True)
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts/docs"))
    yield
    for name in ("drawings", "options", "docstrings"):
        sys.modules.pop(name, None)


def test_drawings_are_those_of_the_script():
    import drawings

    for name, draw in drawings.DRAWINGS.items():
        committed = (ROOT / "docs/images" / name).read_text(encoding="utf-8")
        remedy = "run python scripts/docs/drawings.py docs/images"
        assert NUMBER.sub("", committed) == NUMBER.sub("", draw()), remedy
        numbers = [[float(number) for number in NUMBER.findall(text)] for text in (committed, draw())]
        assert numbers[0] == pytest.approx(numbers[1], abs=0.11), remedy  # written with one decimal


def test_comments_of_a_file_go_to_their_options(tmp_path):
    from options import options_page, read_config

    text = """\
# What the file is for.
# python train.py group=file
size: 3 # pixels
# above the key,
# in two lines
part: # of the part
  names: [a, "b # c"] # behind a list
  follows: ${size}
"""
    path = tmp_path / "group" / "file.yaml"
    path.parent.mkdir()
    path.write_text(text, encoding="utf-8")
    file = read_config(path, tmp_path)
    assert file.choice == "group=file"
    assert file.description == ["What the file is for.", "python train.py group=file"]
    assert [(option.key, option.default, option.comment) for option in file.options] == [
        ("group.size", "3", "pixels"),
        ("group.part", "", "above the key, in two lines of the part"),
        ("group.part.names", '[a, "b # c"]', "behind a list"),
        ("group.part.follows", "${size}", ""),
    ]
    path.write_text(f"# @package _global_\n# Deltas.\nsize: 4 # <pixels> | *\n{text[:0]}", encoding="utf-8")
    assert read_config(path, tmp_path).options[0].key == "size"
    page = options_page(tmp_path)
    assert "Deltas." in page and "&#60;pixels&#62; &#124; &#42;" in page.replace("&#38;", "&")


def test_named_lines_of_a_docstring_become_a_list():
    pytest.importorskip("griffe", reason="griffe is missing; pip install 'lgm-training[docs]'")
    from docstrings import as_list

    text = "Draw it.\n\nsize: in pixels,\n    both sides.\nup, down: axes.\nRaises ValueError: no.\n"
    assert as_list(text).splitlines() == [
        "Draw it.",
        "",
        "- **size**: in pixels,",
        "    both sides.",
        "- **up, down**: axes.",
        "",
        "Raises ValueError: no.",
    ]
    assert as_list("title: not an item") == "title: not an item"


def test_the_citation_is_of_this_version():
    import lgm

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == lgm.__version__
    assert citation["license"] == "MIT" and citation["preferred-citation"]["year"] == 2024
