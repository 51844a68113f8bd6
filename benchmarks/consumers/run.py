"""One consumer on some ONNX files: its answers in `FILE.CONSUMER.npz`, or the error in a line.

    python run.py CONSUMER DIRECTORY SIGNATURE...

`DIRECTORY` holds `SIGNATURE.onnx` and its inputs, `SIGNATURE.npz`. For each signature a line of
JSON says how it went. This runs in an environment of its own and imports nothing of the project.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx

Tensors = dict[str, np.ndarray]


def names(path: Path) -> list[str]:
    """Names of the outputs, for consumers that lose them."""
    return [entry.name for entry in onnx.load(path, load_external_data=False).graph.output]


def onnxruntime(path: Path, inputs: Tensors) -> list[Any]:
    """ONNX Runtime in Python."""
    session = importlib.import_module("onnxruntime").InferenceSession(path)
    return list(session.run(names(path), inputs))


def reference(path: Path, inputs: Tensors) -> list[Any]:
    """The evaluator of the `onnx` package."""
    evaluator = importlib.import_module("onnx.reference").ReferenceEvaluator(onnx.load(path))
    return list(evaluator.run(names(path), inputs))


def openvino(path: Path, inputs: Tensors) -> list[Any]:
    """OpenVINO on the CPU."""
    core = importlib.import_module("openvino").Core()
    model = core.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = model(inputs)
    return [found[name] for name in names(path)]


def iree(path: Path, inputs: Tensors) -> list[Any]:
    """IREE, compiled for the CPU."""
    compiler = importlib.import_module("iree.compiler")
    runtime = importlib.import_module("iree.runtime")
    tool = Path(sys.executable).parent / "iree-import-onnx"
    with tempfile.TemporaryDirectory() as directory:
        source = Path(directory) / "model.mlir"
        words = [tool, path, "-o", source]
        done = subprocess.run(words, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(done.stderr.strip().splitlines()[-1])
        binary = compiler.compile_file(
            str(source),
            input_type="onnx",
            target_backends=["llvm-cpu"],
            extra_args=["--iree-llvmcpu-target-cpu=host"],
        )
    context = runtime.SystemContext(config=runtime.Config("local-task"))
    context.add_vm_module(runtime.VmModule.copy_buffer(context.instance, binary))
    (main,) = (getattr(context.modules.module, n) for n in [onnx.load(path).graph.name])
    found = main(*inputs.values())
    return [np.array(each) for each in (found if isinstance(found, (tuple, list)) else [found])]


def tvm(path: Path, inputs: Tensors) -> list[Any]:
    """Apache TVM (relax), for a fixed batch."""
    library = importlib.import_module("tvm")
    relax = importlib.import_module("tvm.relax")
    frontend = importlib.import_module("tvm.relax.frontend.onnx")
    shapes = {name: list(value.shape) for name, value in inputs.items()}
    module = frontend.from_onnx(onnx.load(path), shape_dict=shapes)
    module = relax.transform.DecomposeOpsForInference()(module)
    machine = relax.VirtualMachine(library.compile(module, target="llvm"), library.cpu())
    found = machine["main"](*(library.runtime.tensor(value) for value in inputs.values()))
    return [each.numpy() for each in (found if len(names(path)) > 1 else [found])]


def tinygrad(path: Path, inputs: Tensors) -> list[Any]:
    """tinygrad on the CPU."""
    try:
        runner = importlib.import_module("tinygrad.nn.onnx").OnnxRunner(str(path))
    except ModuleNotFoundError:
        runner = importlib.import_module("tinygrad.frontend.onnx").OnnxRunner(str(path))
    tensor = importlib.import_module("tinygrad").Tensor
    found = runner({name: tensor(value) for name, value in inputs.items()})
    return [found[name].numpy() for name in names(path)]


def onnx2torch(path: Path, inputs: Tensors) -> list[Any]:
    """PyTorch by onnx2torch."""
    torch = importlib.import_module("torch")
    model = importlib.import_module("onnx2torch").convert(str(path))
    with torch.no_grad():
        found = model(*(torch.from_numpy(value) for value in inputs.values()))
    return [each.numpy() for each in (found if isinstance(found, (tuple, list)) else [found])]


def onnx2pytorch(path: Path, inputs: Tensors) -> list[Any]:
    """PyTorch by onnx2pytorch."""
    torch = importlib.import_module("torch")
    model = importlib.import_module("onnx2pytorch").ConvertModel(onnx.load(path), experimental=True)
    with torch.no_grad():
        found = model(*(torch.from_numpy(value) for value in inputs.values()))
    return [each.numpy() for each in (found if isinstance(found, (tuple, list)) else [found])]


def tract(path: Path, inputs: Tensors) -> list[Any]:
    """tract (Rust) by its Python package, with the dynamic batch of the file."""
    library = importlib.import_module("tract")
    model = library.onnx().load(str(path)).into_model().into_runnable()
    return [each.to_numpy() for each in model.run(list(inputs.values()))]


def mnn(path: Path, inputs: Tensors) -> list[Any]:
    """MNN, by its converter."""
    library = importlib.import_module("MNN")
    with tempfile.TemporaryDirectory() as directory:
        target = str(Path(directory) / "model.mnn")
        tool = Path(sys.executable).parent / "mnnconvert"
        words = [tool, "-f", "ONNX", "--modelFile", path, "--MNNModel", target, "--bizCode", "x"]
        done = subprocess.run(words, capture_output=True, text=True)
        if not Path(target).exists():
            lines = (done.stdout + done.stderr).strip().splitlines()
            raise RuntimeError(next((x for x in lines if "not support" in x.lower()), lines[-1]))
        module = library.nn.load_module_from_file(target, list(inputs), names(path))
        numpy = importlib.import_module("MNN.numpy")
        found = module.forward([numpy.array(value) for value in inputs.values()])
        return [np.array(each.read()) for each in found]


def ncnn(path: Path, inputs: Tensors) -> list[Any]:
    """ncnn by pnnx, which does not keep names."""
    with tempfile.TemporaryDirectory() as directory:
        kinds = {"float32": "f32", "int32": "i32"}
        shapes = ",".join(
            f"[{','.join(map(str, v.shape))}]{kinds[v.dtype.name]}" for v in inputs.values()
        )
        copy = Path(directory) / path.name
        copy.write_bytes(path.read_bytes())
        tool = Path(sys.executable).parent / "pnnx"
        words = [tool, copy, f"inputshape={shapes}"]
        done = subprocess.run(words, capture_output=True, text=True, cwd=directory)
        stem = Path(directory) / path.stem
        net = importlib.import_module("ncnn").Net()
        if net.load_param(f"{stem}.ncnn.param") or net.load_model(f"{stem}.ncnn.bin"):
            lines = [x for x in done.stderr.splitlines() if "ignore" in x or "not support" in x]
            raise RuntimeError((lines or done.stderr.splitlines() or ["no network"])[-1])
        mat = importlib.import_module("ncnn").Mat
        rows = []
        for row in range(len(next(iter(inputs.values())))):
            extractor = net.create_extractor()
            for index, value in enumerate(inputs.values()):
                extractor.input(f"in{index}", mat(np.ascontiguousarray(value[row])))
            found = [extractor.extract(f"out{i}") for i in range(len(names(path)))]
            if any(code for code, _ in found):
                raise RuntimeError("an output cannot be computed")
            rows.append([np.array(value) for _, value in found])
        return [np.stack(each) for each in zip(*rows, strict=True)]


CONSUMERS: dict[str, tuple[Callable[[Path, Tensors], list[Any]], tuple[str, ...]]] = {
    "onnxruntime": (onnxruntime, ("onnxruntime",)),
    "onnx.reference": (reference, ("onnx",)),
    "openvino": (openvino, ("openvino",)),
    "iree": (iree, ("iree-base-compiler",)),
    "tvm": (tvm, ("apache-tvm",)),
    "tinygrad": (tinygrad, ("tinygrad",)),
    "onnx2torch": (onnx2torch, ("onnx2torch", "torch")),
    "onnx2pytorch": (onnx2pytorch, ("onnx2pytorch", "torch")),
    "tract": (tract, ("tract",)),
    "mnn": (mnn, ("MNN",)),
    "ncnn": (ncnn, ("pnnx", "ncnn")),
}
"""By name: what runs a file, and the packages whose versions say what it is."""


def main() -> None:
    """Runs the signatures that the command line names."""
    name, directory, signatures = sys.argv[1], Path(sys.argv[2]), sys.argv[3:]
    run, packages = CONSUMERS[name]
    metadata = importlib.import_module("importlib.metadata")
    version = ", ".join(f"{package} {metadata.version(package)}" for package in packages)
    answers = os.dup(1)
    os.dup2(2, 1)  # what libraries print is no answer
    for signature in signatures:
        with np.load(directory / f"{signature}.npz") as file:
            inputs = dict(file)
        path, error = directory / f"{signature}.onnx", None
        try:
            outputs = map(np.asarray, run(path, inputs))
            found = dict(zip(names(path), outputs, strict=True))
            np.savez(directory / f"{signature}.{name}.npz", **found)
        except BaseException as problem:
            error = " ".join(f"{type(problem).__name__}: {problem}".split())[:300]
        line = json.dumps({"signature": signature, "version": version, "error": error})
        os.write(answers, f"{line}\n".encode())


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
