"""Compose file: TensorFlow Serving on one machine, and Prometheus and Grafana beside it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from serving.deploy import server
from serving.deploy.deployment import Deployment

__all__ = ["USER", "compose"]

USER = "10001:10001"
"""User and group that the server runs as; the image has no such account."""

_PROMETHEUS = "prom/prometheus:v3.16.0"
_GRAFANA = "grafana/grafana:13.2.2"


def compose(deployment: Deployment, directory: Path) -> dict[str, Any]:
    """Renders the compose file.

    Args:
        deployment: what is served.
        directory: where the file will be; its paths are relative to that directory.
    """
    settings = deployment.settings
    serving: dict[str, Any] = {
        "image": settings.image,
        "entrypoint": server.arguments(deployment),
        "command": [],
        "user": USER,
        "ports": [
            _port(server.GRPC, "0.0.0.0" if settings.tls else "127.0.0.1"),
            _port(server.REST, "127.0.0.1"),
        ],
        "volumes": [
            _mount("./server", server.CONFIG),
            _mount(_relative(deployment.artifacts, directory), server.MODELS),
        ],
        "healthcheck": {
            "test": ["CMD", *server.ready(deployment)],
            "interval": "10s",
            "timeout": "5s",
            "retries": 3,
            "start_period": "120s",
            "start_interval": "2s",
        },
        "stop_grace_period": "30s",
        **_hardened(settings.cpus, settings.memory_mib),
    }
    document: dict[str, Any] = {"name": "serving", "services": {"serving": serving}}
    if settings.tls is not None:
        serving["secrets"] = [{"source": "ssl_config", "target": server.SSL_CONFIG}]
        path = os.path.abspath(settings.tls)
        document["secrets"] = {"ssl_config": {"file": path}}
    document["services"] |= _monitoring()
    document["volumes"] = {"prometheus": {}, "grafana": {}}
    return _escaped(document)


def _monitoring() -> dict[str, Any]:
    profile = {"profiles": ["monitoring"]}
    return {
        "prometheus": {
            **profile,
            "image": _PROMETHEUS,
            "command": [
                "--config.file=/etc/prometheus/prometheus.yml",
                "--storage.tsdb.path=/prometheus",
                "--storage.tsdb.retention.time=15d",
            ],
            "ports": [_port(9090, "127.0.0.1")],
            "volumes": [
                _mount("./prometheus", "/etc/prometheus"),
                {"type": "volume", "source": "prometheus", "target": "/prometheus"},
            ],
            **_hardened(1, 1024),
        },
        "grafana": {
            **profile,
            "image": _GRAFANA,
            "environment": {
                "GF_AUTH_ANONYMOUS_ENABLED": "true",
                "GF_AUTH_ANONYMOUS_ORG_ROLE": "Viewer",
                "GF_AUTH_DISABLE_LOGIN_FORM": "true",
                "GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION": "true",
                "GF_ANALYTICS_REPORTING_ENABLED": "false",
                "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
            },
            "ports": [_port(3000, "127.0.0.1")],
            "volumes": [
                _mount("./grafana/provisioning", "/etc/grafana/provisioning"),
                _mount("./grafana/dashboards", "/etc/grafana/dashboards"),
                {"type": "volume", "source": "grafana", "target": "/var/lib/grafana"},
            ],
            "depends_on": ["prometheus"],
            **_hardened(1, 1024),
        },
    }


def _hardened(cpus: int, memory_mib: int) -> dict[str, Any]:
    return {
        "init": True,
        "read_only": True,
        "tmpfs": ["/tmp"],
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "restart": "unless-stopped",
        "deploy": {
            "resources": {
                "limits": {"cpus": str(cpus), "memory": f"{memory_mib}M", "pids": 1024},
            }
        },
        "logging": {"driver": "json-file", "options": {"max-size": "10m", "max-file": "3"}},
    }


def _port(number: int, address: str) -> dict[str, Any]:
    return {"target": number, "published": str(number), "host_ip": address, "protocol": "tcp"}


def _mount(source: str, target: str) -> dict[str, Any]:
    return {
        "type": "bind",
        "source": source,
        "target": target,
        "read_only": True,
        "bind": {"create_host_path": False},
    }


def _relative(path: Path, directory: Path) -> str:
    relative = os.path.relpath(path, directory)
    return relative if relative.startswith("..") else f"./{relative}"


def _escaped(value: Any) -> Any:
    """Doubles every dollar sign, which compose would read as the start of a variable."""
    if isinstance(value, str):
        return value.replace("$", "$$")
    if isinstance(value, list):
        return [_escaped(entry) for entry in value]
    if isinstance(value, dict):
        return {key: _escaped(entry) for key, entry in value.items()}
    return value
