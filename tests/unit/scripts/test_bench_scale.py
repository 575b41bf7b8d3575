"""scripts/bench/scale.py at its smallest: each part gives rows, and the counts say what they should."""

import importlib.util
import json
from pathlib import Path

import pytest

pytest.importorskip("trimesh", reason="trimesh is missing; pip install 'lgm-training[mesh]'")
_spec = importlib.util.spec_from_file_location("scale", Path(__file__).parents[3] / "scripts/bench/scale.py")
scale = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(scale)


def test_parts_at_their_smallest(tmp_path, capsys):
    parts = ["cache", "group", "choice", "filters", "checks"]
    assert scale.main([*parts, "--objects", "250", "500", "--json", str(tmp_path / "rows.json")]) == 0
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert list(rows) == parts
    smallest = rows["cache"][0]
    assert smallest["claimed"] <= 1.2 * smallest["at least"] < smallest["unclaimed"]
    for row in rows["group"]:
        assert row["groups, all pairs"] == row["groups, buckets"]
        assert row["comparisons, buckets"] < row["comparisons, all pairs"]
    first, restart = rows["checks"][1:]
    assert restart["reads"] * 20 < first["reads"]
    assert "| objects | table, MB |" in capsys.readouterr().out


def test_a_part_that_there_is_not_is_named(capsys):
    with pytest.raises(SystemExit):
        scale.main(["weights"])
    assert "no part 'weights'; known: opening, order" in capsys.readouterr().err
