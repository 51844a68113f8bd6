"""Long evaluations say how long they take, on standard error and only where somebody looks."""

import io
import re

import numpy as np
import pytest

from keras_vae import evaluation
from keras_vae.evaluation import _progress
from keras_vae.evaluation._progress import Progress
from tests.models import tiny_vae


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(_progress.time, "perf_counter", lambda: now[0])
    return now


def test_a_terminal_sees_one_line_that_vanishes(clock, monkeypatch):
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    with Progress("bound_gap", 400, None) as done:
        done.add(1)
        assert screen.getvalue() == ""  # the first second
        clock[0] += 30.0
        done.add(99)
        assert screen.getvalue() == "\rbound_gap: 25 %, about 1 min 30 s left"
        clock[0] += 0.1
        done.add(1)
        assert screen.getvalue().count("\r") == 1  # not more than five times a second
        clock[0] += 10.0
        done.add(199)
        assert screen.getvalue().endswith("\rbound_gap: 75 %, about 13 s left".ljust(39))
    assert re.search(r"\r +\r$", screen.getvalue())


def test_a_file_gets_ten_lines_if_it_is_asked_for(clock, monkeypatch):
    for show, lines in ((None, 0), (False, 0), (True, 10)):
        file = io.StringIO()
        monkeypatch.setattr("sys.stderr", file)
        with Progress("bound_gap", 1000, show) as done:
            for _ in range(1000):
                clock[0] += 10.0
                done.add(1)
        assert len(file.getvalue().splitlines()) == lines
        assert not lines or "bound_gap: 50 %, about 1 h 23 min left" in file.getvalue()


@pytest.mark.parametrize(
    "evaluate",
    [
        lambda vae, x, **show: evaluation.bound_gap(
            vae,
            x,
            method="annealed",
            steps=20,
            num_samples=8,
            temperatures=10,
            num_chains=2,
            **show,
        ),
        lambda vae, x, **show: evaluation.log_marginal(vae, x, num_samples=5, **show),
    ],
)
def test_evaluators_count_all_of_their_work(evaluate, monkeypatch, capsys):
    monkeypatch.setattr(_progress, "_PATIENCE", 0.0)
    vae, x = tiny_vae(), np.eye(6, dtype="float32")[:3]
    evaluate(vae, x, progress=True)
    shares = [int(share) for share in re.findall(r": (\d+) %", capsys.readouterr().err)]
    assert shares == sorted(shares)
    assert shares[-1] == 100


def test_nothing_is_said_where_nobody_looks(monkeypatch, capsys):
    monkeypatch.setattr(_progress, "_PATIENCE", 0.0)
    evaluation.log_marginal(tiny_vae(), np.eye(6, dtype="float32")[:3], num_samples=5)
    assert capsys.readouterr().err == ""
