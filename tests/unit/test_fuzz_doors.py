"""Every door takes mutated files: read, or refused in one line that names them, within 2 GiB and 10 s."""

import os

import pytest

from tests.fuzzing.doors import DOORS
from tests.fuzzing.running import Door, Outcome, Score, markdown, mutated, run

SEED = int(os.environ.get("TEST_SEED", "0"))


def score(door, inputs, folder):
    found = run(DOORS[door], inputs, SEED, folder)
    said = [f"python -m tests.fuzz_doors --door {door} --seed {SEED} --first {x.number} --inputs 1: {x.fault}"
            for x in found.faults]  # fmt: skip
    assert not said, "\n".join([found.row(), *said])
    assert len(found.outcomes) == inputs
    return found


@pytest.mark.parametrize("door", DOORS)
def test_some_mutated_files_are_refused_in_one_line(door, tmp_path):
    score(door, 8, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("door", DOORS)
def test_a_thousand_mutated_files_are_refused_in_one_line(door, tmp_path):
    assert any(outcome.line for outcome in score(door, 1000, tmp_path).outcomes)


def _read(folder):
    """A door that is too trusting, by what its file says."""
    match (folder / "a.txt").read_bytes()[:1]:
        case b"m":
            bytearray(1 << 40)
        case b"i":
            [].pop()
        case b"l":
            raise ValueError("a.txt is\ntwo lines")
        case b"n":
            raise ValueError("something is wrong")
        case b"k":
            os.kill(os.getpid(), 9)
        case b"a":
            import warnings

            warnings.warn("a.txt is odd", stacklevel=1)
        case b"g":
            raise ValueError("a.txt is bad")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"m", "MemoryError"),
        (b"i", "IndexError"),
        (b"l", "not one printable line"),
        (b"n", "names no file"),
        (b"k", "ended with -9"),
        (b"a", "warns: a.txt is odd"),
        (b"g", None),
        (b"x", None),
    ],
)
def test_the_fuzzer_sees_what_a_door_lets_out(tmp_path, content, said):
    door = Door("trusting", lambda: [{"a.txt": content}], {"": (lambda random, x: x,)}, _read, ("a.txt",))
    (outcome,) = run(door, 1, 0, tmp_path).outcomes
    assert outcome.fault is None if said is None else said in outcome.fault


def test_an_input_is_the_same_whatever_was_made_before_it():
    assert mutated(DOORS["tar"], 3, 5) == mutated(DOORS["tar"], 3, 5)
    assert len({str(mutated(DOORS["cameras"], 3, i)) for i in range(8)}) > 4


def test_the_table_of_a_page_adds_up():
    slow = Score("a", [Outcome(0, 0.5, 2**20), Outcome(1, 0.1, 0, line="a.txt is bad")])
    wrong = Score("b", [Outcome(0, 0.2, 3 * 2**20, fault="names no file")])
    assert markdown([slow, wrong]).splitlines()[2:] == [
        "| `a` | 2 | 1 | 0 | 0.50 s | 1 MiB |",
        "| `b` | 1 | 0 | 1 | 0.20 s | 3 MiB |",
        "| all | 3 | 1 | 1 | 0.50 s | 3 MiB |",
    ]
