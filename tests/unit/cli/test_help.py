"""`--help`, and the keys that a line names for a misspelt option."""

import re

import pytest
from hydra._internal.utils import get_args_parser

from lgm.cli.help import help_text, nearest
from tests.unit.cli.test_configs import CONFIGS


def parsed(*arguments: str):
    return get_args_parser().parse_args(list(arguments))


@pytest.mark.parametrize(("program", "given"), [("train", ["model=tiny"]), ("evaluate", ["data=images"])])
def test_help_has_each_key_with_its_comment_and_hydras_flags(program, given):
    text = help_text(program, parsed("--help", *given))
    lines = text.splitlines()
    assert "model: big, lrm, mini, nano, small, tiny, transformer" in lines
    assert {"  --multirun, -m", "  --config-dir, -cd"} <= {line[:24].rstrip() for line in lines}
    assert "hydra:" not in lines and "$" not in re.sub(r"\$\{", "", text)
    if program == "train":
        assert "  max_steps: 30000" in lines  # of the recipe of what was chosen
        assert any(line.startswith("  micro_batch_size: 8  # objects a forward pass") for line in lines)
        assert any(line.startswith("    attention: sdpa  # | cudnn") for line in lines)
    else:
        assert any(line.startswith("  recenter: auto  # Images without cameras are cut") for line in lines)
        assert any(line.startswith("ckpt: ???  # mini, which comes along") for line in lines)


def test_help_knows_the_files_of_a_persons_own_folder(tmp_path):
    (tmp_path / "loss").mkdir()
    text = (CONFIGS / "loss" / "default.yaml").read_text().replace("weight: 1.0", "weight: 3.0 # ours", 1)
    (tmp_path / "loss" / "mine.yaml").write_text(text)
    text = help_text("train", parsed("--help", "--config-dir", str(tmp_path), "loss=mine"))
    assert (
        "      weight: 3.0  # ours" in text.splitlines()
        and "loss: decibels, default, hed, l1_ssim, mine" in text
    )


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        ("train.max_stepz", "train.max_steps"),
        ("max_steps", "train.max_steps"),
        ("trian.seed", "train.seed"),
        ("modle", "model"),
        ("data/cach", "data/cache"),
        ("optimizer.learning_rate", None),
        ("loss.terms.rgb.wieght", "loss.terms.rgb.weight"),
        ("qqqqqq", None),
    ],
)
def test_a_misspelt_option_is_told_the_nearest_keys(wrong, name):
    message = f"Could not override '{wrong}'.\nTo append to your config use +{wrong}=1"
    options = parsed("model=nano", f"{wrong}=1", "trainer=cpu")
    names = nearest(message, "train", options)
    assert (names[0] == name) if name else names == [] or wrong.startswith("optimizer")
    assert nearest("Could not find 'model/bigg'", "train", options) == []
