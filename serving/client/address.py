"""Addresses: the server, the model and the interface that a client talks to."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal
from urllib.parse import quote, urlsplit

from serving.errors import ServingError

__all__ = ["Address"]

_KINDS: dict[str, tuple[Literal["rest", "grpc"], bool, int]] = {
    "http": ("rest", False, 8501),
    "https": ("rest", True, 8501),
    "grpc": ("grpc", False, 8500),
    "grpcs": ("grpc", True, 8500),
}


@dataclass(frozen=True)
class Address:
    """A server and a model that it serves.

    Attributes:
        url: what the user wrote, for error messages.
        interface: "rest" or "grpc".
        is_secure: whether it speaks TLS.
        host: name or number; an IPv6 number is in brackets.
        port: 8501 for REST and 8500 for gRPC by default, as in TensorFlow Serving.
        prefix: path before `/v1`, where a proxy adds one.
        model: name of the model.
        version: number of the version; None for the newest or for the version of the label.
        label: a label such as "stable", or None.
    """

    url: str
    interface: Literal["rest", "grpc"]
    is_secure: bool
    host: str
    port: int
    prefix: str
    model: str
    version: int | None
    label: str | None

    @classmethod
    def parse(cls, url: str, model: str, version: int | None, label: str | None) -> Address:
        """Parses a URL such as `http://localhost:8501` or `grpcs://models.example:8500`.

        Raises:
            ServingError: if the URL is not that of a server, or version and label are both given.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise ServingError(f"{url!r} is not the address of a server ({error}).") from error
        if parts.scheme not in _KINDS or not parts.hostname:
            raise ServingError(
                f"Expected an address such as http://localhost:8501 or grpc://localhost:8500 "
                f"(with TLS https:// or grpcs://); got {url!r}."
            )
        interface, is_secure, default = _KINDS[parts.scheme]
        prefix = parts.path.rstrip("/")
        if parts.query or parts.fragment or parts.username or (prefix and interface == "grpc"):
            raise ServingError(f"Expected only scheme, host and port; got {url!r}.")
        if not model or not isinstance(model, str):
            raise ServingError(f"Expected the name of a model; got {model!r}.")
        if version is not None and label is not None:
            raise ServingError(f"Name a version or a label, not both; got {version} and {label!r}.")
        if version is not None and (isinstance(version, bool) or not 0 < version < 2**63):
            raise ServingError(f"Expected a positive integer as version; got {version!r}.")
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        return cls(url, interface, is_secure, host, port or default, prefix, model, version, label)

    def pinned(self, version: int) -> Address:
        """Returns the address of one version of the model."""
        return replace(self, version=version, label=None)

    @property
    def target(self) -> str:
        """HOST:PORT."""
        return f"{self.host}:{self.port}"

    @property
    def path(self) -> str:
        """Path of the model in the REST interface."""
        path = f"{self.prefix}/v1/models/{quote(self.model, safe='')}"
        if self.version is not None:
            return f"{path}/versions/{self.version}"
        return path if self.label is None else f"{path}/labels/{quote(self.label, safe='')}"

    def __str__(self) -> str:
        which = f" version {self.version}" if self.version is not None else ""
        which = which if self.label is None else f" label {self.label!r}"
        return f"{self.model!r}{which} at {self.url}"
