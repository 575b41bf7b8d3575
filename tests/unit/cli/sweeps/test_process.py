"""A trial's process: what it is told, what it reports, how its end is understood. Programs of a few lines
stand for a training."""

import json
import os
import signal
import sys
import textwrap
from pathlib import Path

import pytest

from lgm import stopping
from lgm.cli.sweeps import trial as trials
from lgm.cli.sweeps.process import run_trial, trial_command, trial_folder
from lgm.cli.sweeps.trial import Record, Trial, current_trial, handed_over
from lgm.files import locked
from tests.forked import Forked
from tests.unit.cli.sweeps.configs import sweep_config

RECORD = Record("study", 3, {"optimizer.lr": "0.1"})
# As `lgm.cli.sweeps.trial`, without loading anything.
BEGIN = """
    import json, os, signal, sys
    trial = json.loads(os.environ["LGM_TRIAL"])
    path = os.path.join(trial["folder"], "trial.json")
    def ask(step, value):
        answers, values = trial["pipe"]
        os.write(values, (json.dumps({"step": step, "value": value}) + "\\n").encode())
        return os.read(answers, 1)
    def end(**changes):
        with open(path) as file:
            record = json.load(file)
        with open(path, "w") as file:
            json.dump({**record, **changes}, file)
"""


def run(folder: Path, program: str, report=None, record=RECORD):
    code = textwrap.dedent(BEGIN) + textwrap.dedent(program)
    return run_trial([sys.executable, "-S", "-c", code], folder, record, report)


def test_reports_are_answered_and_the_outcome_is_read(tmp_path):
    asked = []

    def report(step, value):
        asked.append((step, value))
        return step == 20

    program = """
        answers = [ask(10, 1.5), ask(20, 2.5)]
        end(status="pruned" if answers == [b"g", b"p"] else "complete", value=2.5, step=20)
    """
    outcome = run(tmp_path / "3", program, report)
    assert asked == [(10, 1.5), (20, 2.5)]
    assert (outcome.status, outcome.value, outcome.step) == ("pruned", 2.5, 20)
    assert json.loads((tmp_path / "3" / "trial.json").read_text())["params"] == RECORD.params


@pytest.mark.parametrize(
    ("program", "status", "said"),
    [
        ('end(status="complete", value=1.0)', "complete", ""),
        ('end(status="failed", error="no data"); sys.exit(2)', "failed", "no data"),
        ("sys.exit(2)", "failed", "exit code 2"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "killed", "SIGKILL"),
        ("sys.exit(143)", "killed", "SIGTERM"),
        ('end(status="failed", error="gone", lost_rank=True); sys.exit(2)', "killed", "gone"),
        (
            'open(os.path.join(trial["folder"], "error_rank1.log"), "w").close()\n'
            'end(status="failed", error="gone", lost_rank=True); sys.exit(2)',
            "failed",
            "gone",
        ),
    ],
)
def test_how_an_end_is_understood(tmp_path, program, status, said):
    outcome = run(tmp_path, program)
    assert outcome.status == status and said in outcome.error


def test_a_folder_of_another_study_is_refused(tmp_path):
    run(tmp_path, 'end(status="complete")')
    (tmp_path / "checkpoints").mkdir()
    assert run(tmp_path, 'end(status="complete")').status == "complete"  # its own
    for other in (Record("other", 3, RECORD.params), Record("study", 3, {"optimizer.lr": "0.2"})):
        with pytest.raises(ValueError, match="holds a run that is not of this study"):
            run(tmp_path, "", record=other)
    assert run(tmp_path / "new", 'end(status="complete")', record=Record("", 0)).status == "complete"


def test_a_folder_in_use_is_refused_unless_it_is_the_trials_own(tmp_path):
    (tmp_path / "a").mkdir()
    reader, writer = os.pipe()

    def hold():
        with locked(tmp_path / "a" / ".lock"):
            os.write(writer, b"x")
            signal.pause()

    forked = Forked(hold)
    os.read(reader, 1)
    with pytest.raises(ValueError, match="is in use by process"):
        run(tmp_path / "a", "")
    RECORD.write(tmp_path / "a")
    waiting = Forked(lambda: run(tmp_path / "a", 'end(status="complete")'))
    forked.kill()  # of its predecessor, which ends with its sweep
    forked.wait()
    assert waiting.wait() == 0
    assert Record.read(tmp_path / "a").status == "complete"


def test_a_stop_lets_the_trial_save_first(tmp_path):
    """SIGTERM to the sweep: the trial gets it too, and is waited for."""
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)

    def sweep():
        program = """
            def save(*_):
                end(step=7)
                sys.exit(143)
            signal.signal(signal.SIGTERM, save)
            ask(0, 0.0)
            while True:
                signal.pause()
        """

        def report(step, value):
            os.write(writer, b"x")
            return False

        with stopping.handled():
            outcome = run(tmp_path, program, report)
        assert outcome.status == "killed" and outcome.step == 7
        assert outcome.stopped.signal_number == signal.SIGTERM

    forked = Forked(sweep)
    os.read(reader, 1)
    os.kill(forked.pid, signal.SIGTERM)
    assert forked.wait() == 0, forked.stderr


def test_the_command_of_a_trial_is_a_run_of_its_own(tmp_path, monkeypatch):
    argv = ["train.py", "--config-dir", "/mine", "-m", "a=1"]
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)  # a script, not `python -m`
    hydra = ["hydra.sweeper.n_trials=4", "hydra.sweep.dir='x'", "hydra.verbose=true", "hydra.mode=MULTIRUN"]
    config = sweep_config(tmp_path, *hydra)
    assert trial_folder(config, config, 5) == tmp_path / "sweep" / "5"
    command = trial_command(config, ["a=1", "run_dir=/other", "b='x y'"], tmp_path / "it's", 5)
    assert command[1] == str(Path("train.py").absolute())
    assert command[2:] == [
        *("--config-dir", "/mine", "hydra.verbose=true", "a=1", "b='x y'"),
        *("hydra.job.num=5", f"run_dir='{tmp_path}/it\\'s'"),
    ]


def test_a_trial_knows_itself_reports_and_records(tmp_path, monkeypatch):
    monkeypatch.setattr(trials, "_current", None)
    monkeypatch.delenv("LGM_TRIAL", raising=False)
    assert current_trial() is None
    answers, values = os.pipe(), os.pipe()
    for name, text in handed_over(tmp_path, (answers[0], values[1])).items():
        monkeypatch.setenv(name, text)
    trial = current_trial()
    assert trial is current_trial()
    RECORD.write(tmp_path)
    os.write(answers[1], b"gp")
    assert not trial.report(5, 1.5) and trial.report(6, 2.5)
    assert [json.loads(line)["step"] for line in os.read(values[0], 1000).splitlines()] == [5, 6]
    trial.complete(2.5)
    record = Record.read(tmp_path)
    assert (record.status, record.value, record.step, record.params) == ("pruned", 2.5, 6, RECORD.params)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_metric_that_is_not_finite_is_a_failure(tmp_path, value):
    RECORD.write(tmp_path)
    Trial(str(tmp_path), os.getpid(), None).complete(value)
    assert Record.read(tmp_path).status == "failed"


def test_why_a_trial_failed(tmp_path):
    RECORD.write(tmp_path)
    trial = Trial(str(tmp_path), os.getpid(), None)
    trial.failed("no such metric", trials.MetricNeverLogged("no such metric"))
    assert Record.read(tmp_path).never_logged
    trial.failed("rank", RuntimeError("[gloo] Connection closed by peer"))
    assert Record.read(tmp_path).lost_rank
