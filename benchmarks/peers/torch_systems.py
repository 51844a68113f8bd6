"""A hand-written PyTorch loop, eager or compiled, and the matrix products of a step alone."""

import itertools
import time
from collections.abc import Callable

import numpy as np
import torch

from benchmarks.peers.cases import (
    BETA_1,
    BETA_2,
    CODE_SIZE,
    CODES,
    EPSILON,
    Case,
    Layer,
    checks,
    held_out_loss,
    presented,
)
from benchmarks.peers.torch_models import MODELS, Loss, channels_first
from benchmarks.peers.worker import Gate


def versions() -> dict[str, str]:
    """Versions and threads."""
    return {"torch": torch.__version__, "threads": str(torch.get_num_threads())}


def _adam(case: Case, model: Loss) -> torch.optim.Adam:
    betas = (BETA_1, BETA_2)
    return torch.optim.Adam(
        model.parameters(), case.learning_rate, betas=betas, eps=EPSILON, fused=True
    )


def _train(case: Case, x: np.ndarray, gate: Gate, compiled: bool) -> None:
    torch.manual_seed(case.seed)
    given = case.split(x)[0]
    rows, checked = (channels_first(case, part) for part in case.split(x))
    model = MODELS[case.model](case)
    model.start(rows[: case.batch])
    loss_of = torch.compile(model) if compiled else model
    optimizer = _adam(case, model)

    def loss_on(measured: Case, x: torch.Tensor, seed: int) -> float:
        model.eval()
        model.case = measured
        with torch.no_grad():
            value = float(model(x))
        model.case = case
        model.train()
        return value

    for epoch in itertools.count():
        gate.begin()
        for group in optimizer.param_groups:
            group["lr"] = case.rate(epoch)
        order = torch.randperm(case.examples)
        if case.binarise:
            rows = torch.from_numpy(presented(case, given, epoch))
        total = torch.zeros(())
        for start in range(0, case.steps * case.batch, case.batch):
            optimizer.zero_grad()
            loss = loss_of(rows[order[start : start + case.batch]])
            loss.backward()
            optimizer.step()
            total += loss.detach()
        float(total)
        gate.end(lambda: held_out_loss(case, loss_on, checked))


def eager(case: Case, x: np.ndarray, gate: Gate) -> None:
    """As it is written."""
    _train(case, x, gate, compiled=False)


def compiled(case: Case, x: np.ndarray, gate: Gate) -> None:
    """The loss under `torch.compile`."""
    _train(case, x, gate, compiled=True)


def same(case: Case, x: np.ndarray, gate: Gate) -> None:
    """The losses of a few steps on copied noise."""
    model = MODELS[case.model](case)
    model.start(channels_first(case, x[: case.batch]))
    optimizer, losses = _adam(case, model), []
    for batch, noise in checks(case, x):
        rows = channels_first(case, batch)
        optimizer.zero_grad()
        loss = model(rows, [torch.from_numpy(own) for own in noise])
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    gate.begin()
    gate.end(lambda: losses)


def products(case: Case, x: np.ndarray, gate: Gate) -> None:
    """The matrix products of a task alone, into memory that is there.

    Forward, and backward for kernels and for inputs except those of the first layer. A convolution
    counts as the product of its unfolded input; a code book as distances and sums. For "evidence"
    the decoder forward, at the number of rows, of those tried, that is fastest.
    """
    if case.task == "evidence":
        rates = []
        for rows in (100, 500, 1000, 5000):
            run = _products([layer.product(rows) for layer in case.decoder])
            best = min(_seconds(run) for _ in range(10)) / rows
            rates.append((best, run, case.examples * case.num_samples // rows))
        _, run, repeats = min(rates, key=lambda rate: rate[0])
    else:
        sizes = []
        for index, (name, layers) in enumerate(case.networks.items()):
            batch = case.batch * (case.num_samples if name == "decoder" else 1)
            for depth, layer in enumerate(layers):
                sizes += _step_products(layer, batch, first=index == depth == 0)
        if case.model == "codes":
            rows = case.batch * case.latent_size // CODE_SIZE
            sizes += [(rows, CODE_SIZE, CODES), (CODES, rows, CODE_SIZE)]
        run, repeats = _products(sizes), case.steps
    while True:
        gate.begin()
        for _ in range(repeats):
            run()
        gate.end()


def _step_products(layer: Layer, batch: int, first: bool) -> list[tuple[int, int, int]]:
    m, k, n = layer.product(batch)
    return [(m, k, n), (k, m, n)] + ([] if first else [(m, n, k)])


def _products(sizes: list[tuple[int, int, int]]) -> Callable[[], None]:
    """A function that does the products once."""
    operands = [tuple(torch.rand(shape) for shape in ((m, k), (k, n), (m, n))) for m, k, n in sizes]

    def run() -> None:
        for a, b, out in operands:
            torch.mm(a, b, out=out)

    return run


def _seconds(function: Callable[[], object]) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


SYSTEMS = {
    ("fit", "torch_eager"): eager,
    ("fit", "torch_compile"): compiled,
    ("same", "torch_eager"): same,
    ("fit", "products"): products,
    ("evidence", "products"): products,
}
