"""Settings of a run about the objective and the training."""

from __future__ import annotations

from dataclasses import dataclass

from keras_vae.runs.setting import setting

__all__ = ["TrainingSettings"]


@dataclass(frozen=True)
class TrainingSettings:
    """Settings about the training.

    Attributes:
        objective: "elbo" or "iwae".
        num_samples: draws per example.
        gradient: estimator, see `keras_vae.estimators`.
        kl: "analytic", "monte_carlo", or empty for the closed form if there is one.
        beta: weight of the rate.
        free_bits: nats per latent that are free.
        warmup_epochs: epochs in which beta rises linearly from 0.
        epochs: epochs of training. "auto" is 20, or as many as make 2000 steps if these are more,
            but at most 500, and is stored as that number.
        batch_size: examples per step.
        learning_rate: learning rate of Adam in the first epoch. "auto" is 1e-3, or 3e-3 if it falls
            because "auto" makes more than 20 epochs, and is stored as that number.
        learning_rate_schedule: "steps" at milestones, or "cosine", which falls to 0 over epochs.
            "auto" is "cosine" if "auto" makes more than 20 epochs and there are no milestones,
            otherwise "steps", and is stored as one of these.
        learning_rate_milestones: epochs after which the learning rate falls, ascending.
        learning_rate_decay: factor of the learning rate at each milestone.
        adam_beta_1: decay of Adam's mean of gradients.
        adam_epsilon: number that Adam adds to the root of the mean square. A loss here is a mean
            over the batch; if a paper's is a sum, divide its number by the batch size.
        output_bias: "zeros", or "data_mean": the decoder's mean starts at that of the training set;
            "auto" is "data_mean" for counts and levels under Dense layers, otherwise "zeros", and
            is stored as one of these.
        monitor: whether to log the use of the latents, see `keras_vae.training.monitor`.
        seed: seed of initial weights, order, noise and test split.
    """

    objective: str = setting("elbo", choices=("elbo", "iwae"))
    num_samples: int = setting(1, "Draws per example.", interval="[1, inf)")
    gradient: str = setting(
        "pathwise", choices=("pathwise", "sticking_the_landing", "doubly_reparameterized")
    )
    kl: str = setting(
        "",
        "Rate in closed form or estimated.",
        choices=("", "analytic", "monte_carlo"),
        only=("objective", ("elbo",)),
    )
    beta: float = setting(
        1.0, "Weight of the rate.", interval="[0, inf)", only=("objective", ("elbo",))
    )
    free_bits: float = setting(
        0.0, "Nats per latent that are free.", interval="[0, inf)", only=("objective", ("elbo",))
    )
    warmup_epochs: float = setting(
        0.0,
        "Epochs in which beta rises from 0.",
        interval="[0, inf)",
        only=("objective", ("elbo",)),
    )
    epochs: int | str = setting(
        "auto",
        "auto is 20, or as many as make 2000 steps if these are more, but at most 500.",
        choices=("auto",),
        interval="[1, inf)",
    )
    batch_size: int = setting(100, interval="[1, inf)")
    learning_rate: float | str = setting(
        "auto",
        "Of Adam; auto is 0.001, or 0.003 where auto chooses cosine.",
        choices=("auto",),
        interval="(0, inf)",
    )
    learning_rate_schedule: str = setting(
        "auto",
        "cosine falls to 0 over the epochs; auto is cosine where auto makes more than 20 epochs.",
        choices=("auto", "steps", "cosine"),
    )
    learning_rate_milestones: tuple[int, ...] = setting(
        (), "Epochs after which it falls, as in 30,40.", only=("learning_rate_schedule", ("steps",))
    )
    learning_rate_decay: float = setting(
        0.1, "Its factor there.", interval="(0, 1]", only=("learning_rate_milestones", None)
    )
    adam_beta_1: float = setting(0.9, interval="[0, 1)")
    adam_epsilon: float = setting(1e-7, interval="(0, inf)")
    output_bias: str = setting(
        "auto",
        "Where the decoder's mean starts; auto is data_mean for counts and levels.",
        choices=("auto", "zeros", "data_mean"),
    )
    monitor: bool = setting(
        False, "Log what the latents carry, too.", only=("latents", ("vector", "codes"))
    )
    seed: int = setting(0, interval="[0, 2147483647]")
