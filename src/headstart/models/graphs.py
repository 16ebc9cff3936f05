"""Converted networks on disk: OpenVINO converts a network once on a machine, whatever run, command or batch size asks.

One file for each network, named by all that its graph depends on: layers, weights, input size, versions. Files are
written whole or not at all, and carry a checksum: what is damaged counts as not there. The folder is a cache, at most
1 GB of what was used last; it may be removed at any time.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor, nn

from headstart.files import cache_folder, written_aside

if TYPE_CHECKING:
    import openvino

FORMAT: Final = 1
"""Raised when the file's layout changes, or how a module becomes a graph."""

_MOST_BYTES: Final = 2**30
_DIGEST_BYTES: Final = 16
_LENGTH_BYTES: Final = 8


@dataclass(frozen=True)
class Graph:
    """A network as OpenVINO reads it: its layers as XML, and the bytes of its constants."""

    layers: bytes
    constants: bytes

    @classmethod
    def from_model(cls, model: openvino.Model) -> Graph:
        """Write a model out, its constants in float32 as they are."""
        import openvino

        with tempfile.TemporaryDirectory(prefix="headstart-") as scratch:
            path = Path(scratch) / "graph.xml"
            openvino.save_model(model, path, compress_to_fp16=False)
            return cls(path.read_bytes(), path.with_suffix(".bin").read_bytes())

    def to_bytes(self) -> bytes:
        """Give the file's content: checksum, length of the layers, layers, constants."""
        content = len(self.layers).to_bytes(_LENGTH_BYTES, "little") + self.layers + self.constants
        return _digest(content) + content

    @classmethod
    def from_bytes(cls, data: bytes) -> Graph | None:
        """Read a file's content; None where it is not what was written.

        Examples:
            >>> data = Graph(b"<net/>", b"0.5").to_bytes()
            >>> Graph.from_bytes(data), Graph.from_bytes(data[:-1])
            (Graph(layers=b'<net/>', constants=b'0.5'), None)
        """
        content = data[_DIGEST_BYTES:]
        if len(content) < _LENGTH_BYTES or _digest(content) != data[:_DIGEST_BYTES]:
            return None
        end = _LENGTH_BYTES + int.from_bytes(content[:_LENGTH_BYTES], "little")
        return cls(content[_LENGTH_BYTES:end], content[end:])


def graph_file(module: nn.Module, example: Tensor) -> Path:
    """Name the file of a module's graph by everything that the graph depends on, but the number of images.

    Args:
        module: Its layers, their settings, parameters and buffers count.
        example: A batch; its type and the shape of one image count.
    """
    import openvino
    import timm

    import headstart

    versions = (FORMAT, headstart.__version__, torch.__version__, timm.__version__, openvino.get_version())
    kinds = [f"{type(part).__module__}.{type(part).__qualname__}" for part in module.modules()]
    digest = hashlib.blake2b(repr((versions, kinds, repr(module))).encode(), digest_size=16)
    digest.update(repr((tuple(example.shape[1:]), example.dtype)).encode())
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        values = tensor.detach().cpu().contiguous()
        digest.update(repr((name, tuple(values.shape), values.dtype)).encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy())
    return cache_folder() / "graphs" / f"{digest.hexdigest()}.graph"


def read_graph(path: Path) -> Graph | None:
    """Read a graph; None where there is none, or it is damaged."""
    try:
        graph = Graph.from_bytes(path.read_bytes())
    except OSError:
        return None
    with suppress(OSError):  # a cache that may only be read serves all the same
        os.utime(path)  # what is used stays longest
    return graph


def write_graph(path: Path, graph: Graph) -> None:
    """Keep a graph, if the disk takes it; remove what was not used for longest where the folder grows too large."""
    with suppress(OSError):  # a cache: a full or read-only disk costs the next run two seconds, nothing else
        with written_aside(path) as aside:
            aside.write_bytes(graph.to_bytes())
        _remove_oldest(path.parent)


def _remove_oldest(folder: Path) -> None:
    files = sorted(((found := path.stat()).st_mtime_ns, found.st_size, path) for path in folder.iterdir())
    total = 0
    for _, num_bytes, path in reversed(files):
        total += num_bytes
        if total > _MOST_BYTES:
            path.unlink(missing_ok=True)


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=_DIGEST_BYTES).digest()
