"""OpenAPI document and page: the requests that the served models accept, with their shapes."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from serving.artifact import Signature, Tensor
from serving.local.repository import Loaded, Repository

__all__ = ["document", "page"]

_PAGE = Template((Path(__file__).parent / "page.html").read_text())
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": {"type": "string", "description": "Message that says what was wrong."}},
}
_REFUSALS = {
    "400": "The request is wrong: body, signature, names, types, shapes, rows or label.",
    "404": "The model or version is not served.",
    "408": "The body did not arrive in time.",
    "413": "The body is too large.",
    "503": "Too many requests at once; try again later.",
    "504": "The answer took too long.",
}


def document(repository: Repository) -> dict[str, Any]:
    """Builds the OpenAPI 3.1 document of the served models."""
    paths: dict[str, Any] = {}
    schemas: dict[str, Any] = {"Error": _ERROR}
    for loaded in repository.latest():
        paths |= _paths(loaded)
        for signature in _served(loaded):
            for layout in ("rows", "columns"):
                schemas[_key(loaded, signature, layout)] = _request(signature, layout)
                schemas[_key(loaded, signature, layout, "Answer")] = _answer(signature, layout)
    for path, what in (
        ("/livez", "200 while the process answers."),
        ("/readyz", "200 when every model has a version in service, otherwise 503."),
        ("/metrics", "Metrics in Prometheus' text format."),
    ):
        paths[path] = {"get": {"summary": what, "responses": {"200": {"description": "OK"}}}}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "keras_vae local server",
            "version": "1",
            "description": "TensorFlow Serving's REST interface on ONNX Runtime, for development.",
        },
        "paths": paths,
        "components": {"schemas": schemas},
    }


def page(repository: Repository) -> str:
    """Renders the same as a self-contained HTML page."""
    parts = []
    for loaded in repository.latest():
        artifact = loaded.artifact
        parts.append(
            f"<h2 id='{escape(loaded.name)}'>{escape(loaded.name)} "
            f"<small>version {artifact.version}</small></h2>"
            f"<p><code>GET /v1/models/{escape(loaded.name)}</code> status, "
            f"<code>GET /v1/models/{escape(loaded.name)}/metadata</code> signatures; a version as "
            f"<code>/v1/models/{escape(loaded.name)}/versions/{artifact.version}</code>, a label "
            f"as <code>/labels/LABEL</code>.</p>"
        )
        parts += [_section(loaded, signature) for signature in _served(loaded)]
    return _PAGE.substitute(models="\n".join(parts), refusals=_table(_REFUSALS))


def _served(loaded: Loaded) -> list[Signature]:
    return [loaded.artifact.signatures[name] for name in loaded.batchers]


def _paths(loaded: Loaded) -> dict[str, Any]:
    model = f"/v1/models/{loaded.name}"
    refs = {
        part: [
            {"$ref": f"#/components/schemas/{_key(loaded, signature, layout, part)}"}
            for signature in _served(loaded)
            for layout in ("rows", "columns")
        ]
        for part in ("Request", "Answer")
    }
    examples = {
        f"{signature.name} in {layout}": {"value": _example(signature, layout)}
        for signature in _served(loaded)
        for layout in ("rows", "columns")
    }
    predict = {
        "summary": f"Run a signature of {loaded.name}",
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"anyOf": refs["Request"]}, "examples": examples}
            },
        },
        "responses": _responses({"anyOf": refs["Answer"]}),
    }
    status = {"summary": f"Versions of {loaded.name}", "responses": _responses({"type": "object"})}
    metadata = {
        "summary": f"Signatures of {loaded.name}",
        "responses": _responses({"type": "object"}),
    }
    result: dict[str, Any] = {}
    for path, parameters in (
        ("", []),
        ("/versions/{version}", [_parameter("version", "integer")]),
        ("/labels/{label}", [_parameter("label", "string")]),
    ):
        common = {"parameters": parameters} if parameters else {}
        result[f"{model}{path}:predict"] = {"post": predict, **common}
        result[f"{model}{path}"] = {"get": status, **common}
        result[f"{model}{path}/metadata"] = {"get": metadata, **common}
    return result


def _parameter(name: str, kind: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": kind}}


def _responses(schema: dict[str, Any]) -> dict[str, Any]:
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    refusals = {
        code: {"description": sentence, "content": error} for code, sentence in _REFUSALS.items()
    }
    answer = {"description": "The answer.", "content": {"application/json": {"schema": schema}}}
    return {"200": answer, **refusals}


def _key(loaded: Loaded, signature: Signature, layout: str, part: str = "Request") -> str:
    return f"{loaded.name}.{signature.name}.{layout}.{part}"


def _request(signature: Signature, layout: str) -> dict[str, Any]:
    names = [signature.name]
    required = ["signature_name"]
    if signature.name == "decode":
        names += ["serving_default", ""]
        required = []
    key = "instances" if layout == "rows" else "inputs"
    return {
        "type": "object",
        "description": signature.description,
        "required": [*required, key],
        "additionalProperties": False,
        "properties": {
            "signature_name": {"enum": names},
            key: _values(signature.inputs, layout),
        },
    }


def _answer(signature: Signature, layout: str) -> dict[str, Any]:
    key = "predictions" if layout == "rows" else "outputs"
    return {
        "type": "object",
        "required": [key],
        "additionalProperties": False,
        "properties": {key: _values(signature.outputs, layout)},
    }


def _values(tensors: dict[str, Tensor], layout: str) -> dict[str, Any]:
    if layout == "rows":
        forms = _forms({name: _array(tensor, tensor.shape) for name, tensor in tensors.items()})
        lists = [{"type": "array", "minItems": 1, "items": form} for form in forms]
        return lists[0] if len(lists) == 1 else {"anyOf": lists}
    columns = {}
    for name, tensor in tensors.items():
        columns[name] = {"type": "array", "minItems": 1, "items": _array(tensor, tensor.shape)}
    forms = _forms(columns)
    return forms[0] if len(forms) == 1 else {"anyOf": forms}


def _forms(values: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns an object of the values, and a lone value also without its name."""
    described = {
        "type": "object",
        "required": list(values),
        "additionalProperties": False,
        "properties": values,
    }
    return [described] if len(values) > 1 else [*values.values(), described]


def _array(tensor: Tensor, shape: tuple[int, ...]) -> dict[str, Any]:
    if not shape:
        if tensor.dtype == "int32":
            return {"type": "integer", "minimum": -(2**31), "maximum": 2**31 - 1}
        return {"type": ["number", "null"] if tensor.missing else "number"}
    return {
        "type": "array",
        "minItems": shape[0],
        "maxItems": shape[0],
        "items": _array(tensor, shape[1:]),
    }


def _example(signature: Signature, layout: str) -> dict[str, Any]:
    values = {name: _zeros(tensor) for name, tensor in signature.inputs.items()}
    if layout == "columns":
        return {"signature_name": signature.name, "inputs": {k: [v] for k, v in values.items()}}
    return {"signature_name": signature.name, "instances": [values]}


def _zeros(tensor: Tensor) -> Any:
    value: Any = 0 if tensor.dtype == "int32" else 0.0
    for size in reversed(tensor.shape):
        value = [value] * size
    return value


def _section(loaded: Loaded, signature: Signature) -> str:
    inputs = "".join(_row(name, tensor) for name, tensor in signature.inputs.items())
    outputs = "".join(_row(name, tensor) for name, tensor in signature.outputs.items())
    path = f"/v1/models/{loaded.name}:predict"
    rows, columns = (
        f"POST {path}\n\n{_abbreviated(signature, layout)}" for layout in ("rows", "columns")
    )
    return (
        f"<section><h3>{escape(signature.name)}</h3><p>{escape(signature.description)}</p>"
        "<table><thead><tr><th scope='col'>input</th><th scope='col'>type</th>"
        f"<th scope='col'>shape</th></tr></thead><tbody>{inputs}</tbody></table>"
        "<table><thead><tr><th scope='col'>output</th><th scope='col'>type</th>"
        f"<th scope='col'>shape</th></tr></thead><tbody>{outputs}</tbody></table>"
        f"<details><summary>Request in rows and in columns</summary><pre>{escape(rows)}</pre>"
        f"<pre>{escape(columns)}</pre></details></section>"
    )


def _row(name: str, tensor: Tensor) -> str:
    shape = ", ".join(["batch", *map(str, tensor.shape)])
    return f"<tr><td>{escape(name)}</td><td>{tensor.dtype}</td><td>[{shape}]</td></tr>"


def _abbreviated(signature: Signature, layout: str) -> str:
    """Renders the example, with long lists cut after three numbers."""

    def cut(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: cut(entry) for key, entry in value.items()}
        if isinstance(value, list):
            short = [cut(entry) for entry in value[:3]]
            return short if len(value) <= 4 else [*short, f"... {len(value)} in total"]
        return value

    return json.dumps(cut(_example(signature, layout)))


def _table(rows: dict[str, str]) -> str:
    return "".join(
        f"<tr><td>{code}</td><td>{escape(what)}</td></tr>" for code, what in rows.items()
    )
