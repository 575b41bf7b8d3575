"""scripts/bench/procedural.py runs, and prints what it measured."""

import json
import runpy
import sys

import pytest

from tests.integration.running import ROOT

pytest.importorskip("manifold3d", reason="manifold3d is missing; pip install 'lgm-training[procedural]'")


def test_each_phase_is_measured(monkeypatch, capsys):
    arguments = "procedural.py --objects 2 --batch 2 --size 16 --views 5 --supersampling 1 --processes 0"
    monkeypatch.setattr(sys, "argv", arguments.split())
    runpy.run_path(str(ROOT / "scripts/bench/procedural.py"), run_name="__main__")
    result = json.loads(capsys.readouterr().out)
    assert result["make"]["ms_per_core"] > 0 and result["make"]["faces_mean"] > 0
    assert result["draw"]["objects_per_s"] > 0 and result["load"]["objects_per_s"] > 0
