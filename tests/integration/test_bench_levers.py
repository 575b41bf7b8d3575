"""scripts/bench/levers.py goes on where it stopped, and its table has what was measured."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from lgm.cli.validate import check_training
from tests.integration.running import ROOT, composed


@pytest.fixture
def levers(monkeypatch, tmp_path, capsys):
    """Runs the script with trainings and evaluations that only leave their files; returns what it printed and
    the commands that it ran."""
    ran: list[list[str]] = []

    def run(command, cwd, check):
        assert cwd == ROOT and check
        ran.append(command[1:])
        options = dict(word.partition("=")[::2] for word in command[2:])
        folder = Path(options["run_dir"])
        folder.mkdir(parents=True, exist_ok=True)
        if command[1] == "evaluate.py":
            is_rough = options["protocol"] == "canonical4_rough"
            psnr = 20.0 + folder.parent.name.startswith("colors") + int(folder.parent.name[-1])
            bands = {name: {"psnr": psnr + i} for i, name in enumerate(("level", "above", "below"), 1)}
            content = {"psnr": psnr - 5 * is_rough, "bands": bands}
            (folder / "metrics.json").write_text(json.dumps(content))

    def started(*arguments: object, run=run) -> tuple[str, list[list[str]]]:
        ran.clear()
        monkeypatch.setattr(subprocess, "run", run)
        monkeypatch.setattr(sys, "argv", ["levers.py", "--out", str(tmp_path), *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(ROOT / "scripts/bench/levers.py"), run_name="__main__")
        started.code = ended.value.code
        return capsys.readouterr().out, list(ran)

    return started


def test_the_table_has_a_row_a_lever_and_means_over_seeds(levers, tmp_path):
    text, ran = levers("--levers", "base", "colors", "--seeds", 0, 1, "--path", "/shards")
    assert [command[0] for command in ran] == ["train.py", *["evaluate.py"] * 4] * 4 and levers.code == 0
    table = (tmp_path / "table.md").read_text()
    assert text.rstrip().endswith(table.rstrip())
    assert (
        "| `base` | 0, 1 | 20.50 ± 0.50 | 21.50 ± 0.50 | 22.50 ± 0.50 | 23.50 ± 0.50 | 15.50 ± 0.50 |"
        in table
    )
    assert "| `colors` | 0, 1 | 21.50 ± 0.50 |" in table
    assert "held out of --path, PSNR" in table and "the bundled 15, PSNR" in table
    assert levers("--levers", "base", "colors", "--seeds", 0, 1, "--path", "/shards")[1] == []
    assert levers("--table", "--levers", "base")[1] == []


def test_its_commands_compose(levers):
    _, ran = levers("--path", "/shards", "--steps", 7, "--set", "trainer=cpu", "train.log_every_steps=1")
    trainings = [command for command in ran if command[0] == "train.py"]
    assert len(trainings) == len(list((ROOT / "configs/experiment/lever").glob("*.yaml")))
    cfg = composed("train", *trainings[-1][1:])
    assert check_training(cfg) and cfg.train.max_steps == 7
    evaluation = next(
        command for command in ran if command[0] == "evaluate.py" and "data=quickstart" in command
    )
    cfg = composed("evaluate", *evaluation[1:])
    assert cfg.protocol.name == "canonical4" and cfg.callbacks.report is None


def test_a_training_that_fails_leaves_the_others_and_is_tried_again(levers, tmp_path):
    def fails(command, cwd, check):
        if any("lever/base" in word for word in command):
            raise subprocess.CalledProcessError(2, command)
        folder = Path(next(word for word in command if word.startswith("run_dir="))[8:])
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "metrics.json").write_text(json.dumps({"psnr": 20.0, "bands": {}}))

    levers("--levers", "base", "colors", run=fails)
    assert levers.code == 1
    assert "`colors`" in (tmp_path / "table.md").read_text()
    assert not (tmp_path / "base_0" / "trained.json").exists()
    _, ran = levers("--levers", "base", "colors")
    assert [command[0] for command in ran] == ["train.py", *["evaluate.py"] * 2] and levers.code == 0
