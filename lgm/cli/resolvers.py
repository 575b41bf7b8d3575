"""OmegaConf resolvers of the configuration files: `${lgm.asset:quickstart}`, `${lgm.precision:bf16-mixed}`,
`${lgm.recipe:${model}}`, `${lgm.nodes:}`.
"""

from importlib import resources

import torch
from omegaconf import OmegaConf

from lgm.cli.launch import launched_nodes

# By files of configs/model, their files of configs/recipe, where these are not `published`.
OWN_RECIPES = {"mini": "mini", "nano": "nano", "transformer": "mini"}


def asset(name: str) -> str:
    """The path of something that the package carries."""
    return str(resources.files("lgm") / "assets" / name)


def precision(on_gpu: str) -> str:
    """The precision of `trainer=auto`: that of a GPU which has bf16, else full float32."""
    return on_gpu if torch.cuda.is_available() and torch.cuda.is_bf16_supported(False) else "32-true"


def recipe(model: str | None) -> str:
    """The file of configs/recipe by which a file of configs/model is trained, unless `recipe=` is given."""
    return OWN_RECIPES.get(model or "", "published")


def register() -> None:
    """Make them known to OmegaConf; may be called again."""
    OmegaConf.register_new_resolver("lgm.asset", asset, replace=True)
    OmegaConf.register_new_resolver("lgm.recipe", recipe, replace=True)
    OmegaConf.register_new_resolver("lgm.precision", precision, replace=True)
    OmegaConf.register_new_resolver("lgm.nodes", launched_nodes, replace=True)
