"""What the package says of itself is said once."""

import pkgutil
import re
import tomllib
from pathlib import Path

import pytest
import yaml

import resnet_jax
from resnet_jax import interop, models, studies

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_development_extra_is_what_requirements_dev_installs():
    lines = (ROOT / "requirements-dev.txt").read_text().splitlines()
    wanted = {line.split("#")[0].strip() for line in lines} - {"", "-r requirements.txt"}
    assert set(PROJECT["optional-dependencies"]["dev"]) == wanted


@pytest.mark.parametrize("package", [interop, models, studies])
def test_package_of_modules_names_each_of_them(package):
    modules = [module.name for module in pkgutil.iter_modules(package.__path__)]
    assert list(package.__all__) == modules


def test_citation_names_the_version_and_licence_of_the_package():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == resnet_jax.__version__
    assert citation["license"] == PROJECT["license"]


def test_ci_runs_on_every_python_that_the_package_names():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    tested = workflow["jobs"]["test"]["strategy"]["matrix"]["python"]
    named = [
        match[1]
        for line in PROJECT["classifiers"]
        if (match := re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", line))
    ]
    assert tested == named
    assert PROJECT["requires-python"] == f">={tested[0]}"
