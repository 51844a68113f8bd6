"""Client for models served by TensorFlow Serving or `keras-vae serve local`."""

from serving.client.clients import AsyncClient, Client
from serving.client.wire import Metadata, VersionStatus

__all__ = ["AsyncClient", "Client", "Metadata", "VersionStatus"]
