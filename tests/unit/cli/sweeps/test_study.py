"""Studies that several sweeps share, over SQLite and over a journal file."""

import json
import os
import signal
import sqlite3

import pytest

pytest.importorskip("optuna", reason="optuna is missing; pip install 'lgm-training[sweeps]'")

import optuna

from lgm.cli.sweeps import storage as storages
from lgm.cli.sweeps.process import Outcome
from lgm.cli.sweeps.space import search_space
from lgm.cli.sweeps.storage import Storage, StorageFault, open_storage
from lgm.cli.sweeps.study import SweepStudy, Task
from tests.forked import Forked

SPACE = {"x": "interval(0, 1)", "kind": "choice(a, b)"}
KINDS = ["study.db", "study.journal"]


def study(where, n_trials=3, space=SPACE, metric="val/psnr", **options):
    task = Task(search_space(space, []), metric, "maximize", options.pop("fixed", ()))
    storage = where if isinstance(where, Storage) else open_storage(str(where), where.parent)
    options = {"seed": 0, "max_retries": 2, **options}
    sampler = lambda seed: optuna.samplers.RandomSampler(seed=seed)  # noqa: E731
    return SweepStudy(storage, "s", task, n_trials, sampler, optuna.pruners.NopPruner(), **options)


def run_one(of: SweepStudy, outcome=None, is_void=False):
    """Runs a trial; returns its values, or None where none was missing."""
    with of.next() as asked:
        if asked is None:
            return None
        of.tell(asked, outcome or Outcome("complete", 20.0, 10), is_void)
        return asked.root, asked.values


def statuses(of: SweepStudy) -> list[str]:
    return [row.status for row in of.rows()]


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_command_again_runs_what_is_missing(tmp_path, kind):
    path = tmp_path / kind
    first = study(path, 2)
    assert run_one(first) and run_one(first, Outcome("failed", error="no")) and run_one(first) is None
    assert run_one(study(path, 2)) is None
    more = study(path, 4)
    assert run_one(more, Outcome("pruned")) and run_one(more) and run_one(more) is None
    assert statuses(more) == ["complete", "failed", "pruned", "complete"]
    assert len({row.params["x"] for row in more.rows()}) == 4  # nothing is drawn twice
    with pytest.raises(ValueError, match="n_trials=3 is smaller than the 4 trials"):
        study(path, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_trial_of_a_sweep_that_was_killed_is_run_again(tmp_path, kind):
    path = tmp_path / kind
    reader, writer = os.pipe()

    def sweep():
        with study(path).next() as asked:
            asked.trial.report(7.0, 1)
            os.write(writer, json.dumps(asked.values).encode())
            signal.pause()

    forked = Forked(sweep)
    values = json.loads(os.read(reader, 1000))
    other = study(path)
    assert run_one(other)[0] == 1  # what is running elsewhere is left alone
    forked.kill()
    assert forked.wait() == -signal.SIGKILL
    with other.next() as asked:
        assert asked.root == 0 and asked.values == values and asked.number == 2
        assert other.last_reported(asked) == 7.0  # its pruner knows what was measured before
        other.tell(asked, Outcome("complete", 21.0, 10))
    assert run_one(other)[0] == 3 and run_one(other) is None
    assert statuses(other) == ["killed", "complete", "complete", "complete"]
    assert [row.number for row in other.rows()] == [0, 1, 0, 3]


def test_a_trial_that_is_killed_again_and_again_is_given_up(tmp_path):
    of = study(tmp_path / "study.journal", 1, max_retries=2)
    killed = Outcome("killed", error="ended by SIGKILL")
    runs = [run_one(of, killed) for _ in range(3)]
    assert [root for root, _ in runs] == [0, 0, 0] and runs[0] == runs[1] == runs[2]
    assert run_one(of) is None and statuses(of) == ["killed"] * 3


def test_two_sweeps_at_once_run_as_many_as_were_asked_for(tmp_path):
    path = tmp_path / "study.journal"

    def sweep():
        of = study(path, 12)
        while run_one(of):
            pass

    forks = [Forked(sweep) for _ in range(2)]
    assert [forked.wait() for forked in forks] == [0, 0], [forked.stderr for forked in forks]
    rows = study(path, 12).rows()
    assert len(rows) == 12 and {row.status for row in rows} == {"complete"}
    assert len({row.params["x"] for row in rows}) == 12


def test_what_was_refused_does_not_count(tmp_path):
    of = study(tmp_path / "study.journal", 1)
    assert run_one(of, Outcome("failed", error="no data"), is_void=True)
    assert not of.is_measured
    assert run_one(of) and run_one(of) is None and of.is_measured


def test_a_study_of_another_search_is_refused(tmp_path):
    path = tmp_path / "study.db"
    run_one(study(path, fixed=("train.max_steps=5",)))
    with pytest.raises(ValueError, match=r"x was float \[0.0, 1.0, null\] and is float \[0.0, 2.0, null\]"):
        study(path, space={**SPACE, "x": "interval(0, 2)"})
    with pytest.raises(ValueError, match="y was not searched and is"):
        study(path, space={**SPACE, "y": "interval(0, 2)"})
    with pytest.raises(ValueError, match="metric was val/psnr and is val/loss"):
        study(path, metric="val/loss")


def test_other_options_are_named(tmp_path, caplog):
    path = tmp_path / "study.journal"
    run_one(study(path, fixed=("train.max_steps=5",)))
    study(path, fixed=("train.max_steps=6",))
    assert "-train.max_steps=5 +train.max_steps=6" in caplog.text


def test_a_study_of_another_program_is_refused(tmp_path):
    other = optuna.create_study(storage=f"sqlite:///{tmp_path / 'study.db'}", study_name="s")
    other.add_trial(optuna.trial.create_trial(value=1.0))
    with pytest.raises(ValueError, match="is of another program"):
        study(tmp_path / "study.db")


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("file/study.db", "is no folder"),
        ("folder.db", "is a folder"),
        ("study.txt", "neither SQLite nor journal"),
        ("damaged.db", "not a database"),
        ("nosuchdb://host/x", "nosuchdb"),
    ],
)
def test_a_storage_that_cannot_be_opened(tmp_path, monkeypatch, where, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.db").mkdir()
    (tmp_path / "damaged.db").write_text("no database" * 100)
    with pytest.raises(StorageFault, match=r"^hydra\.sweeper\.storage=") as refused:
        open_storage(where, tmp_path)
    assert said in str(refused.value) and "\n" not in str(refused.value)


def test_a_storage_of_a_url_and_the_default(tmp_path):
    assert run_one(study(open_storage(None, tmp_path)))
    assert run_one(study(open_storage(f"sqlite:///{tmp_path}/study.db", tmp_path)))[0] == 1


def test_a_journal_whose_last_line_was_cut_off_by_a_kill(tmp_path):
    path = tmp_path / "study.journal"
    run_one(study(path))
    with path.open("a") as file:
        file.write('{"op_code": 4, "wor')
    assert run_one(study(path))[0] == 1


def test_without_locks_two_that_take_the_last_trial_keep_one(tmp_path, monkeypatch):
    url = f"sqlite:///{tmp_path}/study.db"
    of = study(Storage(storages._server(url), None, url), 1)
    monkeypatch.setattr(SweepStudy, "_is_one_missing", lambda self: True)  # as both have seen it
    assert run_one(of) and run_one(of) is None
    assert statuses(of) == ["complete"]


def test_heartbeats_take_the_place_of_locks_with_a_server(tmp_path):
    """A server, which SQLite stands for: a trial without a sign of life is run again."""
    path = tmp_path / "study.db"

    def server():
        url = f"sqlite:///{path}"
        return study(Storage(storages._server(url), None, url), 1)

    with server().next() as asked:
        values = asked.values  # no word of how it ended
    assert run_one(server()) is None  # it may be alive
    with sqlite3.connect(path) as database:
        database.execute("UPDATE trial_heartbeats SET heartbeat = '2026-01-01 00:00:00'")
    database.close()
    other = server()
    assert run_one(other) == (0, values) and statuses(other) == ["killed", "complete"]
