"""Mutated records and files of weights: each loads as a network, or is refused in one line.

Seeds are printed; one alone: pytest tests/unit/models/test_records_fuzz.py -k "seed7" -s
"""

from __future__ import annotations

import copy
import json
import random
import resource
import time
from pathlib import Path

import pytest

from lgm.models import LGM
from tests.unit.models.test_records import (
    ENV,
    ORDER,
    RAN,
    RECORD,
    SECRET,
    _nothing_runs,  # noqa: F401 - a fixture
    as_checkpoint,
    as_safetensors,
    nested,
    run_config,  # noqa: F401
    weights,  # noqa: F401
)

PER_SEED = 70
SEEDS = [
    pytest.param(seed, marks=[] if seed < 1 else [pytest.mark.slow], id=f"seed{seed}") for seed in range(16)
]
MOST_SECONDS, MOST_BYTES = 10.0, 2 << 30
VALUES = [
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        2,
        3,
        16,
        64,
        2**31,
        2**63,
        10**30,
        0.5,
        -0.0,
        1e300,
        float("nan"),
        float("inf"),
    ),
    *(
        "",
        "none",
        "hull",
        "fixed",
        "???",
        "lgm.models.LGM",
        "os.system",
        ENV,
        "${",
        "a\nb",
        "\x1b[31m",
        "pipe:touch owned",
    ),
    *([], [[]], [1], [True], [32, 32], [16] * 65, [ORDER], {}, ORDER, {"a": {"b": ENV}}, nested(30)),
]
KEYS = ["_target_", "_partial_", "_args_", "extra", ENV, "", "anchors", "radius", "positions", "a.b", "\x00"]


def places(value, at=()):
    """Every container in a record, and its keys."""
    if isinstance(value, dict | list):
        yield value
        for inner in list(value.values()) if isinstance(value, dict) else list(value):
            yield from places(inner)


def mutated(record: dict, draw: random.Random) -> dict:
    record = copy.deepcopy(record)
    for _ in range(draw.choice([1, 1, 1, 2, 3])):
        place = draw.choice(list(places(record)))
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        kind = draw.choice(["set", "set", "set", "delete", "add", "copy"])
        value = copy.deepcopy(draw.choice(VALUES))
        if kind == "set" and keys:
            place[draw.choice(keys)] = value
        elif kind == "delete" and keys:
            del place[draw.choice(keys)]
        elif kind == "copy" and keys:
            value = copy.deepcopy(place[draw.choice(keys)])
            place[draw.choice(keys)] = value
        elif isinstance(place, dict):
            place[draw.choice(KEYS)] = value
        else:
            place.insert(draw.randint(0, len(place)), value)
    return record


def damaged(content: bytes, draw: random.Random) -> bytes:
    """Bytes changed, cut out, doubled or cut off, mostly where a file says what it is."""
    content = bytearray(content)
    near = draw.choice([64, 2000, 8000, len(content)])
    places = [draw.randrange(min(near, len(content))) for _ in range(draw.choice([1, 1, 2, 8]))]
    if draw.random() < 0.4:
        places = [len(content) - 1 - place for place in places]
    for place in places:
        kind = draw.choice(["flip", "flip", "set", "cut", "double", "end"])
        place = min(place, len(content) - 1)
        if kind == "flip":
            content[place] ^= 1 << draw.randrange(8)
        elif kind == "set":
            content[place : place + draw.choice([1, 4, 8])] = draw.choice(
                [b"\x00", b"\xff", b"9", b"\xff" * 8]
            )
        elif kind == "cut":
            del content[place : place + draw.choice([1, 8, 100])]
        elif kind == "double":
            content[place:place] = content[place : place + draw.choice([1, 8, 100])]
        elif draw.random() < 0.2:
            del content[place:]
        content = content or bytearray(b"\0")
    return bytes(content)


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def taken(path: Path) -> str | None:
    """The line with which a file is refused, or None where a network came of it."""
    started = time.process_time()
    try:
        net = LGM.from_pretrained(path)
    except (ValueError, FileNotFoundError) as error:
        line = str(error)
        assert line.isprintable() and SECRET not in line and path.name in line and len(line) < 1500, line
        return line
    finally:
        assert time.process_time() - started < MOST_SECONDS
        assert RAN == [] and not Path("owned").exists()
    assert type(net) is LGM and all(parameter.isfinite().all() for parameter in net.parameters())
    return None


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", ["safetensors", "ckpt", "safetensors bytes", "ckpt bytes"])
def test_a_mutated_file_loads_or_is_one_line(kind, seed, weights, run_config, tmp_path):  # noqa: F811
    print(f"{kind} seed={seed}")
    draw, refused, before = random.Random(f"{kind} {seed}"), 0, peak_bytes()
    safetensors = as_safetensors(
        tmp_path / "w.safetensors", weights, RECORD, lgm_metrics='{"a": {"psnr": 1}}'
    )
    checkpoint = as_checkpoint(tmp_path / "w.ckpt", weights, run_config)
    whole = {path: path.read_bytes() for path in (safetensors, checkpoint)}
    assert taken(safetensors) is None and taken(checkpoint) is None
    for number in range(PER_SEED):
        path = safetensors if kind.startswith("safetensors") else checkpoint
        if kind == "safetensors":
            as_safetensors(
                path,
                weights,
                json.dumps(mutated(RECORD, draw)),
                lgm_training=json.dumps(
                    mutated({"step": 3, "config": {"model": RECORD["model"]}, "before": {"seed": 1}}, draw)
                    if draw.random() < 0.3
                    else {}
                ),
            )
        elif kind == "ckpt":
            config = mutated({**RECORD, "train": {"seed": 1}, "optimizer": run_config["optimizer"]}, draw)
            as_checkpoint(path, weights, config)
        else:
            path.write_bytes(damaged(whole[path], draw))
        try:
            refused += taken(path) is not None
        except BaseException:
            print(f"number={number}")
            raise
    assert refused > 0
    assert peak_bytes() - before < MOST_BYTES
