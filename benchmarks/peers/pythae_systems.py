"""Pythae: its own models with its own trainer, and its estimate of the evidence."""

import math
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from pythae.data.datasets import BaseDataset
from pythae.models import IWAE, VAE, BaseAE, IWAEConfig, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from pythae.trainers.training_callbacks import TrainingCallback

from benchmarks.peers.cases import (
    BETA_1,
    BETA_2,
    EPSILON,
    Case,
    held_out_loss,
    initial_weights,
    presented,
)
from benchmarks.peers.torch_models import channels_first, network
from benchmarks.peers.worker import Gate

_FOREVER = 1_000_000


def versions() -> dict[str, str]:
    """Versions and threads."""
    return {
        "pythae": version("pythae"),
        "torch": torch.__version__,
        "threads": str(torch.get_num_threads()),
    }


class _Encoder(BaseEncoder):
    def __init__(self, case: Case) -> None:
        super().__init__()
        self.layers = network(case.encoder, case, initial_weights(case.encoder, 1))

    def forward(self, x: torch.Tensor) -> ModelOutput:
        loc, log_var = self.layers(x).chunk(2, dim=-1)
        return ModelOutput(embedding=loc, log_covariance=log_var)


class _Decoder(BaseDecoder):
    def __init__(self, case: Case) -> None:
        super().__init__()
        self.layers = network(case.decoder, case, initial_weights(case.decoder, 2))
        self.binary = case.likelihood == "bernoulli"

    def forward(self, z: torch.Tensor) -> ModelOutput:
        out = self.layers(z)
        return ModelOutput(reconstruction=torch.sigmoid(out) if self.binary else out)


class _Epochs(TrainingCallback):
    def __init__(self, gate: Gate, loss: Any, begin: Callable[[int], None]) -> None:
        self.gate, self.loss, self.begin = gate, loss, begin

    def on_epoch_begin(self, training_config: Any, epoch: int, **others: Any) -> None:
        self.gate.begin()
        self.begin(epoch)

    def on_epoch_end(self, training_config: Any, **others: Any) -> None:
        self.gate.end(self.loss)


def _model(case: Case, shape: tuple[int, ...]) -> BaseAE:
    options = {
        "input_dim": shape,
        "latent_dim": case.latent_size,
        "reconstruction_loss": "bce" if case.likelihood == "bernoulli" else "mse",
    }
    networks = {"encoder": _Encoder(case), "decoder": _Decoder(case)}
    if case.num_samples > 1 and case.task == "fit":
        return IWAE(IWAEConfig(number_samples=case.num_samples, **options), **networks)
    return VAE(VAEConfig(**options), **networks)


def _bound(case: Case, model: BaseAE, x: torch.Tensor) -> float:
    """The objective in nats: Pythae leaves out a constant, and for IWAE reports a surrogate."""
    constant = 0.0 if case.likelihood == "bernoulli" else 0.5 * x[0].numel() * math.log(2 * math.pi)
    with torch.no_grad():
        if case.num_samples == 1:
            return float(model({"data": x}).loss) + constant
        encoded = model.encoder(x)
        loc, scale = encoded.embedding, torch.exp(0.5 * encoded.log_covariance)
        q = torch.distributions.Normal(loc, scale)
        z = q.sample((case.num_samples,))
        p = torch.distributions.Normal(0.0, 1.0)
        probabilities = model.decoder(z.reshape(-1, case.latent_size)).reconstruction
        likelihood = torch.distributions.Bernoulli(
            probabilities.reshape(case.num_samples, *x.shape)
        )
        log_w = likelihood.log_prob(x).sum(-1) + (p.log_prob(z) - q.log_prob(z)).sum(-1)
        return math.log(case.num_samples) - float(torch.logsumexp(log_w, 0).mean())


def trainer(case: Case, x: np.ndarray, gate: Gate) -> None:
    """`BaseTrainer.train`."""
    given = case.split(x)[0]
    rows, checked = (channels_first(case, part) for part in case.split(x))
    model = _model(case, tuple(rows.shape[1:]))
    config = BaseTrainerConfig(
        output_dir=tempfile.mkdtemp(),
        learning_rate=case.learning_rate,
        optimizer_params={"betas": (BETA_1, BETA_2), "eps": EPSILON},
        seed=case.seed,
        scheduler_cls="CosineAnnealingLR" if case.decay else None,
        scheduler_params={"T_max": case.decay} if case.decay else None,
        per_device_train_batch_size=case.batch,
        num_epochs=_FOREVER,
        no_cuda=True,
    )

    def loss(measured: Case, x: torch.Tensor, seed: int) -> float:
        return _bound(measured, model, x)

    dataset = BaseDataset(rows, torch.ones(len(rows)))

    def begin(epoch: int) -> None:
        if case.binarise:
            dataset.data = torch.from_numpy(presented(case, given, epoch))

    callback = _Epochs(gate, lambda: held_out_loss(case, loss, checked), begin)
    BaseTrainer(model, dataset, training_config=config, callbacks=[callback]).train()


def evidence(case: Case, x: np.ndarray, gate: Gate, rows_at_once: int = 100) -> None:
    """`get_nll` with its default of 100 draws at once."""
    rows = channels_first(case, x)
    model = _model(case, tuple(rows.shape[1:])).eval()
    while True:
        gate.begin()
        with torch.no_grad():
            value = model.get_nll(rows, n_samples=case.num_samples, batch_size=rows_at_once)
        gate.end(lambda value=value: -float(value))


def wide_evidence(case: Case, x: np.ndarray, gate: Gate) -> None:
    """`get_nll` with 1 000 draws at once, which is faster."""
    evidence(case, x, gate, rows_at_once=1000)


SYSTEMS = {
    ("fit", "pythae"): trainer,
    ("evidence", "pythae"): evidence,
    ("evidence", "pythae_wide"): wide_evidence,
}
