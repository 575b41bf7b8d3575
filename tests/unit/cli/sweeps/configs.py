"""The configuration that a sweeper is given."""

from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, open_dict, read_write

ROOT = Path(__file__).parents[4]


def sweep_config(folder: Path, *hydra: str, overrides: tuple[str, ...] = ()) -> DictConfig:
    """train.yaml as Hydra composes it for `-m`; hydra: its own overrides, recorded and not applied."""
    options = [f"run_dir={folder}/sweep", *overrides]
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        config = compose("train", overrides=options, return_hydra_config=True)
    with read_write(config), open_dict(config):
        config.hydra.overrides.hydra = list(hydra)
    return config
