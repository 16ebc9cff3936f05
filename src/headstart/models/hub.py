"""Where pretrained weights come from: the folder in HEADSTART_WEIGHTS, timm's caches, or the network, in this order.

A machine without network is normal. Whether the hub answers is tried first, against a deadline, so that the way out is
named within seconds and not after minutes of retries.
"""

from __future__ import annotations

import os
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from headstart.errors import WeightsError, must_be
from headstart.progress import say

SUFFIXES: Final = (".safetensors", ".pth", ".pt", ".bin", ".tar")
"""Weights files that can be read; safetensors is taken first where a folder holds several."""

FOLDER_VARIABLE: Final = "HEADSTART_WEIGHTS"

DEADLINE: Final = 6.0
"""Seconds that the hub may take to answer at all. With loading timm this keeps the error within ten seconds."""

_HUB_FILES: Final = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True)
class WeightsFile:
    """A weights file on this machine.

    Attributes:
        path: The file.
        origin: Where it comes from, in words.
    """

    path: Path
    origin: str


def find_weights(name: str, weights: str, *, published: Mapping[str, Any]) -> WeightsFile:
    """Find the file with a network's pretrained weights, fetching it where it is not at hand.

    Args:
        name: The timm network, e.g. ``"mobilenetv2_100"``.
        weights: ``"auto"``, or a file.
        published: timm's entry for the network: its hub id or address.

    Raises:
        WeightsError: There is no such file, or the hub cannot be reached.
    """
    if weights != "auto":
        return _given_file(weights)
    return _from_folder(name) or _from_caches(published) or _fetched(name, published)


def why_unreachable(address: str, *, seconds: float = DEADLINE) -> str | None:
    """Say why an address cannot be reached, or give None where anything answers there.

    Args:
        address: An http(s) address.
        seconds: How long to wait at most. Looking a name up can hang, so it happens in a thread that is left behind.
    """
    outcome: list[str | None] = []
    thread = threading.Thread(target=lambda: outcome.append(_knock(address, seconds)), daemon=True)
    thread.start()
    thread.join(seconds)
    return outcome[0] if outcome else f"no answer within {seconds:g} s"


def ways_out(name: str) -> str:
    """Name what a user can do where pretrained weights cannot be had."""
    return (
        f"Pass --weights FILE (.safetensors or .pth), or put a file whose name starts with {name} in the folder that "
        f"{FOLDER_VARIABLE} names, or start from random weights with --weights none."
    )


def _knock(address: str, seconds: float) -> str | None:
    request = urllib.request.Request(address, method="HEAD")  # noqa: S310 - the hub's own https address
    try:
        with urllib.request.urlopen(request, timeout=seconds):  # noqa: S310
            return None
    except urllib.error.HTTPError as error:
        is_gateway = error.code == 407 or error.code >= 500
        return f"{error.code} {error.reason}" if is_gateway else None
    except (OSError, HTTPException, ValueError) as error:
        reason = str(getattr(error, "reason", error))
        return None if "CERTIFICATE_VERIFY_FAILED" in reason else reason or type(error).__name__


def _given_file(weights: str) -> WeightsFile:
    path = Path(weights).expanduser()
    if not path.is_file():
        remedy = "No such file. Pass a .safetensors or .pth file, 'auto' or 'none'."
        raise WeightsError(must_be("weights", "'auto', 'none' or a file", weights, remedy))
    if path.suffix.lower() not in SUFFIXES:
        raise WeightsError(must_be("weights", f"a file ending in {', '.join(SUFFIXES)}", weights))
    return WeightsFile(path, f"the file {path.name}")


def _from_folder(name: str) -> WeightsFile | None:
    """Look in HEADSTART_WEIGHTS for a file named by the network: safetensors first, then the first by name."""
    folder = os.environ.get(FOLDER_VARIABLE)
    if not folder:
        return None
    if not Path(folder).is_dir():
        remedy = "No such folder. Mend the variable or unset it."
        raise WeightsError(must_be(FOLDER_VARIABLE, "a folder with weights files", folder, remedy))
    pattern = re.compile(re.escape(name) + r"(?![A-Za-z0-9_])")
    found = [path for path in Path(folder).iterdir() if path.suffix.lower() in SUFFIXES and pattern.match(path.name)]
    if not found:
        return None
    chosen, *others = sorted(found, key=lambda path: (SUFFIXES.index(path.suffix.lower()), path.name))
    unused = f" (not used: {', '.join(path.name for path in others)})" if others else ""
    return WeightsFile(chosen, f"{chosen.name} in {FOLDER_VARIABLE}{unused}")


def _from_caches(published: Mapping[str, Any]) -> WeightsFile | None:
    from huggingface_hub import try_to_load_from_cache

    hub_id, revision = _hub_id(published)
    for file in _hub_files(published) if hub_id else ():
        cached = try_to_load_from_cache(hub_id, file, revision=revision)
        if isinstance(cached, str):
            return WeightsFile(Path(cached), f"{hub_id} in the hub's cache")
    path = _url_file(published)
    return WeightsFile(path, f"{path.name} in torch's cache") if path is not None and path.is_file() else None


def _fetched(name: str, published: Mapping[str, Any]) -> WeightsFile:
    hub_id, _ = _hub_id(published)
    if not hub_id and not published.get("url"):
        raise WeightsError(
            must_be("weights", "'none' or a file: none are published for this network", "auto", ways_out(name))
        )
    address = _endpoint() if hub_id else published["url"]
    host = urlsplit(address).netloc or address
    reason = "HF_HUB_OFFLINE is set" if _is_offline() else why_unreachable(address)
    if reason:
        expected = f"a file, or 'auto' where {host} can be reached to fetch those of {name}"
        raise WeightsError(must_be("weights", expected, "auto", f"{host}: {reason}. {ways_out(name)}"))
    say(f"fetching the weights of {name} from {host}")
    return _download(name, published)


def _download(name: str, published: Mapping[str, Any]) -> WeightsFile:
    from huggingface_hub.errors import HfHubHTTPError

    # The transport library differs between hub versions; its base error is an ancestor of the hub's own.
    transport: tuple[type[Exception], ...] = tuple(
        base for base in HfHubHTTPError.__mro__ if base.__name__ == "HTTPError"
    )
    try:
        return _download_hub(published) if _hub_id(published)[0] else _download_url(published)
    except (OSError, ValueError, RuntimeError, *transport) as error:
        expected, reason = f"'auto' where those of {name} can be fetched", " ".join(str(error).split()).rstrip(".")
        raise WeightsError(must_be("weights", expected, "auto", f"{reason}. {ways_out(name)}")) from error


def _download_hub(published: Mapping[str, Any]) -> WeightsFile:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    hub_id, revision = _hub_id(published)
    fetch = partial(hf_hub_download, hub_id, revision=revision, endpoint=_endpoint())
    *first, last = _hub_files(published)
    for file in first:
        try:
            return WeightsFile(Path(fetch(file)), f"{hub_id} from the hub")
        except EntryNotFoundError:
            continue
    return WeightsFile(Path(fetch(last)), f"{hub_id} from the hub")


def _download_url(published: Mapping[str, Any]) -> WeightsFile:
    from torch.hub import HASH_REGEX, download_url_to_file

    path = _url_file(published)
    if path is None:
        raise ValueError("no address is published")
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = HASH_REGEX.search(path.name)  # published file names end in the first digits of their SHA-256
    download_url_to_file(published["url"], str(path), digest.group(1) if digest else None, progress=False)
    return WeightsFile(path, f"{path.name} from {urlsplit(published['url']).netloc}")


def _hub_id(published: Mapping[str, Any]) -> tuple[str, str | None]:
    """Give hub repository and revision; the repository is empty where the network has none."""
    repository, _, revision = (published.get("hf_hub_id") or "").partition("@")
    return repository, revision or None


def _hub_files(published: Mapping[str, Any]) -> tuple[str, ...]:
    named = published.get("hf_hub_filename")
    return (named,) if named else _HUB_FILES


def _url_file(published: Mapping[str, Any]) -> Path | None:
    import torch

    url = published.get("url")
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(url).path).name if url else None


def _endpoint() -> str:
    from huggingface_hub import constants

    return (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")


def _is_offline() -> bool:
    from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE or os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}
