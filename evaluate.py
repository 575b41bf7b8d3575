"""Measure a checkpoint: `python evaluate.py --help`."""

import hydra
from omegaconf import DictConfig

from lgm.cli import command_line, resolvers, runtime
from lgm.cli.evaluate import evaluate

resolvers.register()


@hydra.main(version_base="1.3", config_path="configs", config_name="evaluate")
def main(cfg: DictConfig) -> float | None:
    return runtime.run(evaluate, cfg)


if __name__ == "__main__":
    runtime.program(lambda: command_line.run(main, "evaluate"))
