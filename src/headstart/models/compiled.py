"""Running a network on a CPU through OpenVINO, held to PyTorch's answer on the first batch.

Measured on 2 cores with 224 px (mobilenetv2_100): 60-70 images/s in PyTorch, 230-310 compiled, after one second of
conversion, which is kept on disk (``graphs.py``). A batch is cut into requests of 8 images, which run side by side on a
core each: no core waits for another after each layer, and a layer's values stay in the core's own cache (7.2 ms of CPU
an image; one request of 32 on all cores takes 8.8). A fixed batch is up to a tenth faster than a free one, so the last
request is filled up. Tracing and freezing first halves the conversion, because fewer nodes go over; torch.export took
four times as long.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from headstart.models.graphs import Graph, graph_file, read_graph, write_graph

if TYPE_CHECKING:
    import openvino

_SETTINGS: Final = {"INFERENCE_PRECISION_HINT": "f32"}
"""float32 by name: on a CPU with bf16 units OpenVINO would else round, and miss PyTorch by 1e-2."""

IMAGES_A_REQUEST: Final = 8
"""Images that a core runs at a time; 4 and 8 are as fast as each other, 16 and more are slower."""

_NUM_CHECKED: Final = 8
"""Images of the first batch that both run: PyTorch takes half a second for 32 of them."""


class CompiledForward:
    """A forward pass made by ``compile_forward``: takes and gives tensors like the module it stands for.

    Attributes:
        note: Why it runs in PyTorch after all, a sentence; None where it runs compiled.
    """

    note: str | None

    def __init__(self, run: Callable[[Tensor], Tensor], note: str | None) -> None:
        self._run = run
        self.note = note

    def __call__(self, pixels: Tensor) -> Tensor:
        """Give the module's output for a batch of any size."""
        return self._run(pixels)


def compile_forward(module: nn.Module, example: Tensor, *, tolerance: float = 1e-3) -> CompiledForward:
    """Compile a module for this CPU, or say why PyTorch has to do.

    Args:
        module: In eval mode, one tensor in and one out, images along the first axis.
        example: The first real batch: what the compiled module is held to. Later batches may be smaller or larger.
        tolerance: Largest difference from PyTorch allowed, as a share of the largest value in its answer.

    Returns:
        A callable. The converted network comes from the cache if it is there and gives the same answer as PyTorch;
        else it is converted and put there. It falls back to PyTorch, with a note, where OpenVINO is missing, cannot
        take the network, or does not give the same answer.

    Examples:
        >>> forward = compile_forward(nn.Linear(4, 2).eval(), torch.ones(3, 4))
        >>> forward(torch.ones(5, 4)).shape
        torch.Size([5, 2])
    """
    example = example.detach().clone()
    expected = _eager(module)(example[:_NUM_CHECKED])
    try:
        file = graph_file(module, example)
    except ImportError as error:
        return CompiledForward(_eager(module), f"OpenVINO is not installed ({error}), so PyTorch runs the network.")
    run = _from_cache(file, example, expected, tolerance=tolerance)
    if run is not None:
        return CompiledForward(run, None)
    try:
        graph = _convert(module, example)
        run, difference = _compared(graph, example, expected)
    except _conversion_errors() as error:
        reason = (str(error) or type(error).__name__).strip().splitlines()[0]
        return CompiledForward(_eager(module), f"OpenVINO cannot run this network ({reason}), so PyTorch does.")
    if not difference <= tolerance:
        note = (
            f"OpenVINO's answer differs from PyTorch's by {difference:.1e} (allowed {tolerance:.0e}), so PyTorch runs."
        )
        return CompiledForward(_eager(module), note)
    write_graph(file, graph)
    return CompiledForward(run, None)


def _from_cache(
    file: Path, example: Tensor, expected: Tensor, *, tolerance: float
) -> Callable[[Tensor], Tensor] | None:
    """Compile the graph in a file, or give None where there is none, or it does not do: it is converted afresh then."""
    graph = read_graph(file)
    if graph is None:
        return None
    try:
        run, difference = _compared(graph, example, expected)
    except RuntimeError:  # OpenVINO's, for a graph that it does not take after all
        return None
    return run if difference <= tolerance else None


def _compared(graph: Graph, example: Tensor, expected: Tensor) -> tuple[Callable[[Tensor], Tensor], float]:
    """Compile a graph; give how to run it, and its difference from PyTorch's answer to the first images."""
    num_streams = max(1, min(torch.get_num_threads(), len(example) // IMAGES_A_REQUEST))
    run = _in_streams(_compile(graph, example.shape[1:], num_streams=num_streams), num_streams)
    return run, _difference(run(example[: len(expected)]), expected)


def _convert(module: nn.Module, example: Tensor) -> Graph:
    import openvino

    # Outside inference mode: its tensors cannot become a graph's constants.
    with torch.inference_mode(mode=False), torch.no_grad(), _quiet_tracing():
        sample = example[:2].clone()
        frozen = torch.jit.freeze(torch.jit.trace(module.eval(), sample, check_trace=False))
        return Graph.from_model(openvino.convert_model(frozen, example_input=sample))


def _compile(graph: Graph, image_shape: torch.Size, *, num_streams: int) -> openvino.CompiledModel:
    """Compile from the written form always, so that a fresh graph and one from the cache give the same bits."""
    import openvino

    core = openvino.Core()
    constants = openvino.Tensor(np.frombuffer(graph.constants, np.uint8))
    model = core.read_model(graph.layers, constants)
    model.reshape({model.input(0): openvino.PartialShape([IMAGES_A_REQUEST, *image_shape])})
    threads = {"NUM_STREAMS": num_streams, "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    return core.compile_model(model, "CPU", _SETTINGS | threads)


def _in_streams(compiled: openvino.CompiledModel, num_streams: int) -> Callable[[Tensor], Tensor]:
    import openvino

    queue = openvino.AsyncInferQueue(compiled, num_streams)
    done: dict[int, NDArray[np.float32]] = {}

    def keep(request: Any, number: int) -> None:
        done[number] = request.get_output_tensor().data.copy()  # the request's own memory serves the next one

    queue.set_callback(keep)

    def run(pixels: Tensor) -> Tensor:
        done.clear()
        parts = pixels.split(IMAGES_A_REQUEST)
        for number, part in enumerate(parts):
            queue.start_async([_filled_up(part.numpy())], number)
        queue.wait_all()
        return torch.from_numpy(np.concatenate([done[number] for number in range(len(parts))])[: len(pixels)])

    return run


def _filled_up(values: NDArray[Any]) -> NDArray[Any]:
    """Add black images where there are too few for a request."""
    missing = IMAGES_A_REQUEST - len(values)
    if missing:
        values = np.concatenate([values, np.zeros((missing, *values.shape[1:]), values.dtype)])
    return np.ascontiguousarray(values)


def _eager(module: nn.Module) -> Callable[[Tensor], Tensor]:
    def run(pixels: Tensor) -> Tensor:
        with torch.inference_mode():
            return module(pixels)

    return run


def _difference(values: Tensor, reference: Tensor) -> float:
    if values.shape != reference.shape:
        return float("inf")
    return float((values - reference).abs().max() / reference.abs().max().clamp_min(1e-12))


def _conversion_errors() -> tuple[type[Exception], ...]:
    """Give what tracing and OpenVINO's conversion raise for networks that they cannot take."""
    import openvino.frontend

    own = [getattr(openvino.frontend, name) for name in dir(openvino.frontend) if name.endswith("Failure")]
    return (RuntimeError, TypeError, ValueError, AttributeError, KeyError, IndexError, AssertionError, *own)


@contextmanager
def _quiet_tracing() -> Iterator[None]:
    with warnings.catch_warnings():
        # torch.jit is on its way out, and shape checks inside timm are constants once traced: both are meant here.
        warnings.simplefilter("ignore")
        yield
