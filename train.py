"""Train a model: `python train.py --help`."""

import hydra
from omegaconf import DictConfig

from lgm.cli import command_line, resolvers, runtime, sweeps
from lgm.cli.train import train

resolvers.register()
sweeps.register()


@hydra.main(version_base="1.3", config_path="configs", config_name="train")
def main(cfg: DictConfig) -> float | None:
    return runtime.run(train, cfg)


if __name__ == "__main__":
    runtime.program(lambda: command_line.run(main, "train"))
