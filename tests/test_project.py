"""The project's own files agree with one another, and the wheel holds what it should."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from email import message_from_string
from graphlib import TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path

import grimp
import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

import keras_vae
from keras_vae import extras

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
PACKAGES = [name for name in ("keras_vae", "export", "serving") if (ROOT / name).is_dir()]


def pins(file: str = "requirements.txt") -> dict[str, Requirement]:
    lines = (ROOT / file).read_text().splitlines()
    requirements = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(requirement.name): requirement for requirement in requirements}


def ranges() -> list[Requirement]:
    extras = PROJECT["optional-dependencies"].values()
    found = [Requirement(line) for line in sum(extras, PROJECT["dependencies"])]
    return [requirement for requirement in found if requirement.name != PROJECT["name"]]


def package_files() -> set[str]:
    return {
        path.relative_to(ROOT).as_posix()
        for name in PACKAGES
        for path in (ROOT / name).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"
    }


def sources() -> list[Path]:
    """Lists the Python files of the packages that are written by hand."""
    found = [path for name in PACKAGES for path in sorted((ROOT / name).rglob("*.py"))]
    return [path for path in found if not path.name.endswith("_pb2.py")]


def imported(file: Path) -> set[str]:
    """Lists the top-level names of the modules that a file imports anywhere."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module)
    return {name.split(".")[0] for name in names}


def test_every_pin_is_exact():
    for requirement in pins().values():
        assert re.fullmatch(r"==[0-9][^*,]*", str(requirement.specifier)), requirement


LOWEST = pins("tests/requirements-lowest.txt")


@pytest.mark.parametrize("wanted", ranges(), ids=lambda wanted: wanted.name)
def test_range_goes_from_the_oldest_version_that_was_tested(wanted):
    name = canonicalize_name(wanted.name)
    (newest,) = pins()[name].specifier
    assert wanted.specifier.contains(newest.version)
    if wanted.name == "setuptools":  # builds the package too, has a major version every month
        return
    (oldest,) = LOWEST.get(name, pins()[name]).specifier
    next_major = Version(newest.version).major + 1
    assert wanted.specifier == SpecifierSet(f">={oldest.version},<{next_major}")


def test_oldest_versions_are_those_of_the_library():
    assert set(LOWEST) <= {canonicalize_name(wanted.name) for wanted in ranges()}


def test_every_import_is_a_declared_dependency():
    extras = PROJECT["optional-dependencies"]
    brought = (extras[name] for name in extras if name not in ("dev", "docs"))
    lines = sum(brought, PROJECT["dependencies"])
    declared = {canonicalize_name(Requirement(line).name) for line in lines}
    providers = packages_distributions()
    for file in sorted(package_files()):
        if not file.endswith(".py"):
            continue
        for module in imported(ROOT / file) - sys.stdlib_module_names - set(PACKAGES):
            names = {canonicalize_name(name) for name in providers.get(module, [module])}
            assert names & declared, f"{file} imports {module}, which pyproject.toml does not name"


def test_extras_bring_what_the_commands_ask_for():
    """`keras_vae.extras` names modules, pyproject.toml the packages that bring them."""
    declared = PROJECT["optional-dependencies"]
    providers = packages_distributions()
    assert set(declared) == {*extras.MODULES, "all", "dev", "docs"}
    (everything,) = declared["all"]
    assert set(Requirement(everything).extras) == set(extras.MODULES)
    core = {canonicalize_name(Requirement(line).name) for line in PROJECT["dependencies"]}
    for extra, modules in extras.MODULES.items():
        packages = {canonicalize_name(Requirement(line).name) for line in declared[extra]}
        brought = {canonicalize_name(providers[module][0]) for module in modules}
        assert packages - {"protobuf", "h5py"} == brought  # these come with TensorFlow and Keras
        assert not packages & core


def test_core_imports_nothing_of_the_extras():
    optional = {module for modules in extras.MODULES.values() for module in modules}
    found = {
        (file, module)
        for file in package_files()
        if file.startswith("keras_vae/") and file.endswith(".py")
        for module in imported(ROOT / file) & optional
    }
    assert found == {
        ("keras_vae/data/foreign.py", "pyarrow"),
        ("keras_vae/data/tables.py", "pyarrow"),
        ("keras_vae/hub/card.py", "huggingface_hub"),
        ("keras_vae/hub/push.py", "huggingface_hub"),
        ("keras_vae/hub/remote.py", "huggingface_hub"),
        ("keras_vae/integrity/entries.py", "jsonschema"),
    }


def test_version_is_stated_once():
    assert PROJECT["version"] == keras_vae.__version__
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {keras_vae.__version__}\nlicense: {PROJECT['license']}\n" in citation


def test_docstrings_of_functions_begin_with_a_verb():
    """In the third person, as in "Returns"; the help of a command is a request, as in "Train"."""
    wrong = []
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            decorators = " ".join(map(ast.unparse, node.decorator_list))
            docstring = ast.get_docstring(node)
            if docstring is None or re.search(r"property|command\(|group\(", decorators):
                continue
            if not re.match(r"[A-Z][a-z]*s\b", docstring):
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno} {docstring.splitlines()[0]}")
    assert not wrong, wrong


def names_an_old_method(line):
    """Whether a line refuses a method that earlier versions had, by its name."""
    return '"law": "make_distribution"' in line or '"laws"' in line or "defines laws" in line


def test_distributions_are_not_called_laws():
    wrong = [
        f"{path.relative_to(ROOT)}:{number} {line}"
        for path in [*sources(), ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if re.search(r"\blaws?\b", line, re.IGNORECASE) and not names_an_old_method(line)
    ]
    assert not wrong, wrong


def test_import_linter_watches_every_package():
    watched = PYPROJECT["tool"]["importlinter"]["root_packages"]
    assert sorted(watched) == sorted(PACKAGES), "add the package and its contract in pyproject.toml"


def test_no_module_imports_itself_through_others():
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    order = TopologicalSorter(
        {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    )
    order.prepare()  # CycleError names the modules


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Builds the wheel from a copy, because setuptools reuses files of earlier builds."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "LICENSE", "README.md"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, source)
    for name in (*PACKAGES, "tests"):
        shutil.copytree(ROOT / name, source / name)
    target = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-index", "--no-deps"]
    command += ["--no-build-isolation", "--wheel-dir", str(target), str(source)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = target.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


def test_wheel_holds_the_packages_and_nothing_else(wheel):
    files = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert files == package_files()


def test_wheel_states_its_name_licence_and_command(wheel):
    (info,) = {name.split("/")[0] for name in wheel.namelist() if ".dist-info/" in name}
    metadata = message_from_string(wheel.read(f"{info}/METADATA").decode())
    assert metadata["Name"] == "keras-vae"
    assert metadata["Version"] == keras_vae.__version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert f"{info}/licenses/LICENSE" in wheel.namelist()
    assert "keras-vae = keras_vae.cli:main" in wheel.read(f"{info}/entry_points.txt").decode()
