"""Callbacks: schedules that move a variable of the objective, and the backup of a training."""

import abc
import importlib
from typing import Any, Literal

import keras

from keras_vae.arguments import as_count, as_weight
from keras_vae.objectives import Objective
from keras_vae.training.backup import Backup as Backup

__all__ = ["Backup", "CyclicalSchedule", "LinearSchedule", "OptunaPruning"]

Schedulable = Literal["beta", "capacity"]


class _Schedule(keras.callbacks.Callback, abc.ABC):
    """Schedule that sets a variable of `model.objective` before each step, from the epochs passed.

    The value is a function of the epoch alone, so a resumed training continues the schedule; the
    variable itself is saved with the model.
    """

    def __init__(self, variable: Schedulable, start: float, stop: float) -> None:
        super().__init__()
        self.variable = variable
        self.start = as_weight("start", start)
        self.stop = as_weight("stop", stop)

    @abc.abstractmethod
    def value_at(self, epochs_passed: float) -> float:
        """Returns the variable's value after that many epochs."""

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Refuses an objective without the variable, and a schedule that cannot finish."""
        objective: Objective = self.model.objective
        if self.variable not in objective.schedulable:
            have = ", ".join(objective.schedulable) or "none"
            hint = " Give ELBO(capacity=...) a value first." if self.variable == "capacity" else ""
            raise ValueError(
                f"{type(self).__name__} moves {self.variable!r}, and the schedulable variables of "
                f"{type(objective).__name__} are: {have}.{hint}"
            )
        needed = self.epochs_needed
        if needed > self.params["epochs"]:
            raise ValueError(
                f"The schedule of {self.variable} needs {needed:g} epochs, but fit was asked for "
                f"{self.params['epochs']}: it would end at "
                f"{self.value_at(self.params['epochs']):g} instead of {self.stop:g}. Train longer "
                "or shorten the schedule."
            )

    @property
    @abc.abstractmethod
    def epochs_needed(self) -> float:
        """Number of epochs until the variable reaches its last value."""

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Sets the value of the epoch's first step."""
        self._epoch = epoch
        self._assign(float(epoch))

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Sets the value of the next step, if the number of steps is known."""
        if self.params.get("steps"):
            self._assign(self._epoch + batch / self.params["steps"])

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Sets the value reached, before anything is saved."""
        self._assign(epoch + 1.0)

    def _assign(self, epochs_passed: float) -> None:
        self.model.objective.schedulable[self.variable].assign(self.value_at(epochs_passed))


class LinearSchedule(_Schedule):
    """Schedule that moves from `start` to `stop` in a straight line, then stays there.

    For KL warm-up: Bowman et al. (2016), arXiv:1511.06349. For capacity: Burgess et al. (2018),
    arXiv:1804.03599.

    Args:
        variable: "beta" or "capacity".
        start: first value.
        stop: last value.
        epochs: epochs until the last value, positive; `fit` must run for at least as many.

    Raises:
        ValueError: if a number is out of range, or when training begins and would end too early.

    Example:
        >>> warm_up = LinearSchedule("beta", start=0.0, stop=1.0, epochs=10)
        >>> [warm_up.value_at(epochs) for epochs in (0, 5, 10, 20)]
        [0.0, 0.5, 1.0, 1.0]

        `vae.fit(x, epochs=20, callbacks=[warm_up])` trains with it.
    """

    def __init__(
        self, variable: Schedulable, *, start: float = 0.0, stop: float = 1.0, epochs: float
    ) -> None:
        super().__init__(variable, start, stop)
        self.epochs = as_weight("epochs", epochs)
        if self.epochs == 0.0:
            raise ValueError("Expected a positive number of epochs; got 0.")

    @property
    def epochs_needed(self) -> float:
        """Number of epochs until the last value."""
        return self.epochs

    def value_at(self, epochs_passed: float) -> float:
        """Returns the variable's value after that many epochs."""
        return self.start + (self.stop - self.start) * min(1.0, epochs_passed / self.epochs)


class CyclicalSchedule(_Schedule):
    """Schedule of repeated lines from `start` to `stop`, each followed by a constant stretch.

    Source: Fu et al. (2019), Cyclical annealing schedule, arXiv:1903.10145.

    Args:
        variable: "beta" or "capacity".
        start: value at the beginning of each cycle.
        stop: value at the end of each rise, and after the last cycle.
        cycle_epochs: epochs of one cycle, positive.
        cycles: number of cycles.
        rise: fraction of a cycle spent rising, in (0, 1].

    Raises:
        ValueError: if a number is out of range, or when training begins and would end too early.

    Example:
        >>> cycles = CyclicalSchedule("beta", cycle_epochs=10, cycles=2)
        >>> [cycles.value_at(epochs) for epochs in (0, 2.5, 5, 9, 10, 12.5, 20)]
        [0.0, 0.5, 1.0, 1.0, 0.0, 0.5, 1.0]
    """

    def __init__(
        self,
        variable: Schedulable,
        *,
        start: float = 0.0,
        stop: float = 1.0,
        cycle_epochs: float,
        cycles: int = 4,
        rise: float = 0.5,
    ) -> None:
        super().__init__(variable, start, stop)
        self.cycle_epochs = as_weight("cycle_epochs", cycle_epochs)
        self.rise = as_weight("rise", rise)
        if not (self.cycle_epochs > 0.0 and 0.0 < self.rise <= 1.0):
            raise ValueError(
                "Expected positive cycle_epochs and rise in (0, 1]; got "
                f"cycle_epochs={cycle_epochs!r}, rise={rise!r}."
            )
        self.cycles = as_count("cycles", cycles, least=1)

    @property
    def epochs_needed(self) -> float:
        """Number of epochs until the last cycle has risen."""
        return self.cycle_epochs * (self.cycles - 1 + self.rise)

    def value_at(self, epochs_passed: float) -> float:
        """Returns the variable's value after that many epochs."""
        cycle, passed = divmod(epochs_passed, self.cycle_epochs)
        if cycle >= self.cycles:
            return self.stop
        fraction = min(1.0, passed / (self.rise * self.cycle_epochs))
        return self.start + (self.stop - self.start) * fraction


class OptunaPruning(keras.callbacks.Callback):
    """Report of the held-out bound to a trial of Optuna, which ends a training that is behind.

    After each epoch the trial gets `val_elbo`, whatever the loss is: the loss of another beta is
    another quantity, so trials cannot be compared by it. If the pruner of the study says so,
    `optuna.TrialPruned` ends the training. Training runs at full speed.

    Args:
        trial: trial of a study that maximises one value.

    Raises:
        ValueError: if the study minimises, or `fit` has no validation data.

    Example:
        >>> import keras_vae, numpy as np, optuna
        >>> optuna.logging.set_verbosity(optuna.logging.WARNING)
        >>> x = np.random.default_rng(0).normal(size=(64, 3)).astype("float32")
        >>> def objective(trial):
        ...     vae = keras_vae.mlp_vae(
        ...         3, trial.suggest_int("latents", 1, 2), "normal", hidden=(4,)
        ...     )
        ...     vae.compile()
        ...     pruning = OptunaPruning(trial)
        ...     history = vae.fit(x, validation_data=x, callbacks=[pruning], verbose=0).history
        ...     return history["val_elbo"][-1]
        >>> study = optuna.create_study(direction="maximize")
        >>> study.optimize(objective, n_trials=1)
        >>> len(study.trials)
        1
    """

    def __init__(self, trial: Any) -> None:
        super().__init__()
        self.trial = trial
        study = getattr(trial, "study", None)
        if study is not None and study.direction.name != "MAXIMIZE":
            raise ValueError(
                "OptunaPruning reports val_elbo, which is higher for better models, and this study "
                'minimises: make it with optuna.create_study(direction="maximize").'
            )

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Reports the bound, and ends the training if the pruner says so."""
        value = (logs or {}).get("val_elbo")
        if value is None:
            raise ValueError(
                "OptunaPruning expects val_elbo after each epoch; got none. Give fit "
                "validation_data."
            )
        self.trial.report(float(value), epoch)
        if self.trial.should_prune():
            pruned = importlib.import_module("optuna").TrialPruned
            raise pruned(f"val_elbo was {value:.2f} nats after epoch {epoch + 1}.")
