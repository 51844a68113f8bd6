"""SavedModels run in a fork of one process that has imported TensorFlow, and no part of Keras.

Every export runs its SavedModel in a process of its own, which imports TensorFlow for four seconds
and works for less than one. test_runtimes.py runs the runner as users do; elsewhere this file takes
its place: `serve SOCKET` blocks Keras, imports TensorFlow and forks for each caller, and
`ask SOCKET ARTIFACT CASES ANSWERS` is such a caller.
"""

import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def command() -> list[str]:
    """Returns the command of the runner, to which its three arguments are added."""
    return [sys.executable, "-P", "-S", __file__, "ask", _server()[0]]


@functools.cache
def _server() -> tuple[str, "subprocess.Popen[bytes]", "tempfile.TemporaryDirectory[str]"]:
    """Starts the process, which ends when this one does and its standard input closes."""
    from export.runtimes import needs

    folder = tempfile.TemporaryDirectory()
    address = str(Path(folder.name) / "socket")
    process = subprocess.Popen(
        [sys.executable, "-P", __file__, "serve", address],
        env=needs.runner_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return address, process, folder


def serve(address: str) -> None:
    """Forks for each caller until the standard input closes."""
    from export.runtimes.python import saved_model

    saved_model.block()
    import tensorflow  # noqa: F401

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no child is waited for
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(address)
        door.listen()
        print("ready", flush=True)
        while sys.stdin not in select.select([door, sys.stdin], [], [])[0]:
            caller, _ = door.accept()
            if os.fork() == 0:
                _answer(caller)
            caller.close()


def _answer(caller: socket.socket) -> None:
    """Runs the runner as a main program would, and tells the caller its status."""
    from export.runtimes.python import saved_model

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    status = 0
    try:
        words, handles, _, _ = socket.recv_fds(caller, 2**16, 1)
        os.dup2(handles[0], 2)
        sys.argv = json.loads(words)
        saved_model.main(saved_model.load)
    except SystemExit as end:
        print(end.code, file=sys.stderr)
        status = 1
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stderr.flush()
    caller.sendall(bytes([status]))
    os._exit(0)


def ask(address: str, *words: str) -> int:
    """Has a fork run with these arguments and this standard error; returns its status."""
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(address)
        socket.send_fds(caller, [json.dumps(["saved_model", *words]).encode()], [2])
        status = caller.recv(1)
    return status[0] if status else -signal.SIGKILL


if __name__ == "__main__":
    if sys.argv[1] == "ask":
        sys.exit(ask(*sys.argv[2:]))
    sys.path.insert(0, str(ROOT))
    serve(sys.argv[2])
