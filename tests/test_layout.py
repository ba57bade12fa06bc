"""Oracle: the rules of CONTRIBUTING.md about where things are, checked against the tree itself."""

import ast
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
TEXT = {".py", ".md", ".toml", ".txt", ".yml", ".yaml", ".cfg", ".sh", ""}
HEAVY = ("torch", "streamlit", "transformers", "transformer_lens", "plotly", "pandas", "sklearn", "nnsight")


@cache
def tracked() -> tuple[Path, ...]:
    """Files that git keeps or would keep; without git (an unpacked release), every file."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    names = listed.stdout.split("\0") if listed.returncode == 0 else [str(p.relative_to(ROOT)) for p in ROOT.rglob("*")]
    return tuple(ROOT / name for name in names if name and (ROOT / name).is_file())


def sources(*folders: str) -> list[Path]:
    return [p for p in tracked() if p.suffix == ".py" and p.relative_to(ROOT).parts[0] in folders]


def modules_after(code: str) -> set[str]:
    """Top-level modules loaded in a fresh interpreter after `code`."""
    tail = "\nimport sys; print(' '.join({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code + tail], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split())


def test_tests_are_not_a_package():
    # A tests/kernels/__init__.py becomes the top-level module "kernels", which transformers then imports.
    assert [str(p) for p in tracked() if p.name == "__init__.py" and ROOT / "tests" in p.parents] == []


def test_no_root_folder_takes_a_name_that_is_imported():
    taken = {"kernels", "models", "probes", "dashboards", "core", "utils"}
    assert taken & {p.relative_to(ROOT).parts[0] for p in tracked()} == set()


def test_nothing_runnable_lies_directly_in_the_package():
    # A script run from there puts strobe/ first on the path, where kernels/ shadows the package of that name.
    directly = {p.name for p in sources("strobe") if p.parent == ROOT / "strobe"}
    assert directly <= {"__init__.py", "cli.py"}


def test_every_folder_of_code_is_a_package():
    # Scripts that streamlit runs by their path are no modules.
    scripts = {ROOT / "strobe/dashboards/pages", ROOT / "strobe/dashboards/entry"}
    folders = {p.parent for p in sources("strobe")} - scripts
    assert [str(f.relative_to(ROOT)) for f in folders if not (f / "__init__.py").is_file()] == []


CORE = sorted(f"strobe.core.{p.stem}" for p in (ROOT / "strobe/core").glob("[a-z]*.py"))


@pytest.mark.parametrize("module", ["strobe", *CORE])
def test_importing_core_loads_nothing_heavy(module: str):
    assert modules_after(f"import {module}") & set(HEAVY) == set()


@pytest.mark.skipif(not (ROOT / "strobe" / "cli.py").exists(), reason="there is no command line yet")
def test_help_loads_nothing_heavy():
    code = (
        "import sys; sys.argv = ['strobe', '--help']\nfrom strobe.cli import main\ntry: main()\nexcept SystemExit: pass"
    )
    assert modules_after(code) & set(HEAVY) == set()


def test_no_file_passes_the_ceiling():
    lengths = {p: len(p.read_text().splitlines()) for p in sources("strobe", "tests", "notebooks")}
    assert {str(p.relative_to(ROOT)): count for p, count in lengths.items() if count > 500} == {}


def test_nothing_says_where_it_was_made():
    # Written in parts, so that this file passes its own test.
    folders = r"(?<![\w.~/-])/(?:" + "|".join(["work", "tmp", "root", "opt", "home", "Users"]) + r")/\w"
    hosts = "|".join(rf"\b{name}\.(?:org|com)\b" for name in ["pypi", "pythonhosted", "npmjs"])
    pattern = re.compile(f"{folders}|{hosts}")
    found = [
        f"{p.relative_to(ROOT)}: {match.group()}"
        for p in tracked()
        if p.suffix in TEXT and p.name != "LICENSE"
        for match in [pattern.search(p.read_text(encoding="utf-8"))]
        if match
    ]
    assert found == []


def test_annotations_are_not_postponed():
    # jaxtyping and beartype read annotations at run time.
    imports = "from __future__ import " + "annotations"
    assert [str(p) for p in sources("strobe", "tests") if imports in p.read_text().splitlines()] == []


def test_every_test_module_names_its_oracle():
    modules = [p for p in sources("tests") if p.name.startswith(("test_", "bench_"))]
    first_lines = {p: (ast.get_docstring(ast.parse(p.read_text())) or "").split("\n")[0] for p in modules}
    assert modules
    assert [str(p.relative_to(ROOT)) for p, line in first_lines.items() if not line.startswith("Oracle")] == []


def test_links_between_documents_lead_somewhere():
    broken = [
        f"{document.relative_to(ROOT)}: {target}"
        for document in tracked()
        if document.suffix == ".md"
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)\s]*)?\)", document.read_text())
        if "://" not in target and not target.startswith("mailto:") and not (document.parent / target).exists()
    ]
    assert broken == []


def test_what_was_tested_is_what_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)
    pins = {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}
    declared = [*project["dependencies"], *(r for extra in project["optional-dependencies"].values() for r in extra)]
    for requirement in map(Requirement, declared):
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement


def test_the_version_is_said_once():
    import strobe

    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == strobe.__version__
