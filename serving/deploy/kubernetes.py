"""Kubernetes manifests: a Deployment behind a Service, and InferenceServices for KServe."""

from __future__ import annotations

import re
from typing import Any

from serving.deploy import server
from serving.deploy.compose import USER
from serving.deploy.deployment import Deployment
from serving.errors import ServingError

__all__ = ["inference_services", "kustomization", "manifests"]

_NAME = "serving"
_MODELS, _SERVER, _TLS = "serving-models", "serving-server", "serving-tls"
_LABELS = {"app.kubernetes.io/name": _NAME, "app.kubernetes.io/component": "tensorflow-serving"}


def manifests(deployment: Deployment) -> dict[str, dict[str, Any]]:
    """Renders Deployment, Service, autoscaler, disruption budget and volume, by file name."""
    settings = deployment.settings
    low, high = settings.replicas
    return {
        "deployment.yaml": _object("apps/v1", "Deployment", _NAME, _deployment(deployment)),
        "service.yaml": _object(
            "v1",
            "Service",
            _NAME,
            {
                "selector": _LABELS,
                "ports": [
                    {
                        "name": "grpc",
                        "port": server.GRPC,
                        "targetPort": "grpc",
                        "appProtocol": "grpc",
                    },
                    {"name": "rest", "port": server.REST, "targetPort": "rest"},
                ],
            },
        ),
        "autoscaler.yaml": _object(
            "autoscaling/v2",
            "HorizontalPodAutoscaler",
            _NAME,
            {
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": _NAME},
                "minReplicas": low,
                "maxReplicas": high,
                "metrics": [
                    {
                        "type": "Resource",
                        "resource": {
                            "name": "cpu",
                            "target": {"type": "Utilization", "averageUtilization": 70},
                        },
                    }
                ],
                "behavior": {"scaleDown": {"stabilizationWindowSeconds": 300}},
            },
        ),
        "disruption.yaml": _object(
            "policy/v1",
            "PodDisruptionBudget",
            _NAME,
            {"maxUnavailable": 1, "selector": {"matchLabels": _LABELS}},
        ),
        "volume.yaml": _object(
            "v1",
            "PersistentVolumeClaim",
            _MODELS,
            {
                "accessModes": ["ReadWriteMany"],
                "resources": {"requests": {"storage": "5Gi"}},
            },
        ),
    }


def kustomization() -> dict[str, Any]:
    """Renders the kustomization: the manifests, and the server's files as ConfigMaps.

    `models.config` keeps its name when it changes, so running servers reload it. The other files
    are
    read once: their names change with their content, and the servers are replaced.
    """
    return {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [
            f"kubernetes/{name}"
            for name in (
                "deployment.yaml",
                "service.yaml",
                "autoscaler.yaml",
                "disruption.yaml",
                "volume.yaml",
            )
        ],
        "configMapGenerator": [
            {
                "name": _MODELS,
                "files": [f"server/{server.MODELS_CONFIG}"],
                "options": {"disableNameSuffixHash": True},
            },
            {
                "name": _SERVER,
                "files": [
                    "server/batching.config",
                    "server/monitoring.config",
                    "server/ready.sh",
                ],
            },
        ],
    }


def inference_services(deployment: Deployment) -> dict[str, dict[str, Any]]:
    """Renders one KServe InferenceService per model, by file name.

    Raises:
        ServingError: if two models would have the same name in KServe.
    """
    settings, found = deployment.settings, {}
    for model in deployment.models:
        name = re.sub(r"[^a-z0-9-]", "-", model.name.lower()).strip("-")
        if not name[:1].isalpha():
            name = f"m-{name}"
        if f"{name}.yaml" in found:
            raise ServingError(
                f"Two models would both be the InferenceService {name!r}, whose name may hold only "
                "lower-case letters, digits and '-'; rename one."
            )
        predictor = {
            "minReplicas": settings.replicas[0],
            "maxReplicas": settings.replicas[1],
            "automountServiceAccountToken": False,
            "securityContext": _pod_security(),
            "model": {
                "modelFormat": {"name": "tensorflow"},
                "image": settings.image,
                "storageUri": f"pvc://{_MODELS}/{model.name}",
                "securityContext": _container_security(),
                "resources": _resources(deployment),
            },
        }
        found[f"{name}.yaml"] = _object(
            "serving.kserve.io/v1beta1",
            "InferenceService",
            name,
            {"predictor": predictor},
        )
    return found


def _deployment(deployment: Deployment) -> dict[str, Any]:
    container: dict[str, Any] = {
        "name": _NAME,
        "image": deployment.settings.image,
        "command": server.arguments(deployment, connection_age=True),
        "ports": [
            {"name": "grpc", "containerPort": server.GRPC},
            {"name": "rest", "containerPort": server.REST},
        ],
        "resources": _resources(deployment),
        "securityContext": _container_security(),
        "volumeMounts": [
            {"name": "config", "mountPath": server.CONFIG, "readOnly": True},
            {"name": "models", "mountPath": server.MODELS, "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
        # A server opens its ports only when all models are loaded and warmed up.
        "startupProbe": {
            "tcpSocket": {"port": "rest"},
            "periodSeconds": 2,
            "failureThreshold": 150,
        },
        "readinessProbe": {
            "exec": {"command": server.ready(deployment)},
            "periodSeconds": 10,
            "timeoutSeconds": 5,
        },
        "livenessProbe": {
            "tcpSocket": {"port": "grpc"},
            "periodSeconds": 10,
            "failureThreshold": 6,
        },
    }
    volumes: list[dict[str, Any]] = [
        {
            "name": "config",
            "projected": {
                "sources": [{"configMap": {"name": _MODELS}}, {"configMap": {"name": _SERVER}}]
            },
        },
        {"name": "models", "persistentVolumeClaim": {"claimName": _MODELS, "readOnly": True}},
        {"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}},
    ]
    if deployment.settings.tls is not None:
        directory, _, file = server.SSL_CONFIG.rpartition("/")
        container["volumeMounts"].append({"name": "tls", "mountPath": directory, "readOnly": True})
        secret = {"secretName": _TLS, "defaultMode": 0o440, "items": [{"key": file, "path": file}]}
        volumes.append({"name": "tls", "secret": secret})
    return {
        "selector": {"matchLabels": _LABELS},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0}},
        "template": {
            "metadata": {
                "labels": _LABELS,
                "annotations": {
                    "prometheus.io/scrape": "true",
                    "prometheus.io/port": str(server.REST),
                    "prometheus.io/path": server.METRICS,
                },
            },
            "spec": {
                "automountServiceAccountToken": False,
                "enableServiceLinks": False,
                # The server ignores SIGTERM: it answers until it is killed after this time, while
                # callers are routed to the others.
                "terminationGracePeriodSeconds": 20,
                "securityContext": _pod_security(),
                "topologySpreadConstraints": [
                    {
                        "maxSkew": 1,
                        "topologyKey": "kubernetes.io/hostname",
                        "whenUnsatisfiable": "ScheduleAnyway",
                        "labelSelector": {"matchLabels": _LABELS},
                    }
                ],
                "containers": [container],
                "volumes": volumes,
            },
        },
    }


def _object(version: str, kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    metadata = {"name": name, "labels": dict(_LABELS)}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}


def _resources(deployment: Deployment) -> dict[str, Any]:
    settings = deployment.settings
    amounts = {"cpu": str(settings.cpus), "memory": f"{settings.memory_mib}Mi"}
    return {"requests": amounts, "limits": amounts}


def _pod_security() -> dict[str, Any]:
    user, group = map(int, USER.split(":"))
    return {
        "runAsNonRoot": True,
        "runAsUser": user,
        "runAsGroup": group,
        "fsGroup": group,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _container_security() -> dict[str, Any]:
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
