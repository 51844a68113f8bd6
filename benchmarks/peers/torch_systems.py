"""A hand-written PyTorch loop, eager or compiled, and the matrix products of a step alone."""

import math
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from benchmarks.peers.cases import (
    BETA_1,
    BETA_2,
    EPSILON,
    Case,
    Layer,
    initial_weights,
)
from benchmarks.peers.worker import Gate


def versions() -> dict[str, str]:
    """Versions and threads."""
    return {"torch": torch.__version__, "threads": str(torch.get_num_threads())}


def network(layers: list[Layer], case: Case, seed: int) -> nn.Sequential:
    """The layers with their initial weights; images have their channels first."""
    modules: list[nn.Module] = []
    activation = nn.ReLU if case.convolutional else nn.Tanh
    weights = initial_weights(layers, seed)
    before = "dense" if seed == 2 else layers[0].kind
    for index, (layer, (kernel, bias)) in enumerate(zip(layers, weights, strict=True)):
        module: nn.Module
        if layer.kind == "dense":
            if before != "dense":
                modules.append(nn.Flatten())
            module = nn.Linear(layer.inputs, layer.outputs)
        elif layer.kind == "conv":
            module = nn.Conv2d(layer.inputs, layer.outputs, 3, layer.stride, padding=1)
        else:
            if before == "dense":
                modules.append(nn.Unflatten(1, (layer.inputs, layer.rows, layer.rows)))
            module = nn.ConvTranspose2d(
                layer.inputs, layer.outputs, 3, 2, padding=1, output_padding=1
            )
        before = layer.kind
        with torch.no_grad():
            module.weight.copy_(
                torch.from_numpy(
                    kernel.T.copy() if kernel.ndim == 2 else kernel.transpose(3, 2, 0, 1).copy()
                )
            )
            module.bias.copy_(torch.from_numpy(bias))
        modules.append(module)
        if index < len(layers) - 1:
            modules.append(activation())
    return nn.Sequential(*modules)


def channels_first(case: Case, x: np.ndarray) -> torch.Tensor:
    """The data as PyTorch's convolutions take it."""
    return torch.from_numpy(
        np.ascontiguousarray(np.moveaxis(x, -1, 1)) if case.convolutional else x
    )


class Loss(nn.Module):
    """The objective of a batch, in nats."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.case = case
        self.encoder = network(case.encoder, case, 1)
        self.decoder = network(case.decoder, case, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Mean loss."""
        case, k = self.case, self.case.num_samples
        loc, log_var = self.encoder(x).chunk(2, dim=-1)
        noise = torch.randn(k, x.shape[0], case.latent_size)
        z = loc + torch.exp(0.5 * log_var) * noise
        out = self.decoder(z.reshape(-1, case.latent_size)).reshape(k, *x.shape)
        if case.likelihood == "bernoulli":
            each = nn.functional.binary_cross_entropy_with_logits(
                out, x.expand_as(out), reduction="none"
            )
        else:
            each = 0.5 * (x - out) ** 2 + 0.5 * math.log(2 * math.pi)
        distortion = each.flatten(2).sum(-1)
        if k == 1:
            rate = 0.5 * (loc**2 + torch.exp(log_var) - 1 - log_var).sum(-1)
            return (distortion[0] + rate).mean()
        rate = (0.5 * z**2 - 0.5 * noise**2 - 0.5 * log_var).sum(-1)
        return math.log(k) - torch.logsumexp(-distortion - rate, dim=0).mean()


def _train(case: Case, x: np.ndarray, gate: Gate, compiled: bool) -> None:
    torch.manual_seed(0)
    rows, checked = (channels_first(case, part) for part in case.split(x))
    model = Loss(case)
    loss_of = torch.compile(model) if compiled else model
    optimizer = torch.optim.Adam(
        model.parameters(), case.learning_rate, betas=(BETA_1, BETA_2), eps=EPSILON, fused=True
    )

    def check() -> float:
        with torch.no_grad():
            return float(model(checked))

    while True:
        gate.begin()
        order = torch.randperm(case.examples)
        total = torch.zeros(())
        for start in range(0, case.steps * case.batch, case.batch):
            optimizer.zero_grad()
            loss = loss_of(rows[order[start : start + case.batch]])
            loss.backward()
            optimizer.step()
            total += loss.detach()
        float(total)
        gate.end(check)


def eager(case: Case, x: np.ndarray, gate: Gate) -> None:
    """As it is written."""
    _train(case, x, gate, compiled=False)


def compiled(case: Case, x: np.ndarray, gate: Gate) -> None:
    """The loss under `torch.compile`."""
    _train(case, x, gate, compiled=True)


def products(case: Case, x: np.ndarray, gate: Gate) -> None:
    """The matrix products of a task alone, into memory that is there.

    Forward, and backward for kernels and for inputs except those of the first layer. A convolution
    counts as the product of its unfolded input. For "evidence" the decoder forward, at the number
    of rows, of those tried, that is fastest.
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
        for index, layer in enumerate(case.encoder):
            sizes += _step_products(layer, case.batch, first=index == 0)
        for layer in case.decoder:
            sizes += _step_products(layer, case.batch * case.num_samples, first=False)
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
    ("fit", "products"): products,
    ("evidence", "products"): products,
}
