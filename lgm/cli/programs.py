"""`lgm-train` and `lgm-evaluate`: train.py and evaluate.py of a checkout, installed.

Both compose the same configuration: the folder `configs`, which lies beside train.py in a checkout and inside
this package once it is installed (pyproject.toml, force-include).
"""

from __future__ import annotations

from collections.abc import Callable

import hydra
from omegaconf import DictConfig

from lgm.cli import command_line, resolvers, runtime, sweeps
from lgm.config_files import configs_folder


def train() -> None:
    """`lgm-train key=value …`; `--help` lists groups and keys."""
    from lgm.cli.train import train

    run("train", train)


def evaluate() -> None:
    """`lgm-evaluate key=value …`; `--help` lists groups and keys."""
    from lgm.cli.evaluate import evaluate

    run("evaluate", evaluate)


def run(name: str, task: Callable[[DictConfig], float | None]) -> None:
    """A task with the configuration `configs/<name>.yaml` and this process's arguments, with exit codes and
    signals."""
    resolvers.register()
    sweeps.register()

    def main(cfg: DictConfig) -> float | None:
        return runtime.run(task, cfg)

    program = hydra.main(version_base="1.3", config_path=str(configs_folder()), config_name=name)(main)
    runtime.program(lambda: command_line.run(program, name))
