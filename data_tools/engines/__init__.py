"""Engines turn a mesh file into images; `make_engine` builds one by its name."""

from data_tools.engines.base import ENGINES, Engine, EngineUnavailable, make_engine

__all__ = ["ENGINES", "Engine", "EngineUnavailable", "make_engine"]
