"""Training on several devices, and on several machines, is that on one device."""

import json
import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

import keras
import numpy as np
import preloaded
import pytest

import keras_vae
from tests.models import again, assert_same_weights, binary, compiled, tiny_vae

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "distributed.md").read_text()
PROGRAM = re.search(r"<!-- program -->\n```python\n(.*?)```", PAGE, re.DOTALL)[1]
PATIENCE = 240  # seconds: far longer than two cores need, so that a hang fails and a crowd does not


def process(*arguments, **environment):
    clean = {name: value for name, value in os.environ.items() if name != "TF_CONFIG"}
    return subprocess.Popen(
        [*preloaded.python(), *map(str, arguments)],
        env={**clean, "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def output_of(running):
    try:
        out, err = running.communicate(timeout=PATIENCE)
    finally:
        running.kill()
    return out, err, running.returncode


@pytest.fixture(scope="module")
def mirrored():
    """Weights and logs of each case, on one device and on two."""
    out, err, code = output_of(process(ROOT / "tests" / "two_devices.py"))
    assert code == 0, err[-3000:]
    return json.loads(out.splitlines()[-1])


@pytest.mark.parametrize("case", ["stream", "weighted", "dataset"])
def test_two_devices_train_as_one(mirrored, case):
    one, two = mirrored[case]
    assert set(one["logs"]) == set(two["logs"])
    for name, values in one["logs"].items():
        np.testing.assert_allclose(two["logs"][name], values, rtol=1e-5, err_msg=name)
    np.testing.assert_allclose(two["weights"], one["weights"], atol=1e-5)  # of about 0.5, 12 steps
    assert np.max(np.abs(np.subtract(one["weights"], one["before"]))) > 1e-3


def test_what_replicas_cannot_do_is_refused(mirrored):
    assert "run_eagerly=True works only on one device" in mirrored["refused"]


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def workers(program, folder, epochs):
    cluster = {"worker": [f"127.0.0.1:{port}" for port in free_ports(2)]}
    return [
        process(
            program,
            folder,
            epochs,
            TF_CONFIG=json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}}),
        )
        for index in range(2)
    ]


def test_killed_workers_resume_and_end_where_one_alone_does(tmp_path):
    program, epochs = tmp_path / "train.py", 15
    program.write_text(PROGRAM)
    alone = process(program, tmp_path / "alone", epochs)
    (tmp_path / "alone").mkdir()
    together = tmp_path / "together"
    together.mkdir()
    out, err, code = output_of(alone)
    assert code == 0, err[-3000:]

    pair = workers(program, together, epochs)
    started = time.monotonic()
    while not list(together.glob("backup/epoch-[2-9].weights.h5")):
        assert pair[0].poll() is None, pair[0].communicate()[1][-3000:]
        assert time.monotonic() - started < PATIENCE
        time.sleep(0.05)
    pair[1].send_signal(signal.SIGKILL)
    _, err, code = output_of(pair[0])
    assert code not in (0, -signal.SIGKILL)
    assert "WorkerError: Another worker stopped" in err
    output_of(pair[1])
    (saved,) = together.glob("backup/epoch-*.weights.h5")
    passed = int(re.search(r"epoch-(\d+)", saved.name)[1])
    assert 2 <= passed < epochs

    results = [output_of(worker) for worker in workers(program, together, epochs)]
    assert [code for _, _, code in results] == [0, 0], results[0][1][-3000:]
    assert not list(together.glob("backup/*"))
    losses = [re.findall(r"loss: ([\d.]+)", out) for out in (out, results[0][0], results[1][0])]
    assert losses[1] == losses[2]
    assert len(losses[1]) == 2 * (epochs - passed)  # of training and validation
    wanted = losses[0][2 * passed :]
    # Keras prints five digits.
    np.testing.assert_allclose(np.float64(losses[1]), np.float64(wanted), atol=2e-4)
    paths = (tmp_path / name / "model.keras" for name in ("alone", "together"))
    one, two = map(keras.saving.load_model, paths)
    for left, right in zip(one.get_weights(), two.get_weights(), strict=True):
        np.testing.assert_allclose(left, right, atol=1e-4)  # Adam magnifies rounding in 135 steps


X = binary(45)


class Interrupt(keras.callbacks.Callback):
    def __init__(self, after):
        super().__init__()
        self.after = after

    def on_epoch_end(self, epoch, logs=None):
        if epoch + 1 == self.after:
            raise KeyboardInterrupt


@pytest.mark.parametrize(("stream", "graph"), [(True, False), (True, True), (False, True)])
def test_interrupted_training_goes_on_from_its_backup(tmp_path, stream, graph):
    def train(*callbacks):
        vae = compiled(again(), keras_vae.ELBO(beta=0.5), optimizer="adam", run_eagerly=not graph)
        x, options = X, {"batch_size": 8}
        if stream:
            x = keras_vae.data.batches(X, 8, epochs=4, seed=3)
            options = {"steps_per_epoch": 6}
        schedule = keras_vae.callbacks.LinearSchedule("beta", epochs=4)
        callbacks = [schedule, *callbacks]
        return vae, vae.fit(x, epochs=4, verbose=0, callbacks=callbacks, **options).history

    folder = tmp_path / "backup"
    whole, history = train()
    with pytest.raises(KeyboardInterrupt):
        train(keras_vae.callbacks.Backup(folder), Interrupt(after=2))
    assert os.listdir(folder) == ["epoch-2.weights.h5"]
    resumed, rest = train(keras_vae.callbacks.Backup(folder))
    assert_same_weights(whole, resumed)
    assert rest["loss"] == history["loss"][2:]
    assert os.listdir(folder) == []


def test_backup_of_another_model_is_refused(tmp_path):
    backup = keras_vae.callbacks.Backup(tmp_path, keep=True)
    compiled(tiny_vae()).fit(X, verbose=0, callbacks=[backup])
    other = compiled(tiny_vae(shape=7))
    with pytest.raises(ValueError, match="is not a backup of this model"):
        other.fit(binary(45, 7), verbose=0, callbacks=[backup])
    (tmp_path / "epoch-1.weights.h5").write_bytes(b"half")
    with pytest.raises(ValueError, match="is not a backup of this model"):
        compiled(tiny_vae()).fit(X, verbose=0, callbacks=[backup])
