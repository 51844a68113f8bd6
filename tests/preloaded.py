"""Python processes that start as forks of one that has imported TensorFlow, which takes seconds.

`python()` stands where `sys.executable` would, and `runner()` where the command of the SavedModel
runner would, which blocks Keras. Use them where the import is not what is tested: test_imports.py
and test_runtimes.py start Python as users do. A fork has the arguments, environment, directory and
standard streams of the command, and ends as it does: by the same status or signal, and with it.

`serve SOCKET MODULE...` imports the modules and forks for each caller; `ask SOCKET WORD...` is one.
"""

import contextlib
import functools
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import types
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RUNNER = "export.runtimes.python.saved_model"
COMMANDS = ("keras_vae.api", "keras_vae.commands", "export.pipeline", "matplotlib.pyplot")
FORWARDED = (signal.SIGINT, signal.SIGTERM)


def python() -> list[str]:
    """Returns a command to which `-m MODULE`, `-c CODE` or a file is added, with arguments."""
    return [*_ask(*COMMANDS)]


def runner() -> list[str]:
    """Returns the command of the SavedModel runner, to which its three arguments are added."""
    return [*_ask(RUNNER), "-m", RUNNER]


def _ask(*modules: str) -> list[str]:
    return [sys.executable, "-P", "-S", __file__, "ask", _server(*modules)[0]]


@functools.cache
def _server(
    *modules: str,
) -> tuple[str, "subprocess.Popen[bytes]", "tempfile.TemporaryDirectory[str]"]:
    """Starts the process, which ends when this one does and its standard input closes."""
    from export.runtimes import needs

    folder = tempfile.TemporaryDirectory()
    address = str(Path(folder.name) / "socket")
    process = subprocess.Popen(
        [sys.executable, "-P", __file__, "serve", address, *modules],
        env=needs.runner_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return address, process, folder


def serve(address: str, *modules: str) -> None:
    """Forks for each caller until the standard input closes; returns only in forks."""
    for name in modules:
        module = importlib.import_module(name)
        if name == RUNNER:
            module.block()
            import tensorflow  # noqa: F401
    # A fork lacks all threads but the one that forks. The import of TensorFlow starts one, which
    # programs do without; none may come with ours.
    assert len(os.listdir("/proc/self/task")) <= 2
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no keeper is waited for
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(address)
        door.listen()
        print("ready", flush=True)
        while sys.stdin not in select.select([door, sys.stdin], [], [])[0]:
            caller, _ = door.accept()
            if os.fork() == 0:
                door.close()
                return _keep(caller)
            caller.close()
    os._exit(0)


def _keep(caller: socket.socket) -> None:
    """Forks the program and tells the caller how it ended; ends it if the caller ends first."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    asked, handles, _, _ = socket.recv_fds(caller, 2**20, 3)
    asked = json.loads(asked)
    child = os.fork()
    if child == 0:
        caller.close()
        return _become(asked, handles)
    for handle in handles:
        os.close(handle)
    caller.sendall(b"%d\n" % child)
    ends = os.pidfd_open(child)
    while ends not in (ready := select.select([ends, caller], [], [])[0]):
        if caller in ready and not caller.recv(1):
            os.kill(child, signal.SIGKILL)
            break
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with contextlib.suppress(OSError):
        caller.sendall(b"%d\n" % status)
    os._exit(0)


def _become(asked: dict, handles: list[int]) -> None:
    """Gives this process the streams, the directory, the environment and the arguments."""
    for stream, handle in enumerate(handles):
        os.dup2(handle, stream)
        os.close(handle)
    os.chdir(asked["directory"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()  # of the system, as in a process of its own
    sys.argv[:] = asked["words"]


def run() -> None:
    """Runs `sys.argv` as Python would."""
    words = [*sys.argv]
    ours = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:0] = ours
    if words[0] == "-m":
        sys.modules.pop(words[1], None)
        sys.path.insert(0, os.getcwd())
        sys.argv[:] = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    elif words[0] == "-c":
        sys.path.insert(0, "")
        sys.argv[:] = ["-c", *words[2:]]
        sys.modules["__main__"] = main = types.ModuleType("__main__")
        exec(compile(words[1], "<string>", "exec"), vars(main))
    else:
        sys.path.insert(0, str(Path(words[0]).parent))
        runpy.run_path(words[0], run_name="__main__")


def ask(address: str, *words: str) -> int:
    """Has a fork run Python with these words; returns its status or dies of its signal."""
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(address)
        asked = {"words": words, "directory": os.getcwd(), "environment": dict(os.environ)}
        socket.send_fds(caller, [json.dumps(asked).encode()], [0, 1, 2])
        answer = caller.makefile()
        child = int(answer.readline())
        for number in FORWARDED:
            signal.signal(number, lambda number, _: os.kill(child, number))
        status = int(answer.readline())
    if status < 0:
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    return status


if __name__ == "__main__":
    if sys.argv[1] == "ask":
        sys.exit(ask(*sys.argv[2:]))
    sys.path.insert(0, str(ROOT))
    serve(*sys.argv[2:])
    run()
