"""The command line as a user meets it: help, the quickstart, one sentence for a failure."""

import json
import subprocess
import sys
import types
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import preloaded
import pytest
from click.testing import CliRunner

from keras_vae import cli


def run(
    *words: str, cwd: Path, python: Sequence[str] = (sys.executable,)
) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).parent.parent
    return subprocess.run(
        [*python, "-m", *words],
        cwd=cwd,
        env={"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin", "HOME": str(cwd)},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )


HELP = ["keras_vae", "keras_vae export", "keras_vae verify", "keras_vae explore", "keras_vae score"]
HELP += ["keras_vae serve", "keras_vae serve local", "keras_vae choose", "export", "serving"]


def before_tensorflow(words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Runs a module with its arguments; the last line says what was imported of what is slow."""
    module, *rest = words.split()
    script = cwd / "script.py"
    script.write_text(
        "import runpy, sys\n"
        f"sys.argv = ['-m', *{rest}]\n"
        "try:\n"
        f"    runpy.run_module('{module}', run_name='__main__', alter_sys=True)\n"
        "except SystemExit as end:\n"
        "    heavy = {'tensorflow', 'keras', 'pandas', 'fastapi', 'pyarrow', 'numpy'}\n"
        "    print('code', end.code, 'heavy', sorted(heavy & set(sys.modules)))\n"
    )
    return subprocess.run(
        [sys.executable, str(script)],
        cwd=cwd,
        env={"PYTHONPATH": str(Path(__file__).parent.parent)},
        capture_output=True,
        text=True,
        check=True,
    )


@pytest.mark.parametrize("words", HELP)
def test_help_comes_without_tensorflow(words: str, tmp_path: Path) -> None:
    result = before_tensorflow(f"{words} --help", tmp_path)
    assert "Usage:" in result.stdout
    assert result.stdout.endswith("code 0 heavy []\n")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("evaluate nowhere", "nowhere is not a run directory: it holds no config.toml."),
        ("compare run nowhere", "nowhere is not a run directory: it holds no config.toml."),
        ("sample run --out x.npz", "end in .npy, .csv, .parquet or .png; got x.npz."),
        ("export run --out a", "run holds no model.keras. Give the directory of a run, or a"),
        ("export x.keras --out a", "x.keras does not exist. Give the directory of a run, or a"),
    ],
)
def test_a_path_that_is_no_use_is_refused_before_tensorflow(
    words: str, sentence: str, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.toml").write_text("data = 'digits'")
    result = before_tensorflow(f"keras_vae {words}", tmp_path)
    assert sentence in result.stderr
    assert result.stdout.startswith("code 1")
    assert "tensorflow" not in result.stdout


def test_commands_never_run_a_file_of_the_user(tmp_path: Path) -> None:
    """`export` and `serving` are likely names in a project of the user's."""
    mine = "raise SystemExit('a file of the user ran')\n"
    (tmp_path / "export.py").write_text(mine)
    (tmp_path / "serving").mkdir()
    (tmp_path / "serving" / "__init__.py").write_text(mine)
    root = Path(__file__).parent.parent
    script = "import sys; sys.path.insert(0, ''); from keras_vae.cli import main; main()"
    module, command = ["-m", "keras_vae"], ["-c", script]
    for words, said in (
        ([*module, "verify", "a"], "a is not a version of an artifact"),
        ([*module, "export"], "Missing argument 'MODEL'"),
        ([*command, "export"], "Missing argument 'MODEL'"),
        ([*module, "serve", "config", "a", "--out", "d"], "a is not a directory"),
        ([*command, "explore", "a/1"], "a/1 is not a version of an artifact"),
    ):
        result = subprocess.run(
            [sys.executable, *words],
            cwd=tmp_path,
            env={"PYTHONPATH": f"{tmp_path}:{root}", "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode in (1, 2)
        assert said in result.stderr.strip().splitlines()[-1]


WITHOUT_EXTRAS = """
import sys
from keras_vae import extras
optional = {module for modules in extras.MODULES.values() for module in modules} - {"grpc"}
sys.modules.update(dict.fromkeys(optional))  # Python takes these for missing
import numpy as np
np.save("x.npy", np.random.default_rng(0).normal(size=(60, 3)))
open("x.parquet", "wb").write(b"PAR1")
from click.testing import CliRunner
from keras_vae.cli import main
for line in sys.stdin.read().splitlines():
    result = CliRunner().invoke(main, line.split())
    print(result.exit_code, result.output.strip().splitlines()[-1])
"""


def commands_of(group: click.Group, name: str = "") -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for word in group.list_commands(context):
        command = group.get_command(context, word)
        if isinstance(command, click.Group):
            yield from commands_of(command, f"{name} {word}")
        elif command is not None:
            yield f"{name} {word}", command


OTHER_NAMES = {
    "--out": {"--to", "--output", "--target", "--dest", "--bundle"},
    "--num-samples": {"--samples", "--draws"},
    "--overwrite": {"--replace", "--force"},
    "--epochs": {"--most-epochs", "--max-epochs"},
    "--limit": {"--rows", "--examples"},
}


def test_one_thing_has_one_name_in_all_commands() -> None:
    named: dict[str, set[str]] = {}
    for name, command in commands_of(cli.main):
        for option in (p for p in command.params if isinstance(p, click.Option)):
            named.setdefault(option.opts[0], set()).add(name)
    for kept, others in OTHER_NAMES.items():
        assert kept in named
        assert not others & named.keys()


def test_without_extras_it_trains_and_evaluates_and_names_the_extra_of_the_rest(
    tmp_path: Path,
) -> None:
    """In a process that finds none of the packages of the extras."""
    train = "train --epochs 1 --batch-size 30 --latent 1 --hidden 4"
    lines = {
        f"{train} --data x.npy --out r": None,
        "evaluate r --num-samples 5": None,
        f"{train} --data x.parquet --out p": ("pyarrow", "parquet"),
        "quickstart": ("jsonschema", "export"),
        "export r/model.keras --out artifacts/r": ("jsonschema", "export"),
        "verify artifacts/r/1": ("jsonschema", "export"),
        "explore artifacts/r/1": ("uvicorn", "serving"),
        "serve local .": ("h11", "serving"),
        "score artifacts/r/1 --data x.parquet --out s": ("pyarrow", "batch"),
    }
    root = Path(__file__).parent.parent
    result = subprocess.run(
        [sys.executable, "-c", WITHOUT_EXTRAS],
        cwd=tmp_path,
        env={"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        input="\n".join(lines),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    said = result.stdout.splitlines()
    assert len(said) == len(lines), result.stdout
    for (line, lack), got in zip(lines.items(), said, strict=True):
        if lack is None:
            assert got.startswith("0 "), (line, got)
        else:
            expected = f"The package {lack[0]} is needed here and not installed: pip install "
            assert got == f'1 Error: {expected}"keras-vae[{lack[1]}]".', line


def test_a_package_of_another_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    other = types.ModuleType("serving")
    other.__file__ = str(tmp_path / "serving.py")
    monkeypatch.setitem(sys.modules, "serving", other)
    result = CliRunner().invoke(cli.main, ["serve", "config", "--help"])
    assert result.exit_code == 1
    assert f"{other.__file__} was imported before the package 'serving'" in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize("words", [[], ["serve"]])
def test_a_list_of_commands_is_not_cut_at_80_columns(words: list[str]) -> None:
    listed = CliRunner().invoke(cli.main, [*words, "--help"]).output.partition("Commands:\n")[2]
    assert listed.count("\n") >= 7
    assert "..." not in listed


def test_every_command_has_help() -> None:
    context = click.Context(cli.main)
    for name in cli.main.list_commands(context):
        command = cli.main.get_command(context, name)
        result = CliRunner().invoke(cli.main, [name, "--help"])
        assert result.exit_code == 0
        assert command.help
        for parameter in command.params:
            is_shown = isinstance(parameter, click.Option) and not parameter.hidden
            assert (parameter.opts[0] in result.output) or not is_shown


def test_debug_shows_the_traceback_and_nothing_else_does(tmp_path: Path) -> None:
    words = ["keras_vae", "evaluate", "nowhere"]
    plain = run(*words, cwd=tmp_path)
    assert plain.returncode == 1
    assert plain.stderr.strip().splitlines() == [
        "Error: nowhere is not a run directory: it holds no config.toml. Make one with "
        "`keras-vae train --out`."
    ]
    debug = run("keras_vae", "--debug", "evaluate", "nowhere", cwd=tmp_path)
    assert debug.returncode == 1
    assert "Traceback" in debug.stderr


@pytest.mark.slow
def test_the_quickstart_trains_measures_exports_and_draws(tmp_path: Path) -> None:
    python = preloaded.python()
    result = run("keras_vae", "quickstart", "--epochs", "15", cwd=tmp_path, python=python)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stderr == ""
    out = tmp_path / "runs" / "quickstart"
    for name in ("samples.png", "reconstructions.png", "learning_curves.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
    values = json.loads((out / "evaluation.json").read_text())
    simple = max(value["mean"] for value in values["baselines"].values())
    assert values["log_marginal"]["mean"] > simple
    artifact = tmp_path / "artifacts" / "quickstart" / "1"
    assert (artifact / "manifest.json").is_file()
    assert (artifact / "onnx" / "decode.onnx").is_file()
    verify = run("keras_vae", "verify", str(artifact), cwd=tmp_path, python=python)
    assert verify.returncode == 0, verify.stderr
    assert "is unchanged since it was published" in verify.stdout
    card = (artifact / "MODEL_CARD.md").read_text()
    assert f"{values['elbo']['mean']:.2f}" in card
