"""What a logger's failure costs: a line, and the run only where its record is lost."""

import pytest
from lightning.pytorch.loggers import Logger

from lgm.loggers.csv_log import CSVLog
from lgm.loggers.guarded import LoggerFailed, guarded


class Away(Logger):
    """A logger of a server that is away for a while."""

    name, version, folder = "away", "", "here"

    def __init__(self):
        super().__init__()
        self.is_away, self.written = True, []

    def log_hyperparams(self, params):
        raise ConnectionError("no key")

    def log_metrics(self, metrics, step=None):
        if self.is_away:
            raise ConnectionError(f"no answer\nat step {step}")
        self.written.append(step)

    def save(self):
        raise TypeError("of no kind")


def test_a_logger_that_raises_costs_a_warning_and_is_tried_again(caplog):
    logger = guarded(Away(), "away")
    for step in range(3):
        logger.log_metrics({"a": 1.0}, step=step)
    logger.save()
    logger.is_away = False
    logger.log_metrics({"a": 1.0}, step=9)
    assert logger.written == [9]
    (line,) = caplog.messages
    assert line.startswith("logger.away (here) cannot be written: no answer; training goes on")
    logger.finalize("success")
    assert caplog.messages[-1] == "logger.away (here): 5 writes were lost"  # an end saves once more


def test_at_the_start_its_mistakes_are_a_persons(caplog):
    with pytest.raises(LoggerFailed, match=r"^logger.away \(here\) cannot be written: no key; mend that"):
        guarded(Away(), "away").log_hyperparams({})


def test_the_runs_own_record_is_not_done_without(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LoggerFailed, match=r"metrics\.csv"):
        guarded(CSVLog(tmp_path / "file"), "csv").log_metrics({"a": 1.0}, step=1)
