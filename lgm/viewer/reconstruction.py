"""Reconstructions on demand: a network's objects of a data set, one at a time, as they are chosen."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from lgm.cli import resolvers
from lgm.cli.build import build_datamodule, build_eval_preparation, build_net
from lgm.cli.command_line import hydra_line, quoted, understood
from lgm.cli.plan import EvaluationPlan, plan_evaluation
from lgm.cli.programs import configs_folder
from lgm.data.schema.sample import BrokenSample, CameraRecord
from lgm.data.sources.shards import ShardSource
from lgm.data.stream.collate import collate, make_item
from lgm.data.views import ViewSampler
from lgm.data.views.base import ViewChoice
from lgm.errors import first_line
from lgm.files import read_text
from lgm.gaussians.similarity import moved
from lgm.meshing.convert import default_device
from lgm.models.pretrained import find_weights, load_weights
from lgm.viewer.objects import ObjectSet, ViewedObject, inputs_of

log = logging.getLogger(__name__)

_QUICK = ("callbacks.measure.lpips=null", "data.probe_objects=1")  # a person waits
_BUNDLED = ("data=quickstart", "data.split=val")


class Reconstructions(ObjectSet):
    """The objects of `evaluate.py ckpt=<where>`, each reconstructed from its input views when it is chosen.

    where: as `find_weights` takes it. max_objects: only the first so many are offered.
    overrides: options of evaluate.py. Without data=… or data.path=…, the objects are those of the validation
        split that the run of a checkpoint names in its config.yaml, where it is here, else the bundled ones.

    Raises ValueError or FileNotFoundError in one line.
    """

    def __init__(self, where: str, max_objects: int, overrides: Sequence[str] = ()) -> None:
        path = find_weights(where)
        if not any(text.startswith(("data=", "data.path=")) for text in overrides):
            overrides = [*_data_of_run(path), *overrides]
        plan = _plan(path, overrides)
        config = plan.config
        datamodule = build_datamodule(config)
        datamodule.check("test")
        self.title = where
        self.step = plan.weights.training.get("step")
        self._seed = config["protocol"]["seed"]
        self._views = _InputsAlone(datamodule.eval_views)
        self._device = default_device()
        net = build_net(config)
        load_weights(net, plan.weights, config["rotation"])
        self._net = net.eval().to(self._device)
        self._preparation = build_eval_preparation(config, net)
        source = datamodule.make_source(split=datamodule.split)
        total = source.num_objects if datamodule.max_test_objects is None else datamodule.max_test_objects
        # Locations in shards, not objects: a data set may be larger than the memory.
        self._source, self._locations = source, {}
        for number in range(min(max_objects, total, source.num_objects)):
            location = source.locate(number)
            try:
                self._locations[source.load(*location).uid] = location
            except BrokenSample as error:
                log.warning("left out: %s", first_line(error))
        log.info(
            "%s: objects=%d of %d, data.path=%s",
            where,
            len(self._locations),
            total,
            config["data"].get("path"),
        )
        if len(self._locations) < total and total > max_objects:
            log.info("--max-objects=%d leaves out the others", max_objects)

    @property
    def names(self) -> list[str]:
        return list(self._locations)

    @torch.inference_mode()
    def load(self, name: str) -> ViewedObject:
        # The generator anew for each object: the same object shows the same views whenever it is chosen.
        item = make_item(
            self._source.load(*self._locations[name]), self._views, np.random.default_rng(self._seed)
        )
        batch = self._preparation(collate([item], with_to_user=True).to(self._device))
        gaussians = self._net(batch.input.images, batch.input.cameras, batch.input.alphas)
        to_user = batch.to_user[0]
        return ViewedObject(moved(gaussians, to_user).to("cpu"), inputs_of(batch, 0, to_user))


class _InputsAlone(ViewSampler):
    """The inputs that another sampler chooses, and none of the targets beside them."""

    def __init__(self, sampler: ViewSampler) -> None:
        self._sampler, self.remedy = sampler, sampler.remedy

    def choose(self, cameras: CameraRecord, rng: np.random.Generator) -> ViewChoice:
        inputs = self._sampler.choose(cameras, rng).input
        return ViewChoice(inputs, inputs[:1])


def _plan(path: Path, overrides: Sequence[str]) -> EvaluationPlan:
    """As evaluate.py would plan it; ValueError in one line for options that it does not take."""
    resolvers.register()
    # A second initialisation in one process is refused by Hydra.
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(configs_folder()), version_base="1.3"):
            given = [
                f"ckpt={quoted(str(path))}",
                *_QUICK,
                *understood(list(overrides)),
            ]
            return plan_evaluation(compose("evaluate", overrides=given))
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(hydra_line(error)) from error


def _data_of_run(path: Path) -> list[str]:
    """The validation split that a run names; the bundled one where it names none that is here.

    Of its config.yaml, plain values alone: nothing in it is instantiated.
    """
    config = path.parent.parent / "config.yaml"
    data = _mapping(_mapping(_read(config)).get("data"))
    source = _mapping(data.get("source")).get("_target_")
    folder = data.get("path")
    if source == f"{ShardSource.__module__}.{ShardSource.__qualname__}" and isinstance(folder, str):
        if "://" in folder or (Path(folder) / "index.json").is_file():
            return ["data=shards", f"data.path={folder}", f"data.split={data.get('val_split') or 'val'}"]
        log.info("data.path=%s of %s is not here: the bundled objects are shown", folder, config)
    return list(_BUNDLED)


def _read(config: Path) -> object:
    try:
        return yaml.safe_load(read_text(config))
    except (OSError, ValueError, yaml.YAMLError):
        return None


def _mapping(value: object) -> dict:
    return value if isinstance(value, dict) else {}
