"""Client of models that TensorFlow Serving or `keras-vae serve local` serves."""

from serving.client.clients import AsyncClient, Client
from serving.client.wire import Metadata, VersionStatus

__all__ = ["AsyncClient", "Client", "Metadata", "VersionStatus"]
