"""`python -m lgm.app ckpt=mini`, and `lgm-app` once installed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from lgm.app.generators import Generators
from lgm.app.serve import serve
from lgm.cli import programs
from lgm.cli.build import made
from lgm.cli.values import plain

_OPTIONS = {"image": "imagedream", "text": "mvdream"}  # keys of configs/app.yaml, by what they take


def main() -> None:
    """`lgm-app key=value …`; `--help` lists the keys."""
    programs.run("app", app)


def app(cfg: DictConfig) -> None:
    """Serve the page until a signal ends it."""
    config = plain(cfg)
    serve(config, made_generators(config), Path(config["run_dir"]))


def made_generators(config: Mapping[str, Any]) -> Generators:
    """As they are configured; nothing of their weights is read."""
    specs = {kind: config[name] for kind, name in _OPTIONS.items() if config[name] is not None}
    for spec in specs.values():
        if "cache_dir" in (spec.get("background") or {}):  # of cut-outs, which expire as everything else does
            spec["background"]["cache_dir"] = str(Path(config["run_dir"]) / "work" / "cutouts")
    return Generators({kind: made(spec) for kind, spec in specs.items()}, _OPTIONS)


if __name__ == "__main__":
    main()
