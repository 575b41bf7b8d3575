"""Figures of a data set: they add up over shards and workers, and a sample reads only what it names."""

from __future__ import annotations

import gc
import json
import re
import tracemalloc
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

from data_tools.stats import command as stats
from data_tools.stats.command import Drawing, choose, count_shard
from data_tools.stats.tally import OTHERS, Case, Histogram, ObjectFigures, Tally, figures
from data_tools.verify.command import read_index
from lgm.data.schema.sample import Index, ShardInfo, parse_cameras
from tests.datasets import camera_json, sample_files, write_index, write_shard


@pytest.fixture
def many(tmp_path) -> Path:
    """Three shards of 4, 1 and 3 objects."""
    shards, number = [], 0
    for name, count in (("a", 4), ("b", 1), ("c", 3)):
        objects = [sample_files(f"o{number + i}", number + i, num_views=6) for i in range(count)]
        number += count
        shards.append(write_shard(tmp_path / "set" / f"{name}.tar", objects))
    write_index(tmp_path / "set", shards)
    return tmp_path / "set"


def test_a_histogram_knows_percentiles_to_its_bins():
    values = np.random.default_rng(0).uniform(0, 1, 5000)
    whole, halves = Histogram(0, 1), [Histogram(0, 1), Histogram(0, 1)]
    whole.add(values)
    halves[0].add(values[:1000])
    halves[1].add(values[1000:])
    halves[0].merge(halves[1])
    np.testing.assert_array_equal(whole.counts, halves[0].counts)
    for percent in (0, 5, 50, 95, 100):
        assert whole.percentile(percent) == pytest.approx(np.percentile(values, percent), abs=2e-3)
    assert whole.mean == pytest.approx(values.mean()) and whole.rebinned(50).sum() == 5000


def test_figures_are_those_of_the_images():
    record = parse_cameras(json.dumps(camera_json(4 + 2)), "a")
    image = np.zeros((8, 8, 4), dtype=np.float32)
    image[2:6, 2:6] = (1.0, 0.5, 0.25, 1.0)
    reaching = image.copy()
    reaching[0, 3] = 1.0
    found = figures([image] * 5 + [reaching], record)
    assert found.coverage[0] == pytest.approx(0.25)
    assert found.brightness[0] == pytest.approx(1.75 / 3) and found.whiteness[0] == pytest.approx(0.25)
    assert found.reaches_border.tolist() == [False] * 5 + [True]
    np.testing.assert_allclose(found.elevation_deg[:4], 0, atol=1e-6)
    assert found.elevation_deg[4] > 0 > found.elevation_deg[5]


def test_the_oddest_are_kept_and_no_more():
    tally, other = Tally(2), Tally(2)
    for number, score in enumerate((0.1, 0.5, 0.3)):
        tally.keep("whitest", Case(score, f"a{number}", b""))
        other.keep("whitest", Case(score + 0.1, f"b{number}", b""))
    tally.merge(other)
    assert sorted(case.uid for case in tally.cases["whitest"]) == ["a1", "b1"]
    assert not tally.stands_out("cut off", 0.0)


def test_a_field_of_many_values_stays_small():
    tally = Tally(1)
    found = ObjectFigures(*(np.zeros(1) for _ in range(5)))
    for number in range(1200):
        tally.add(found, {"category": f"c{number}"})
    assert len(tally.fields["category"]) == 1001 and tally.fields["category"][OTHERS] == 200
    assert tally.fields["licence"] == {"unknown": 1200}


def test_a_sample_opens_no_other_shard(many):
    index = read_index(many)
    (part,) = choose(index, 1, 1)
    for shard in index.shards:
        if shard.name != part.name:
            (many / shard.name).unlink()
    assert stats.main([str(many), "--sample", "1", "--workers", "1"]) == 0
    tally, strips = count_shard(many, Drawing([0, 1], 8, 3), part)
    assert tally.num_objects == len(strips) == 1 and strips[0][1].size == (16, 8)


def test_a_sample_is_fair_and_always_the_same():
    shards = tuple(ShardInfo(f"{i}.tar", 100, 1, "") for i in range(10_000))
    index = Index(shards, {}, {})
    parts = choose(index, 2000, 10)
    assert parts == choose(index, 2000, 10)
    assert sum(len(part.ordinals) for part in parts) == 2000 and len(parts) > 1700
    assert sum(len(part.on_sheet) for part in parts) == 10


def test_sample_and_whole_agree_where_they_are_the_same(many):
    index = read_index(many)
    for shard in index.shards:
        part = next(p for p in choose(index, None, 99) if p.name == shard.name)
        assert part.ordinals is None
        by_name = stats.ShardPart(part.name, tuple(range(shard.samples)), part.on_sheet)
        (one, rows), (two, other) = (count_shard(many, Drawing([0], 8, 2), p) for p in (part, by_name))
        assert [uid for uid, _ in rows] == [uid for uid, _ in other]
        for name, histogram in one.histograms.items():
            np.testing.assert_array_equal(histogram.counts, two.histograms[name].counts)
        assert one.cases == two.cases


def test_workers_change_nothing(many, tmp_path, capsys):
    pages = []
    for workers in ("1", "2"):
        path = tmp_path / f"{workers}.html"
        assert stats.main([str(many), "--html", str(path), "--workers", workers, "--tile", "16"]) == 0
        pages.append(path.read_text())
    assert pages[0] == pages[1]


def test_the_page_stands_alone(many, tmp_path, capsys):
    files = sample_files("<b>&", 1, num_views=6)
    shard = write_shard(many / "d.tar", [files])
    index = json.loads((many / "index.json").read_text())
    write_index(many, [*index["shards"], shard])
    assert stats.main([str(many), "--html", str(tmp_path / "p.html"), "--tile", "16", "--workers", "1"]) == 0
    text = (tmp_path / "p.html").read_text()
    assert not re.search(r"(src|href)=['\"](?!data:)", text) and "<script" not in text
    assert "&lt;b&gt;&amp;" in text and "<b>&" not in text
    images = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(images) == 4
    for image in images:
        bars = ElementTree.fromstring(image).findall("./g/rect")
        assert bars and max(float(bar.get("height")) for bar in bars) == pytest.approx(120)
    assert "elevation   -" in capsys.readouterr().out
    assert text.count("data:image/webp;base64,") == 9 + 3 * 9


def test_a_broken_shard_is_one_line(many):
    content = (many / "c.tar").read_bytes()
    (many / "c.tar").write_bytes(content[: len(content) // 2])
    for options in ([], ["--sample", "7"]):
        with pytest.raises(ValueError, match=r"shard c.tar: .*; run data_tools.verify"):
            stats.main([str(many), "--workers", "1", *options])


@pytest.mark.parametrize(("option", "value"), [("--sample", "0"), ("--views", "a"), ("--tile", "0")])
def test_a_persons_mistake_is_one_line(many, option, value):
    with pytest.raises(ValueError, match=f"{option} .?{value}"):
        stats.main([str(many), option, value])


def test_memory_does_not_grow_with_the_number_of_objects(tmp_path):
    """What is held at the peak grows by far less than the objects' files, decoded or not."""
    peaks, sizes = [], []
    for count in (2, 4, 124):  # the first brings in what is imported and cached on the way
        objects = [sample_files(f"o{i}", i, num_views=6) for i in range(count)]
        shard = write_shard(tmp_path / f"{count}.tar", objects)
        part = stats.ShardPart(shard["name"], None, frozenset({0}))
        sizes.append((tmp_path / f"{count}.tar").stat().st_size)
        gc.collect()
        tracemalloc.start()
        count_shard(tmp_path, Drawing([0], 16, 2), part)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] - peaks[1] < (sizes[2] - sizes[1]) / 3
