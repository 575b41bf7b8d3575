"""What a search refuses before it asks for a trial."""

import pytest

from lgm.cli.sweeps.tpe import TPESweep
from tests.unit.cli.sweeps.configs import sweep_config


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"n_trials": 0}, "hydra.sweeper.n_trials=0 must be a whole number from 1 on"),
        ({"n_trials": "many"}, "hydra.sweeper.n_trials=many must be"),
        ({"max_retries": -1}, "hydra.sweeper.max_retries=-1 must be a whole number from 0 on"),
        ({"direction": "up"}, "hydra.sweeper.direction=up must be one of maximize, minimize"),
    ],
)
def test_options_that_mean_nothing(tmp_path, changes, said):
    options = {"n_trials": 1, "max_retries": 0, "direction": "maximize", "params": {}, **changes}
    with pytest.raises(ValueError, match=said):
        TPESweep(sweep_config(tmp_path), None, options).run([])


def test_a_sweep_is_not_started_by_a_launcher_of_ranks(tmp_path, monkeypatch):
    for name, value in {"LOCAL_RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    options = {"n_trials": 1, "max_retries": 0, "direction": "maximize", "params": {}}
    with pytest.raises(ValueError, match="a sweep starts the processes of its trials itself"):
        TPESweep(sweep_config(tmp_path), None, options).run([])
