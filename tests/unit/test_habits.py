"""Files of the repository that nothing here runs: workflows, hooks and templates."""

import re
import sys
from pathlib import Path

import pytest
import yaml

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest's own dependency there

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def read(path: str):
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def test_every_yaml_of_the_front_door_can_be_read():
    files = [*(ROOT / ".github").rglob("*.yml"), ROOT / ".pre-commit-config.yaml", ROOT / "CITATION.cff"]
    assert len(files) == 4
    for path in files:
        assert isinstance(yaml.safe_load(path.read_text(encoding="utf-8")), dict), path


def test_hooks_are_of_the_versions_that_tests_use():
    wanted = {*PROJECT["optional-dependencies"]["test"], *PROJECT["dependencies"]}
    hooks = {hook["id"]: hook for repo in read(".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]}
    for name in ("ruff-check", "ruff-format", "mypy"):
        assert set(hooks[name]["additional_dependencies"]) <= wanted, name


def test_workflows_cover_every_python_that_is_supported():
    jobs = read(".github/workflows/tests.yml")["jobs"]
    versions = jobs["tests"]["strategy"]["matrix"]["python"]
    assert versions == ["3.10", "3.11", "3.12", "3.13"]
    assert PROJECT["requires-python"] == f">={versions[0]}"
    assert {jobs["style"]["name"], jobs["wheel"]["strategy"]["matrix"]["python"][0]} == {
        "lint and types",
        "3.10",
    }


def test_workflows_run_scripts_that_exist():
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        text = path.read_text(encoding="utf-8")
        assert re.search(r"^permissions:\n  contents: read$", text, re.MULTILINE), path  # and no more
        for script in re.findall(r"bash (\S+\.sh)", text):
            assert (ROOT / script).is_file(), script
        for job in yaml.safe_load(text)["jobs"].values():
            assert job["timeout-minutes"] <= 120


@pytest.mark.parametrize("template", sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.md")))
def test_issue_templates_have_their_header(template):
    header = template.read_text(encoding="utf-8").split("---\n")[1]
    assert {"name", "about"} <= set(yaml.safe_load(header))
