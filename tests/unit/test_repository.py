"""The repository keeps its own promises: environments agree, and what ships travels along."""

import ast
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

# A package that conda-forge has under another name: the part of it, or the build, that is meant.
CONDA_NAMES = {
    "huggingface-hub": "huggingface_hub", "matplotlib": "matplotlib-base", "torch": "pytorch-cpu",
}  # fmt: skip
# Binder has 2 GB of memory; the lessons on the default path do without these.
NOT_ON_BINDER = {"duckdb", "h5py", "ipyvuetify", "leafmap", "rioxarray", "torchgeo", "xarray"}


@pytest.fixture(scope="module")
def project(root: Path) -> dict[str, Any]:
    return tomllib.loads((root / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def tracked(root: Path) -> list[Path]:
    """Files that git tracks, or would: everything that is not ignored."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listing = subprocess.run(command, cwd=root, capture_output=True, text=True)
    if listing.returncode:
        pytest.skip("needs a git checkout to know which files belong to the repository")
    paths = [root / name for name in listing.stdout.split("\0") if name]
    return [path for path in paths if path.is_file()]


def environment(path: Path) -> tuple[str, dict[str, str]]:
    """Read a conda environment: its Python, and package -> bound of the others."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    found = [re.match(r"([\w-]+)(.*)", d) for d in content["dependencies"] if isinstance(d, str)]
    packages = {match[1]: match[2] for match in found if match}
    return packages.pop("python"), packages


def every_requirement(project: dict[str, Any]) -> list[Requirement]:
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    return [Requirement(line) for group in groups for line in group]


def bounds(requirements: list[str]) -> dict[str, str]:
    parsed = [Requirement(requirement) for requirement in requirements]
    return {CONDA_NAMES.get(r.name, r.name): str(r.specifier) for r in parsed}


def test_binder_has_every_dependency_with_the_same_bound(
    root: Path, project: dict[str, Any]
) -> None:
    _, packages = environment(root / "binder/environment.yml")
    lab = [r for r in project["optional-dependencies"]["lab"] if "ipyvuetify" not in r]
    wanted = bounds([*project["dependencies"], *lab])
    wanted = {name: bound for name, bound in wanted.items() if name not in NOT_ON_BINDER}
    extra = {"pip", "hatchling"}  # what installing the checkout itself takes
    assert {name: bound for name, bound in packages.items() if name not in extra} == wanted


def test_both_environments_use_the_same_python(root: Path) -> None:
    python, _ = environment(root / "environment.yml")
    assert environment(root / "binder/environment.yml")[0] == python


def test_dependencies_have_bounds_and_no_exact_pins(project: dict[str, Any]) -> None:
    for requirement in every_requirement(project):
        assert requirement.specifier, f"{requirement.name} has no bound"
        operators = {specifier.operator for specifier in requirement.specifier}
        assert not operators & {"==", "===", "~="}, f"{requirement} is pinned"


def test_constraints_satisfy_the_bounds_of_the_project(root: Path, project: dict[str, Any]) -> None:
    lines = (root / "constraints.txt").read_text().splitlines()
    pinned: dict[str, list[str]] = {}
    for constraint in map(Requirement, lines):
        versions = [s.version for s in constraint.specifier if s.operator == "=="]
        pinned.setdefault(constraint.name, []).extend(versions)
    for requirement in every_requirement(project):
        versions = pinned.get(requirement.name, [])
        assert versions, f"{requirement.name} is not in constraints.txt: run `make constraints`"
        assert all(requirement.specifier.contains(version) for version in versions), requirement


def test_colab_keeps_the_versions_that_it_has(root: Path, project: dict[str, Any]) -> None:
    """So that no kernel has to restart; `make colab` asks uv about what comes along as well."""
    lines = (root / "tests/colab/pins.txt").read_text(encoding="utf-8").splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    wanted = [Requirement(line) for line in project["dependencies"]]
    met = {r.name: r.specifier.contains(pinned[r.name]) for r in wanted if r.name in pinned}
    assert {"numpy", "torch", "peft", "timm", "rasterio", "ipywidgets"} <= met.keys()
    assert all(met.values()), met


def test_no_environment_file_names_a_registry(root: Path) -> None:
    names = ["constraints.txt", "environment.yml", "binder/environment.yml", "Makefile", ".ci/run"]
    for name in names:
        assert "://" not in (root / name).read_text(), f"{name} holds an address"


def test_files_outside_the_data_folder_are_small(root: Path, tracked: list[Path]) -> None:
    large = [path for path in tracked if path.stat().st_size > 2 * 2**20]
    assert [path for path in large if root / "data" not in path.parents] == []


def test_what_ships_stays_within_its_budget(root: Path, tracked: list[Path]) -> None:
    def size(folder: str) -> int:
        return sum(p.stat().st_size for p in tracked if root / "data" / folder in p.parents)

    assert 0 < size("scenes") <= 12 * 10**6  # bytes
    assert 0 < size("models") <= 8 * 10**6


def test_repository_address_is_the_same_everywhere(root: Path, project: dict[str, Any]) -> None:
    address = project["urls"]["Repository"]
    slug = address.split("github.com/")[1]
    citation = yaml.safe_load((root / "CITATION.cff").read_text())
    assert citation["repository-code"] == address
    assert str(citation["version"]) == project["version"]
    readme = (root / "README.md").read_text()
    pattern = r"(?:colab\.research\.google\.com/github|mybinder\.org/v2/gh)/([\w.-]+/[\w.-]+)/"
    assert set(re.findall(pattern, readme)) <= {slug}


def test_version_is_the_same_in_package_and_project(project: dict[str, Any]) -> None:
    import geopeft_nb

    assert geopeft_nb.__version__ == project["version"]


def test_readme_commands_are_targets_of_the_makefile(root: Path) -> None:
    targets = re.findall(r"^([a-z-]+):", (root / "Makefile").read_text(), re.MULTILINE)
    named = re.findall(r"^\s*make ([a-z-]+)", (root / "README.md").read_text(), re.MULTILINE)
    assert {"run", "test"} <= set(named)
    assert set(named) <= set(targets)


@pytest.mark.slow
def test_wheel_carries_data_and_lessons_without_their_solutions(root: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=root, capture_output=True, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    shipped = [*root.glob("data/scenes/*.tif"), *root.glob("data/models/*.safetensors")]
    lessons = [*root.glob("notebooks/*.ipynb")]
    graded = [*root.glob("notebooks/source/[0-9]*/checks.py")]
    quizzes = [*root.glob("notebooks/source/[0-9]*/quiz.toml")]
    assert shipped and len(lessons) == len(graded) == len(quizzes) > 0
    for path in [*shipped, *lessons, *graded, *quizzes]:
        assert f"geopeft_nb/{path.relative_to(root).as_posix()}" in names
    assert not [name for name in names if "solutions" in name or name.endswith("lesson.py")]
    assert not [name for name in names if "__pycache__" in name or name.startswith("tests")]
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    command = [sys.executable, "-m", "geopeft_nb", "lessons", str(tmp_path / "course")]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "installed")}
    subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=True)
    handed_out = {path.name: path for path in tmp_path.glob("course/*")}
    assert handed_out.keys() == {path.name for path in lessons} | {"figures", "GLOSSARY.md"}
    assert all(handed_out[path.name].read_bytes() == path.read_bytes() for path in lessons)


def test_modules_are_loaded_by_name_only_where_a_table_names_them(root: Path) -> None:
    """The linter of imports does not see such a load, so it may hide an arrow between rooms."""
    tables = {
        "__init__.py", "backbones/load.py", "datasets/geobench.py",
        "tuning/methods.py",
    }  # fmt: skip
    package = root / "geopeft_nb"
    found = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if re.search(r"\bimport_module\(|\b__import__\(", path.read_text())
    }
    assert found - tables == set()


def test_text_is_utf_8_whatever_the_locale(root: Path) -> None:
    found = []  # ruff's rule knows only files whose type it can infer
    rooms = [root / name for name in ("geopeft_nb", "data", "notebooks")]
    for path in (path for room in rooms for path in room.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                texts = {"read_text": 0, "write_text": 1}.get(node.func.attr)
                said = texts is None or len(node.args) > texts
                if not said and "encoding" not in {word.arg for word in node.keywords}:
                    found.append(f"{path.name}:{node.lineno}")
    assert found == []
