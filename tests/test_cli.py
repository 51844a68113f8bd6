"""The command line as a user meets it: help, the quickstart, one sentence for a failure."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from keras_vae import cli


def run(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).parent.parent
    command = [sys.executable, "-m", *words]
    return subprocess.run(
        command,
        cwd=cwd,
        env={"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin", "HOME": str(cwd)},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )


@pytest.mark.parametrize("module", ["keras_vae", "export"])
def test_help_comes_without_tensorflow(module: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import runpy, sys\n"
        f"sys.argv = ['-m', '--help']\n"
        "try:\n"
        f"    runpy.run_module('{module}', run_name='__main__', alter_sys=True)\n"
        "except SystemExit as end:\n"
        "    heavy = {'tensorflow', 'keras', 'pandas', 'matplotlib'} & set(sys.modules)\n"
        "    print('code', end.code, 'heavy', sorted(heavy))\n"
    )
    root = Path(__file__).parent.parent
    result = subprocess.run(
        [sys.executable, str(script)],
        env={"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Usage:" in result.stdout
    assert result.stdout.endswith("code 0 heavy []\n")


def test_every_command_has_help() -> None:
    for name, command in cli.main.commands.items():
        result = CliRunner().invoke(cli.main, [name, "--help"])
        assert result.exit_code == 0
        assert command.help
        for parameter in command.params:
            assert parameter.param_type_name == "argument" or parameter.opts[0] in result.output


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
    result = run("keras_vae", "quickstart", "--epochs", "15", cwd=tmp_path)
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
    verify = run("export", "verify", str(artifact), cwd=tmp_path)
    assert verify.returncode == 0, verify.stderr
    assert "is as it was published" in verify.stdout
    card = (artifact / "MODEL_CARD.md").read_text()
    assert f"{values['elbo']['mean']:.2f}" in card
