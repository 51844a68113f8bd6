"""`models.config` of TensorFlow Serving: the models to serve, their versions and labels."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from google.protobuf import text_format
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from serving.errors import ServingError

__all__ = ["Policy", "read_config"]


@dataclass(frozen=True)
class Policy:
    """Rule that selects the versions of a model to serve.

    Attributes:
        latest: number of newest versions, or None for all.
        specific: only these versions, if any are given.
        labels: version by label.
    """

    latest: int | None = 1
    specific: tuple[int, ...] = ()
    labels: dict[str, int] = field(default_factory=dict)

    def choose(self, numbers: list[int]) -> list[int]:
        """Selects the versions to serve from those on disk (ascending)."""
        if self.specific:
            return [number for number in numbers if number in self.specific]
        return numbers if self.latest is None else numbers[-self.latest :]


def read_config(path: Path, root: Path) -> dict[str, tuple[Path, Policy]]:
    """Reads directory and policy of each model, by name.

    A base path is a path inside the container of TensorFlow Serving: its last component is looked
    up below `root`.

    Raises:
        ServingError: if the file cannot be read or names a missing directory.
    """
    try:
        config = text_format.Parse(path.read_text(), ModelServerConfig())
    except (OSError, UnicodeDecodeError) as error:
        raise ServingError(f"{path} cannot be read: {error}.") from error
    except text_format.ParseError as error:
        raise ServingError(f"{path} is not a models.config: {error}") from error
    models = {}
    for entry in config.model_config_list.config:
        directory = root / Path(entry.base_path).name
        if not entry.name or not directory.is_dir() or directory.parent != root:
            raise ServingError(
                f"{path}: the model {entry.name!r} has the base path {entry.base_path!r}, expected "
                f"one whose last component is a directory of {root}."
            )
        policy = entry.model_version_policy
        kind = policy.WhichOneof("policy_choice")
        models[entry.name] = (
            directory,
            Policy(
                None if kind == "all" else max(1, policy.latest.num_versions),
                tuple(policy.specific.versions) if kind == "specific" else (),
                dict(entry.version_labels),
            ),
        )
    if not models:
        raise ServingError(f"{path} names no model.")
    return models
