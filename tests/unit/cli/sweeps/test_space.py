"""Search spaces: Hydra's notation for sweeps, conditions, and what is refused."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from lgm.cli.sweeps.space import search_space


class Highest:
    """Suggests the last or highest value of everything, and remembers what was asked."""

    def __init__(self):
        self.asked = {}

    def suggest_float(self, name, low, high, **options):
        self.asked[name] = (low, high, options)
        return high

    suggest_int = suggest_float

    def suggest_categorical(self, name, choices):
        self.asked[name] = tuple(choices)
        return choices[-1]


def overrides(*texts: str):
    return OverridesParser.create().parse_overrides(list(texts))


@pytest.mark.parametrize(
    ("text", "asked", "value"),
    [
        ("tag(log, interval(1e-5, 1e-2))", (1e-5, 1e-2, {"step": None, "log": True}), "0.01"),
        ("interval(0, 1)", (0.0, 1.0, {"step": None, "log": False}), "1.0"),
        ("int(interval(1, 16))", (1, 16, {"step": 1, "log": False}), "16"),
        ("tag(log, int(interval(1, 16)))", (1, 16, {"step": 1, "log": True}), "16"),
        ("range(2, 9, 2)", (2, 8, {"step": 2, "log": False}), "8"),
        ("range(0, 1, 0.25)", (0.0, 0.75, {"step": 0.25, "log": False}), "0.75"),
        ("choice(a, [1,2])", ("a", "[1,2]"), "[1,2]"),
        ("1e-4,3e-4", ("0.0001", "0.0003"), "0.0003"),
    ],
)
def test_forms(text, asked, value):
    trial = Highest()
    assert search_space({"a.b": text}, []).suggested(trial) == {"a.b": value}
    assert trial.asked == {"a.b": asked}


def test_a_condition_leaves_out_and_comes_after_what_it_depends_on():
    params = {
        "warmup": {"space": "range(0, 5)", "when": {"scheduler": ["cosine", "constant"]}},
        "scheduler": "choice(constant, released)",
    }
    space = search_space(params, [])
    assert [parameter.key for parameter in space.parameters] == ["scheduler", "warmup"]
    assert space.suggested(Highest()) == {"scheduler": "released"}
    params["scheduler"] = "choice(released, constant)"
    assert search_space(params, []).suggested(Highest()) == {"scheduler": "constant", "warmup": "4"}


def test_the_command_line_adds_and_replaces():
    space = search_space(
        {"lr": "interval(0, 1)", "decay": {"space": "interval(0, 1)", "when": {"seed": "1"}}},
        overrides("lr=interval(0,2)", "decay=choice(3,4)", "seed=0,1"),
    )
    assert space.suggested(Highest()) == {"lr": "2.0", "seed": "1", "decay": "4"}


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("normal(0, 1)", "Unknown function 'normal'"),
        ("glob(*)", "is no search space"),
        (3, "3 is no search space"),
        ({"type": "float", "low": 0}, "is no search space"),
        ("interval(3, 1)", "3 to 1: its first end"),
        ("tag(log, interval(0, 1))", "must begin above 0"),
        ("tag(log, choice(1, 2))", "not for choices"),
        ("range(3, 3)", "holds no number"),
        ("interval(0, inf)", "must be finite"),
        ({"space": "interval(0, 1)", "when": {"other": [1]}}, "its when names other"),
    ],
)
def test_what_is_refused_names_the_parameter(spec, said):
    with pytest.raises(ValueError, match=r"^hydra\.sweeper\.params: a\.b: ") as refused:
        search_space({"a.b": spec}, [])
    assert said in str(refused.value) and "\n" not in str(refused.value)


def test_nothing_to_search():
    with pytest.raises(ValueError, match="there is nothing to search"):
        search_space({}, [])


def test_equal_spaces_are_described_alike_and_others_are_not():
    texts = ["interval(0, 1)", "interval(0,1.0)", "tag(log,interval(0.1,1))", "int(interval(0,1))", "0,1"]
    described = [str(search_space({"a": text}, []).described()) for text in texts]
    assert described[0] == described[1] and len(set(described)) == len(texts) - 1
