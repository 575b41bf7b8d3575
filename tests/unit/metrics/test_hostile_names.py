"""Names and metadata of objects from anywhere, in every table, page, folder and label made of them."""

import csv
import json
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from data_tools import attribution
from data_tools.shared.naming import is_uid, unit_hash
from data_tools.stats.contact_sheet import contact_sheet
from data_tools.stats.page import page as stats_page
from data_tools.stats.tally import Tally
from lgm.callbacks.evaluation.objects import object_dir
from lgm.errors import shown
from lgm.metrics.comparison import Evaluation, compare
from lgm.metrics.protocol import Protocol
from lgm.metrics.summary import summarise
from lgm.metrics.table import VIEW_ID, ViewTable, plain_text, read_view_csv, write_csv
from lgm.reports.comparison_page import comparison_page
from lgm.reports.evaluation_page import page, page_without_numbers
from lgm.reports.pages import page_script
from lgm.reports.shown_object import ObjectImages

NAMES = {
    "script": "<script>alert(1)</script>",
    "attribute": '"><img src=x onerror=alert(1)>',
    "quote": "a' onmouseover='alert(1)",
    "path": "../../etc/x",
    "absolute": "/etc/x",
    "lines": "a\nb\r\nc",
    "turned": "\u202egnp.exe",
    "nul": "a\0b",
    "escape": "\x1b[2Jx",
    "surrogate": "a\udcff",
    "long": "x" * 10_000,
    "Chinese": "名" * 100,
    "device": "CON",
    "device with suffix": "nul.tar",
    "dots": "..",
    "option": "-rf",
    "formula": "=cmd|' /C calc'!A0",
    "plus": "+1+1",
    "minus": "-1+1",
    "at": "@SUM(A1)",
    "tab": "\t=1",
    "space": " =1",
    "apostrophe": "'=1",
    "comma": 'a,"b";c',
    "plain": "teapot_01",
}
BY_NAME = pytest.mark.parametrize("uid", NAMES.values(), ids=NAMES)


class Tags(HTMLParser):
    """Whether a page's tags are ours alone, and its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = ""
        self.scripts: list[str] = []
        self.feed(text)
        self.close()
        assert set(self.scripts) <= {str(page_script())}

    def handle_starttag(self, tag, attributes):
        assert not any(name.startswith("on") for name, _ in attributes), (tag, attributes)
        if tag == "script":
            assert not attributes
            self.scripts.append("")
        assert all(value is None or not value.startswith("x") for name, value in attributes if name == "src")

    def handle_data(self, data):
        if self.cdata_elem == "script":
            self.scripts[-1] += data
        else:
            self.text += data


def is_safe(text: str) -> str:
    """The page's words; nothing in it is markup of an object's, or turns what stands behind it."""
    assert not any(x in text for x in ("\0", "\x1b", "\u202e", "\udcff"))
    text.encode()
    return Tags(text).text


@BY_NAME
def test_tables_hold_no_formulas_and_are_read_back_as_they_were(tmp_path, uid):
    if "\udcff" in uid or "\0" in uid:
        pytest.skip("refused where it comes in: no file of text holds it")
    line = {"uid": uid, "protocol": "p", "protocol_hash": "h", VIEW_ID: 0.0, "psnr": -3.5}
    write_csv(tmp_path / "per_view.csv", [line])
    with (tmp_path / "per_view.csv").open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert not row["uid"].lstrip().startswith(("=", "+", "-", "@")) and plain_text(row["uid"]) == uid
    assert float(row["psnr"]) == -3.5  # a number is none
    assert read_view_csv(tmp_path / "per_view.csv").uids.tolist() == [uid]


@BY_NAME
def test_folders_stay_below_their_run_and_apart(tmp_path, uid):
    folder = object_dir(tmp_path, uid)
    folder.mkdir(parents=True)
    assert folder.parent == tmp_path / "objects" and folder.resolve().parent == folder.parent.resolve()
    assert folder.name == uid if uid == "teapot_01" else folder.name != uid
    assert not folder.name.startswith((".", "-")) and len(folder.name.encode()) <= 120
    assert folder.name.partition(".")[0].upper() not in ("CON", "NUL")


def test_two_names_never_share_a_folder(tmp_path):
    names = [*NAMES.values(), "a_b", "a/b", "a b", "名" * 101, "x" * 10_001, "con"]
    assert len({object_dir(tmp_path, name) for name in names}) == len(names)


def evaluation(tmp_path, uid: str, label: str = "a.ckpt", psnr: float = 20.0) -> Evaluation:
    columns = {"psnr": [psnr, psnr + 1], "white_psnr": [9.0, 9.0], "nearest_input_psnr": [15.0, 16.0]}
    columns |= {VIEW_ID: [4.0, 5.0], "elevation_deg": [0.0, 40.0], "azimuth_deg": [0.0, 90.0]}
    table = ViewTable(np.array([uid, uid]), {name: np.array(x) for name, x in columns.items()})
    protocol = Protocol({"name": "p", "target_size": 8})
    return Evaluation(label, tmp_path, summarise(table, protocol, {}), table)


@BY_NAME
def test_pages_hold_no_markup_of_an_object(tmp_path, uid):
    first = evaluation(tmp_path, uid)
    images = ObjectImages(uid, [], [], files={"x.ply": f"objects/{object_dir(tmp_path, uid).name}/x.ply"})
    report = page(first.summary, first.table, [images], {"data": shown(uid)})
    assert shown(uid)[:20].strip() in is_safe(report)
    other = evaluation(tmp_path, uid, "<script>b</script>", 21.0)
    is_safe(comparison_page(compare([first, other]), tmp_path))
    is_safe(page_without_numbers("no images", [images], 1))


@BY_NAME
def test_pages_of_a_data_set_hold_no_markup_of_an_object(uid):
    tally = Tally(1)
    tally.fields["licence"][shown(uid)] = 1
    strip = Image.new("RGB", (16, 8))
    is_safe(stats_page(uid, {"objects": uid}, tally, [(uid, strip)]))
    assert contact_sheet([(uid, strip)], 1).width < 1000


@BY_NAME
def test_an_attribution_holds_no_markup_of_an_object(tmp_path, uid):
    entry = {"uid": uid, "shard": "a.tar", "name": uid, "author": [uid], "licence": uid, "split": ""}
    shard = {"name": "a.tar", "samples": 1, "bytes": 2048, "sha256": "0" * 64}
    (tmp_path / "index.json").write_text(json.dumps({"version": 1, "shards": [shard]}))
    (tmp_path / "objects.jsonl").write_text(json.dumps(entry) + "\n")
    text = attribution.page(attribution.read_objects(tmp_path), "Attribution", "")
    is_safe(text)
    assert "<" not in text and text.count("\n") == 9
    (line,) = [line for line in text.splitlines()[-1:]]
    assert line.replace("\\|", "").count("|") == 6 and "](" not in line


@pytest.mark.parametrize(
    "line",
    ["[]", "{", '{"uid": 5, "shard": "a.tar"}', '{"uid": "a"}', "[" * 100_000, '{"uid": "a", "shard": []}'],
)
def test_an_attribution_names_the_line_that_is_none(tmp_path, line):
    shard = {"name": "a.tar", "samples": 1, "bytes": 2048, "sha256": "0" * 64}
    (tmp_path / "index.json").write_text(json.dumps({"version": 1, "shards": [shard]}))
    (tmp_path / "objects.jsonl").write_text(f"{line}\n")
    with pytest.raises(ValueError, match=r"objects.jsonl line 1"):
        attribution.read_objects(tmp_path)


def test_hashes_of_names_are_what_they_were_and_take_any():
    assert unit_hash("teapot") == pytest.approx(0.6, abs=0.4) and unit_hash("a\udcff") != unit_hash("a")
    assert not any(
        is_uid(name) for name in NAMES.values() if name not in ("teapot_01", "CON", "-rf", "x" * 10_000)
    )
