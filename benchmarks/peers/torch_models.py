"""The models of the cases in PyTorch: modules whose call is the loss of a batch.

Images have their channels first. At an odd end PyTorch pads in front and Keras behind, so images
and kernels are mirrored, which is the same model.
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from benchmarks.peers.cases import (
    CODE_SIZE,
    CODES,
    COMMITMENT,
    COUPLINGS,
    DECAY,
    FORGOTTEN,
    LARGEST_LOG_SCALE,
    LLOYD_STEPS,
    LOG_SOFTPLUS_ONE,
    REVIVE,
    SMALLEST_SCALE,
    Case,
    Layer,
    all_weights,
    orders,
    sampled_rows,
)

softplus = nn.functional.softplus


def network(
    layers: list[Layer], case: Case, weights: list[tuple[np.ndarray, np.ndarray]]
) -> nn.Sequential:
    """The layers with these weights."""
    modules: list[nn.Module] = []
    activation = nn.ReLU if case.convolutional else nn.Tanh
    before: Layer | None = None
    for layer, after, (kernel, bias) in zip(layers, [*layers[1:], None], weights, strict=True):
        module: nn.Module
        if layer.kind == "dense":
            if before is not None and before.kind != "dense":
                modules.append(nn.Flatten())
                kernel = kernel[_image(before.rows, before.outputs)]
            if after is not None and after.kind != "dense":
                order = _image(after.rows, after.inputs)
                kernel, bias = kernel[:, order], bias[order]
            module = nn.Linear(layer.inputs, layer.outputs)
        elif layer.kind == "pointwise":
            module = nn.Linear(layer.inputs, layer.outputs)
        elif layer.kind == "conv":
            module = nn.Conv2d(layer.inputs, layer.outputs, 3, layer.stride, padding=1)
        else:
            if before is not None and before.kind == "dense":
                modules.append(nn.Unflatten(1, (layer.inputs, layer.rows, layer.rows)))
            module = nn.ConvTranspose2d(
                layer.inputs, layer.outputs, 3, 2, padding=1, output_padding=1
            )
        before = layer
        with torch.no_grad():
            module.weight.copy_(torch.from_numpy(_transposed(kernel)))
            module.bias.copy_(torch.from_numpy(bias))
        modules.append(module)
        if not layer.is_head:
            modules.append(activation())
    return nn.Sequential(*modules)


def _transposed(kernel: np.ndarray) -> np.ndarray:
    """A kernel of Keras as PyTorch has it."""
    if kernel.ndim == 2:
        return kernel.T.copy()
    return kernel[::-1, ::-1].transpose(3, 2, 0, 1).copy()


def _image(rows: int, channels: int) -> np.ndarray:
    """Returns the place in Keras' image of each number of a mirrored one, channels first."""
    places = np.arange(rows * rows * channels).reshape(rows, rows, channels)
    return places[::-1, ::-1].transpose(2, 0, 1).ravel()


def channels_first(case: Case, x: np.ndarray) -> torch.Tensor:
    """The data as PyTorch's convolutions take it."""
    if not case.convolutional:
        return torch.from_numpy(x)
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(x[:, ::-1, ::-1], -1, 1)))


def _normal(raw: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Centre and scale from the raw numbers of a head."""
    loc, scale = raw.chunk(2, dim=-1)
    return loc, softplus(scale + LOG_SOFTPLUS_ONE) + SMALLEST_SCALE


class Loss(nn.Module):
    """Networks of a case; a call is the mean loss of a batch, in nats."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.case = case
        weights = all_weights(case)
        self.networks = nn.ModuleDict(
            {name: network(layers, case, weights[name]) for name, layers in case.networks.items()}
        )

    def start(self, x: torch.Tensor) -> None:
        """Prepares for the first step, of which x is the batch."""

    def noise(self, batch: int) -> list[torch.Tensor]:
        """Noise of each latent."""
        return [torch.randn(shape) for shape in self.case.noise_shapes(batch)]

    def distortion(self, x: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        """-log p(x | z) of each draw, out being [k * B, ...]."""
        out = out.reshape(self.case.num_samples, *x.shape)
        if self.case.likelihood == "bernoulli":
            each = nn.functional.binary_cross_entropy_with_logits(
                out, x.expand_as(out), reduction="none"
            )
        else:
            each = 0.5 * (x - out) ** 2 + 0.5 * math.log(2 * math.pi)
        return each.flatten(2).sum(-1)


class VAE(Loss):
    """A VAE with a standard normal prior, or with a flow."""

    def __init__(self, case: Case) -> None:
        super().__init__(case)
        if case.model == "flow":
            order = orders(case)
            for index, (before, now) in enumerate(itertools.pairwise([order[0], *order])):
                self.register_buffer(f"order_{index}", torch.from_numpy(before.argsort()[now]))

    def forward(self, x: torch.Tensor, noise: Sequence[torch.Tensor] | None = None) -> torch.Tensor:
        """Mean loss."""
        case = self.case
        loc, scale = _normal(self.networks["encoder"](x))
        (own,) = self.noise(len(x)) if noise is None else noise
        z = loc + scale * own
        decoded = self.networks["decoder"](z.reshape(-1, case.latent_size))
        distortion = self.distortion(x, decoded)
        if case.model == "vae" and case.num_samples == 1:
            rate = (0.5 * (loc**2 + scale**2 - 1) - torch.log(scale)).sum(-1)
            return (distortion[0] + rate).mean()
        log_q = (-0.5 * own**2 - torch.log(scale)).sum(-1)
        log_p = (-0.5 * z**2).sum(-1) if case.model == "vae" else self._flow(z)
        log_w = log_p - log_q - distortion
        if case.num_samples == 1:
            return -log_w.mean()
        return math.log(case.num_samples) - torch.logsumexp(log_w, dim=0).mean()

    def _flow(self, z: torch.Tensor) -> torch.Tensor:
        """log p(z) of a flow prior, without the constant of the normal distribution."""
        half, log_det = self.case.latent_size // 2, 0.0
        for index in range(COUPLINGS):
            if index:
                z = z[..., getattr(self, f"order_{index}")]
            kept, moved = z[..., :half], z[..., half:]
            shift, log_scale = self.networks[f"coupling_{index}"](kept).chunk(2, dim=-1)
            log_scale = LARGEST_LOG_SCALE * torch.tanh(log_scale / LARGEST_LOG_SCALE)
            z = torch.cat([kept, moved * torch.exp(log_scale) + shift], dim=-1)
            log_det = log_det + log_scale.sum(-1)
        return (-0.5 * z**2).sum(-1) + log_det


class Ladder(Loss):
    """A ladder: each q is the product of the prior and of what x suggests."""

    def forward(self, x: torch.Tensor, noise: Sequence[torch.Tensor] | None = None) -> torch.Tensor:
        """Mean loss."""
        state, features, found = x, x, {}
        for level in range(len(self.case.levels), 0, -1):
            features = found[level] = self.networks[f"up_{level}"](features)
        prior_loc, prior_scale, loss = torch.zeros(()), torch.ones(()), torch.zeros(())
        for level, own in enumerate(self.noise(len(x)) if noise is None else noise, 1):
            loc, scale = _normal(self.networks[f"q_{level}"](found[level]))
            if level > 1:
                prior_loc, prior_scale = _normal(self.networks[f"p_{level}"](state))
            total = scale**2 + prior_scale**2
            loc = prior_loc + prior_scale**2 / total * (loc - prior_loc)
            scale = scale * prior_scale * torch.rsqrt(total)
            ratio, shift = scale / prior_scale, (loc - prior_loc) / prior_scale
            loss = loss + (0.5 * (ratio**2 + shift**2 - 1) - torch.log(ratio)).sum(-1)
            state = self.networks[f"down_{level}"](loc + scale * own[0])
        return (loss + self.distortion(x, self.networks["decoder"](state))[0]).mean()


class Codes(Loss):
    """A VQ-VAE, whose book and scale move with the batches."""

    def __init__(self, case: Case) -> None:
        super().__init__(case)
        for name, shape in (
            ("book", (CODES, CODE_SIZE)),
            ("counts", (CODES,)),
            ("totals", (CODES, CODE_SIZE)),
            ("updates", ()),
            ("seen", ()),
        ):
            dtype = torch.int64 if name == "updates" else torch.float32
            self.register_buffer(name, torch.zeros(shape, dtype=dtype))
        self.register_buffer("deviation", torch.ones(()))
        self.register_buffer("places", _places(case.batch, case.latent_size // CODE_SIZE))

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Features of each position, [B, h, w, code_size]."""
        image = self.networks["encoder"](x)
        return self.networks["features"](image.permute(0, 2, 3, 1))

    @torch.no_grad()
    def start(self, x: torch.Tensor) -> None:
        """Starts the book from the k-means of the features."""
        rows = self._some_of(self.features(x))
        book = rows[:: len(rows) // CODES]
        for _ in range(LLOYD_STEPS):
            one_hot = nn.functional.one_hot(_nearest(rows, book), CODES).to(rows.dtype)
            counts = one_hot.sum(0)[:, None]
            book = torch.where(counts > 0, one_hot.T @ rows / counts.clamp(min=1), book)
        self.book.copy_(book)

    def forward(self, x: torch.Tensor, noise: Sequence[torch.Tensor] | None = None) -> torch.Tensor:
        """Mean loss; in training mode the averages move."""
        features = self.features(x)
        rows = features.reshape(-1, CODE_SIZE)
        chosen = _nearest(rows.detach(), self.book)
        nearest = self.book[chosen]
        commitment = COMMITMENT * ((nearest - rows) ** 2).sum() / len(x)
        z = (rows + (nearest - rows).detach()).reshape(features.shape)
        residual = x - self.networks["decoder"](z.permute(0, 3, 1, 2))
        scale = torch.sqrt(self.deviation) + SMALLEST_SCALE
        each = 0.5 * (residual / scale) ** 2 + torch.log(scale) + 0.5 * math.log(2 * math.pi)
        rate = features[0, ..., 0].numel() * math.log(CODES)
        if self.training:
            self._move(features.detach(), chosen)
            self._spread(residual.detach())
        return each.sum() / len(x) + rate + commitment

    @torch.no_grad()
    def _move(self, features: torch.Tensor, chosen: torch.Tensor) -> None:
        """The vectors become means of the rows that chose them; a rare one moves to a row."""
        rows = features.reshape(-1, CODE_SIZE)
        one_hot = nn.functional.one_hot(chosen, CODES).to(rows.dtype)
        counts = DECAY * self.counts + (1 - DECAY) * one_hot.sum(0)
        totals = DECAY * self.totals + (1 - DECAY) * one_hot.T @ rows
        least = REVIVE * counts.mean()
        is_dead = counts < least
        spare = self._some_of(features)
        picks = self.updates + (torch.cumsum(is_dead, 0) - 1) * (len(spare) // CODES)
        counts = torch.where(is_dead, least, counts)
        totals = torch.where(is_dead[:, None], spare[picks % len(spare)] * least, totals)
        self.book.copy_(totals / counts[:, None])
        self.counts.copy_(counts)
        self.totals.copy_(totals)
        self.updates.add_(1)

    @torch.no_grad()
    def _spread(self, residual: torch.Tensor) -> None:
        """The mean squared error over about the last hundred batches."""
        count, error = len(residual), (residual**2).flatten(1).mean(1).sum()
        self.seen.mul_(1 - FORGOTTEN).add_(count)
        self.deviation.add_((error - count * self.deviation) / self.seen)

    def _some_of(self, features: torch.Tensor) -> torch.Tensor:
        """Rows at equal distances of the features of a batch."""
        return features.reshape(-1, CODE_SIZE)[self.places]


def _places(batch: int, positions: int) -> torch.Tensor:
    """Places of the rows of a code book's start, which mirrored images have in another order."""
    places = torch.from_numpy(sampled_rows(batch * positions)).long()
    return places - 2 * (places % positions) + positions - 1


def _nearest(rows: torch.Tensor, book: torch.Tensor) -> torch.Tensor:
    return torch.argmin(0.5 * (book**2).sum(-1) - rows @ book.T, dim=-1)


MODELS = {"vae": VAE, "flow": VAE, "ladder": Ladder, "codes": Codes}
