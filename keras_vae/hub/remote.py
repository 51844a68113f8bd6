"""The one gateway to `huggingface_hub`."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from typing import Any

from keras_vae import extras
from keras_vae.hub.contents import HubError

__all__ = ["client", "explained", "is_unreachable", "repository"]

_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def repository(name: str) -> str:
    """Returns the OWNER/NAME of a repository, whose address hf://OWNER/NAME may be given.

    Raises:
        HubError: if it is not such a name.

    Example:
        >>> repository("hf://ada/digits")
        'ada/digits'
    """
    found = name.removeprefix("hf://").rstrip("/")
    if not _NAME.fullmatch(found):
        raise HubError(f"Expected OWNER/NAME of a repository on the hub; got {name!r}.")
    return found


def client(token: str | None) -> Any:
    """Returns a client of the hub at `HF_ENDPOINT`, by default huggingface.co.

    Raises:
        ImportError: naming the extra if `huggingface_hub` is not installed.
    """
    if lack := extras.missing("hub"):
        raise ImportError(lack)
    import huggingface_hub

    endpoint = os.environ.get("HF_ENDPOINT")
    return huggingface_hub.HfApi(endpoint=endpoint, token=token, library_name="keras_vae")


@contextlib.contextmanager
def explained(repo: str, revision: str | None = None) -> Iterator[None]:
    """Replaces the exceptions of `huggingface_hub` in a block by one sentence each.

    Raises:
        HubError: saying what the hub refused and what to do.
    """
    from huggingface_hub import errors

    try:
        yield
    except errors.LocalEntryNotFoundError as error:
        raise HubError(
            f"The hub cannot be reached for {repo}, and the cache does not hold it: check the "
            "connection."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise HubError(
            f"{repo} has no revision {revision!r}: give a branch, a tag or a commit of it."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise HubError(
            f"{repo} is not on the hub, or your token may not read it: check the name, and log in "
            "with `hf auth login` or set HF_TOKEN."
        ) from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        raise HubError(_refusal(repo, status, " ".join(str(error).split()))) from error
    except RuntimeError as error:  # of a large file
        raise HubError(f"{error} Nothing was written to {repo}: {error.__cause__}") from error
    except Exception as error:
        if not is_unreachable(error):
            raise
        raise HubError(
            f"The hub cannot be reached for {repo}: {type(error).__name__}: {error}"
        ) from error


def _refusal(repo: str, status: int, message: str) -> str:
    if status in (401, 403):
        return (
            f"The hub refuses to write {repo}: log in with `hf auth login`, or set HF_TOKEN to a "
            f"token that may write there ({message:.200})."
        )
    if status in (409, 412):
        return f"{repo} was changed on the hub during the upload: nothing was written. Push again."
    return f"The hub answered {status} for {repo}: {message:.300}"


def is_unreachable(error: BaseException) -> bool:
    """Tells whether an exception means that there is no connection."""
    package = type(error).__module__.split(".")[0]
    return package in ("httpx", "httpx2", "requests") or isinstance(error, ConnectionError)
