"""Configuration files and flags of one TensorFlow Serving process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from serving.deploy.configuration_pb2 import BatchingParameters, MonitoringConfig, SSLConfig
from serving.deploy.deployment import Deployment, Model
from serving.errors import ServingError

__all__ = [
    "CONFIG",
    "GRPC",
    "METRICS",
    "MODELS",
    "MODELS_CONFIG",
    "REST",
    "SSL_CONFIG",
    "arguments",
    "files",
    "parse_models",
    "ready",
    "render_models",
    "ssl_config",
]

GRPC, REST = 8500, 8501
"""Ports."""

METRICS = "/monitoring/prometheus/metrics"
"""Path of the metrics on the REST port."""

CONFIG, MODELS = "/config", "/models"
"""Directory of the configuration and the artifacts on the server."""

SSL_CONFIG = "/run/secrets/ssl.config"
"""Directory of the key pair on the server."""

MODELS_CONFIG = "models.config"

_TIMEOUT_MICROS = 1000
_QUEUE = 100


def files(deployment: Deployment) -> dict[str, str]:
    """Renders each configuration file, by name."""
    return {
        MODELS_CONFIG: render_models(models_config(deployment)),
        "batching.config": text_format.MessageToString(_batching(deployment)),
        "monitoring.config": text_format.MessageToString(_monitoring()),
        "ready.sh": (Path(__file__).parent / "ready.sh").read_text(),
    }


def models_config(deployment: Deployment) -> ModelServerConfig:
    """Makes the message with names, paths, version policies and labels of the models."""
    config = ModelServerConfig()
    for model in deployment.models:
        entry = config.model_config_list.config.add()
        entry.name = model.name
        entry.base_path = f"{MODELS}/{model.name}"
        entry.model_platform = "tensorflow"
        _set_versions(entry, model)
    return config


def parse_models(text: str) -> ModelServerConfig:
    """Parses the text of a `models.config`.

    Raises:
        ServingError: if it is not a ModelServerConfig.
    """
    try:
        return text_format.Parse(text, ModelServerConfig())
    except text_format.ParseError as error:
        raise ServingError(
            f"{MODELS_CONFIG} is not a ModelServerConfig ({error}); servers keep the one they "
            "read. Restore the file."
        ) from error


def render_models(config: ModelServerConfig) -> str:
    """Renders the text of a `models.config`."""
    return text_format.MessageToString(config)


def arguments(deployment: Deployment, *, connection_age: bool = False) -> list[str]:
    """Returns the command line of the server, program included.

    Args:
        deployment: what the server serves.
        connection_age: close gRPC connections after five minutes, so that clients find servers that
            were added meanwhile.
    """
    settings = deployment.settings
    flags: dict[str, Any] = {
        "port": GRPC,
        "rest_api_port": REST,
        "rest_api_timeout_in_ms": 30000,
        "model_config_file": f"{CONFIG}/{MODELS_CONFIG}",
        "model_config_file_poll_wait_seconds": settings.poll_seconds,
        "file_system_poll_wait_seconds": settings.poll_seconds,
        "allow_version_labels_for_unavailable_models": "true",
        "enable_batching": "true",
        "batching_parameters_file": f"{CONFIG}/batching.config",
        "monitoring_config_file": f"{CONFIG}/monitoring.config",
        "tensorflow_intra_op_parallelism": settings.cpus,
        "tensorflow_inter_op_parallelism": settings.cpus,
    }
    if settings.tls is not None:
        flags["ssl_config_file"] = SSL_CONFIG
    if connection_age:
        flags["grpc_channel_arguments"] = "grpc.max_connection_age_ms=300000"
    return [
        "/usr/bin/tensorflow_model_server",
        *(f"--{name}={value}" for name, value in flags.items()),
    ]


def ready(deployment: Deployment) -> list[str]:
    """Returns a command in the image that succeeds once a version of every model answers."""
    return ["/bin/bash", f"{CONFIG}/ready.sh", str(REST), *deployment.names]


def ssl_config(key: str, certificate: str, authority: str | None) -> str:
    """Renders an `ssl_config_file`, which holds the key itself, not its path.

    Args:
        key: private key of the server, PEM.
        certificate: its certificate chain, PEM.
        authority: certificate that callers' certificates must be signed by, PEM; None to accept any
            caller.
    """
    message = SSLConfig(server_key=key, server_cert=certificate)
    if authority is not None:
        message.custom_ca, message.client_verify = authority, True
    return text_format.MessageToString(message)


def _set_versions(entry: Any, model: Model) -> None:
    if model.versions:
        entry.model_version_policy.specific.versions.extend(model.versions)
    else:
        entry.model_version_policy.latest.num_versions = 1
    for label, version in model.labels.items():
        entry.version_labels[label] = version


def _batching(deployment: Deployment) -> Any:
    sizes = deployment.batch_sizes
    message = BatchingParameters(allowed_batch_sizes=sizes)
    message.max_batch_size.value = sizes[-1]
    message.batch_timeout_micros.value = _TIMEOUT_MICROS
    message.max_enqueued_batches.value = _QUEUE
    message.num_batch_threads.value = deployment.settings.cpus
    message.thread_pool_name.value = "batches"
    return message


def _monitoring() -> Any:
    message = MonitoringConfig()
    message.prometheus_config.enable = True
    message.prometheus_config.path = METRICS
    return message
