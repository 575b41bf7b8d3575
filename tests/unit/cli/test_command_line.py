"""What a shell passes on and what Hydra reads: paths of any letters, and mistakes in one line."""

import shlex

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from lgm.cli import command_line
from lgm.cli.command_line import understood
from tests.integration.running import run_script

PATHS = [
    *(
        "a=b",
        "/d/[x]",
        "é",
        "数据/ü",
        "emoji😀",
        "a b",
        " a",
        "a ",
        "a,b",
        "{a}",
        "a{b",
        "[a",
        "a]",
        "(x)",
        "[1,2]",
    ),
    *("it's", 'say "x"', "'a", '"a', "a'", "a\\b", "a\\", "\\", "\\'", "tab\tx", "line\nbreak"),
    *("007", "1e5", "2024_10", "-3", "true", "nan", "inf", "null2", "None"),  # numbers to Hydra, or nothing
    *("#a", "!x", "a&b", "50%", "a:b", "x::y", "a;b", "`ls`", "<x>", "a^b", "$HOME", "a|b", "a?b*", "@a"),
]


def read(argument: str):
    return OverridesParser.create().parse_override(argument)


@pytest.mark.parametrize("key", ["run_dir", "data.path", "ckpt", "hydra.sweep.dir", "+callbacks.x.dirpath"])
def test_paths_of_any_letters_arrive_as_typed(key):
    for path in PATHS:
        (argument,) = understood([f"{key}={path}"])
        value = read(argument).value()
        assert isinstance(value, str) and str(value) == path, (path, argument)
        assert understood([argument]) == [argument]  # as the processes that Lightning starts see it


def test_a_home_folder_is_found(monkeypatch):
    monkeypatch.setenv("HOME", "/home/a=b")
    assert read(understood(["ckpt=~/x.ckpt"])[0]).value() == "/home/a=b/x.ckpt"


@pytest.mark.parametrize(
    "argument", ["ckpt=null", "ckpt=???", "ckpt='a=b'", "ckpt=a\\=b", "run_dir=runs/${name}"]
)
def test_hydras_own_forms_stay(argument):
    assert understood([argument]) == [argument]


@pytest.mark.parametrize(
    ("argument", "values"),
    [
        ("ckpt=a.ckpt,b.ckpt", ["a.ckpt", "b.ckpt"]),
        ("ckpt=a=1,[b],é", ["a=1", "[b]", "é"]),
        ("ckpt='a,b',c", ["a,b", "c"]),
        ("ckpt=/a[1,2]/b,c", ["/a[1,2]/b", "c"]),
        ("train.seed=0,1", [0, 1]),
    ],
)
def test_a_sweep_over_paths(argument, values):
    override = read(understood(["-m", argument])[1])
    assert [getattr(value, "text", value) for value in override.sweep_iterator()] == values


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("data.prompts=a (red) car", "a (red) car"),
        ("optimizer.lr=1e-4", 1e-4),
        ("freeze=[unet.*]", ["unet.*"]),
        ("train.compile=true", True),
    ],
)
def test_other_values_are_text_only_where_hydra_reads_none(argument, value):
    assert read(understood([argument])[0]).value() == value


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--max_steps", "5"], ["--max_steps", "key=value"]),
        (["max_steps"], ["max_steps is not an option", "key=value"]),
        (["run_dir="], ["run_dir= is empty"]),
        (["ckpt=a\udcff"], ["UTF-8"]),
    ],
)
def test_what_is_no_option_is_one_line(arguments, said, capsys):
    with pytest.raises(SystemExit) as ended:
        understood(arguments)
    (line,) = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2 and line.startswith("error: ") and all(word in line for word in said)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["model=bigg"], ["model/bigg", "big, lrm, mini"]),
        (["train.max_stepz=5"], ["max_stepz", "did you mean train.max_steps"]),
        (["train.seed=1,2"], ["train.seed=1,2", "--multirun"]),
        (["train.seed=${nope}", "data=quickstart"], ["train.seed", "nope"]),
        (["run_dir=${nope}"], ["run_dir", "nope"]),
        (["--config-dir", "no_folder"], ["no_folder"]),
    ],
)
def test_what_hydra_refuses_is_one_line(arguments, said, tmp_path):
    if not any(argument.startswith("run_dir=") for argument in arguments):
        arguments = [*arguments, f"run_dir={tmp_path}"]
    result = run_script("train.py", *arguments)
    (line,) = result.stderr.splitlines()
    assert result.returncode == 2 and line.startswith("error: ") and all(word in line for word in said), line


def test_a_value_that_cannot_be_read_comes_with_the_form_that_works(tmp_path):
    result = run_script("train.py", "data.prompts=[a cat, it's", f"run_dir={tmp_path}")
    (line,) = result.stderr.splitlines()
    (argument,) = shlex.split(line.partition("as text: ")[2])
    assert result.returncode == 2 and read(argument).value() == "[a cat, it's"


def test_a_traceback_where_it_is_asked_for(monkeypatch, tmp_path):
    monkeypatch.setenv(command_line._FULL_ERROR, "1")
    result = run_script("train.py", "model=bigg", f"run_dir={tmp_path}")
    assert "Traceback" in result.stderr and "model/bigg" in result.stderr
