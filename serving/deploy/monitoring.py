"""Prometheus and Grafana: scrape configuration, alerts and dashboard.

TensorFlow Serving names its metrics after its C++ variables, with a colon for every slash. Its
latencies are in microseconds, and no metric names the version that answered.
"""

from __future__ import annotations

from typing import Any

from serving.deploy import server

__all__ = ["alerts", "dashboard", "dashboard_provider", "datasource", "scrape"]

_REQUESTS = ":tensorflow:serving:request_count"
_LATENCY = ":tensorflow:serving:request_latency"
_RUNTIME = ":tensorflow:serving:runtime_latency"
_QUEUE = ":tensorflow:serving:batching_session:queuing_latency"
_WARMUP = ":tensorflow:serving:model_warmup_latency"
_LOADS = ":tensorflow:cc:saved_model:load_attempt_count"
_JOB = "tensorflow-serving"
_SOURCE = {"type": "prometheus", "uid": "prometheus"}
_ERRORS = (
    f'sum by (model_name) (rate({_REQUESTS}{{status!="OK"}}[5m])) / '
    f"sum by (model_name) (rate({_REQUESTS}[5m]))"
)


def scrape() -> dict[str, Any]:
    """Renders `prometheus.yml`."""
    return {
        "global": {"scrape_interval": "15s", "evaluation_interval": "15s"},
        "rule_files": ["alerts.yml"],
        "scrape_configs": [
            {
                "job_name": _JOB,
                "metrics_path": server.METRICS,
                "static_configs": [{"targets": [f"serving:{server.REST}"]}],
            }
        ],
    }


def alerts() -> dict[str, Any]:
    """Renders the alerting rules."""
    return {
        "groups": [
            {
                "name": _JOB,
                "rules": [
                    _alert("ServingDown", f'up{{job="{_JOB}"}} == 0', "2m", "no server answers"),
                    _alert(
                        "ServingErrors",
                        f"{_ERRORS} > 0.01",
                        "10m",
                        "more than 1 % of the requests of {{ $labels.model_name }} fail",
                    ),
                    _alert(
                        "ServingSlow",
                        f"{_quantile(0.99, _LATENCY, 'model_name')} > 500000",
                        "10m",
                        "1 % of the requests of {{ $labels.model_name }} take more than 0.5 s",
                    ),
                    _alert(
                        "ServingLoadFailed",
                        f'increase({_LOADS}{{status="fail"}}[15m]) > 0',
                        "0m",
                        "{{ $labels.model_path }} does not load; the earlier version is still "
                        "served",
                    ),
                ],
            }
        ]
    }


def datasource() -> dict[str, Any]:
    """Renders Grafana's data source."""
    return {
        "apiVersion": 1,
        "datasources": [
            {
                "name": "Prometheus",
                "uid": _SOURCE["uid"],
                "type": "prometheus",
                "access": "proxy",
                "url": "http://prometheus:9090",
                "isDefault": True,
                "editable": False,
            }
        ],
    }


def dashboard_provider() -> dict[str, Any]:
    """Renders the file that tells Grafana where its dashboards are."""
    return {
        "apiVersion": 1,
        "providers": [
            {
                "name": "serving",
                "type": "file",
                "disableDeletion": True,
                "allowUiUpdates": False,
                "options": {"path": "/etc/grafana/dashboards"},
            }
        ],
    }


def dashboard() -> dict[str, Any]:
    """Renders Grafana's dashboard."""
    chosen = 'model_name=~"$model"'
    both = f"{_LATENCY}_bucket{{{chosen}}}"
    panels = [
        _panel(
            "Requests by status",
            "reqps",
            (
                f"sum by (model_name, status) (rate({_REQUESTS}{{{chosen}}}[$__rate_interval]))",
                "{{model_name}} {{status}}",
            ),
        ),
        _panel(
            "Share of requests that fail",
            "percentunit",
            (
                f'sum by (model_name) (rate({_REQUESTS}{{{chosen}, status!="OK"}}'
                f"[$__rate_interval])) / sum by (model_name) (rate({_REQUESTS}{{{chosen}}}"
                "[$__rate_interval]))",
                "{{model_name}}",
            ),
        ),
        _panel(
            "Latency of a request, by entry point",
            "µs",
            *(
                (
                    f"histogram_quantile({q}, sum by (le, model_name, entrypoint) "
                    f"(rate({both}[$__rate_interval])))",
                    f"{{{{model_name}}}} {{{{entrypoint}}}} p{round(100 * q)}",
                )
                for q in (0.5, 0.95, 0.99)
            ),
        ),
        _panel(
            "Time in TensorFlow, 95 % quantile",
            "µs",
            (
                "histogram_quantile(0.95, sum by (le, model_name) "
                f"(rate({_RUNTIME}_bucket{{{chosen}}}[$__rate_interval])))",
                "{{model_name}}",
            ),
        ),
        _panel(
            "Wait for a batch, 95 % quantile",
            "µs",
            (
                "histogram_quantile(0.95, sum by (le, thread_pool_name) "
                f"(rate({_QUEUE}_bucket[$__rate_interval])))",
                "{{thread_pool_name}}",
            ),
        ),
        _panel(
            "Versions loaded and refused",
            "short",
            (f"sum by (model_path, status) ({_LOADS})", "{{model_path}} {{status}}"),
            (
                f'sum by (model_path) ({_WARMUP}_count{{status!="success"}})',
                "{{model_path}} warm-up failed",
            ),
        ),
    ]
    for number, panel in enumerate(panels):
        panel["id"] = number + 1
        panel["gridPos"] = {"h": 8, "w": 12, "x": 12 * (number % 2), "y": 8 * (number // 2)}
    return {
        "uid": "tensorflow-serving",
        "title": "TensorFlow Serving",
        "schemaVersion": 39,
        "editable": False,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {
            "list": [
                {
                    "name": "model",
                    "label": "Model",
                    "type": "query",
                    "datasource": _SOURCE,
                    "query": f"label_values({_REQUESTS}, model_name)",
                    "refresh": 2,
                    "multi": True,
                    "includeAll": True,
                    "current": {"text": ["All"], "value": ["$__all"]},
                }
            ]
        },
        "panels": panels,
    }


def _quantile(q: float, metric: str, label: str) -> str:
    return f"histogram_quantile({q}, sum by (le, {label}) (rate({metric}_bucket[5m])))"


def _alert(name: str, expression: str, duration: str, summary: str) -> dict[str, Any]:
    return {
        "alert": name,
        "expr": expression,
        "for": duration,
        "labels": {"severity": "page" if name == "ServingDown" else "ticket"},
        "annotations": {"summary": summary[0].upper() + summary[1:]},
    }


def _panel(title: str, unit: str, *queries: tuple[str, str]) -> dict[str, Any]:
    return {
        "title": title,
        "type": "timeseries",
        "datasource": _SOURCE,
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}},
        "targets": [
            {
                "refId": chr(ord("A") + number),
                "datasource": _SOURCE,
                "expr": expression,
                "legendFormat": legend,
            }
            for number, (expression, legend) in enumerate(queries)
        ],
    }
