"""Stage 2: fine-tuning. Epoch → step, on Lightning Fabric, resumable at any step with the same bits on a CPU.

The order of the samples, every augmentation, dropout's draws and the learning rate are functions of seed, epoch and
step. So a checkpoint needs weights, optimizer moments, the moving average and a few counters, and nothing else.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor

from headstart.data.augmentation import Maps
from headstart.data.batches import Batch, BatchLoader
from headstart.errors import TrainingError, must_be
from headstart.files import link_aside
from headstart.models.inference import BATCH_SIZE, evaluation_loader
from headstart.progress import say, track
from headstart.randomness import permutation, words
from headstart.recipe import Recipe
from headstart.training.activations import ActivationLoader, KeptActivations
from headstart.training.checkpoints import load_training, save_checkpoint, save_training, under_prefix
from headstart.training.compiling import as_written, try_compiling
from headstart.training.counters import Counters
from headstart.training.history import PARTS, History, Row, epoch_row
from headstart.training.interrupts import held_back
from headstart.training.mixing import draw_mixing
from headstart.training.optimizers import are_finite, make_optimizer, parameter_groups, set_lr
from headstart.training.schedules import Schedule, steps_in
from headstart.training.tasks import finite_scores

if TYPE_CHECKING:
    from lightning.fabric import Fabric

    from headstart.data.store import PixelStore
    from headstart.models.network import Network
    from headstart.training.tasks import Task

LAST = "last.safetensors"
BEST = "best.safetensors"
EPOCH = "epoch.safetensors"
"""The checkpoint that the epoch under way began with: where a training that diverges goes back to."""


class _DivergedError(Exception):
    """The loss is no finite number any more."""


@dataclass(frozen=True)
class TrainingData:
    """The pixels, the samples to learn from, and the samples that pick the best epoch, as the task gives them.

    Where the first blocks are frozen, what they gave may be kept: training then starts from that.
    """

    store: PixelStore
    train: Any
    validation: Any
    kept: KeptActivations | None = None


class FineTuning:
    """A fine-tuning under way.

    Args:
        fabric: Launched; places the network and the precision.
        network: With its head as the probe left it and its parts frozen as the recipe says.
        data: What to learn from, and what picks the best epoch.
        task: What is learned: augmentation, targets, loss and scores.
        recipe: The settings.
        folder: The run folder. Checkpoints lie in ``checkpoints/``; one that is there is continued.
        history: Where each epoch is written down; None on all ranks but the first.
        on_epoch: Called with each epoch's row (on the first rank).
    """

    def __init__(
        self,
        fabric: Fabric,
        network: Network,
        data: TrainingData,
        *,
        task: Task,
        recipe: Recipe,
        folder: Path,
        history: History | None = None,
        on_epoch: Callable[[Row], None] = lambda _: None,
    ) -> None:
        self.fabric, self.data, self.recipe, self.task = fabric, data, recipe, task
        self.history, self.on_epoch = history, on_epoch
        self.folder = folder / "checkpoints"
        self.network = network.to(memory_format=torch.channels_last)
        self.ema = _make_ema(self.network, recipe)
        self.module, self.optimizer = fabric.setup(self.network, self._make_optimizer())
        if self.ema is not None:
            self.ema.to(fabric.device)
        self.counters = Counters(num_parts=recipe.accumulate)
        self.deadline: float | None = None
        self._last_saved = time.monotonic()
        self._validation_seconds = math.inf  # unknown
        self._is_unfrozen = self._has_diverged = self._has_probed = False

    def _make_optimizer(self) -> torch.optim.Optimizer:
        """Make the optimizer over all that will ever train; what is still frozen has no gradients yet."""
        network, recipe = self.network, self.recipe
        network.unfreeze(*recipe.stages)  # also of epochs that come by --resume
        groups = parameter_groups(
            network.named_parameters(),
            weight_decay=recipe.weight_decay,
            blocks=network.blocks if recipe.layer_decay else (),
            layer_decay=recipe.layer_decay,
        )
        network.unfreeze(recipe.trains_at(0))
        # a fused step takes over the scaling of fp16, and its gradients then cannot be clipped
        clips_scaled = recipe.clip_grad is not None and self.fabric.strategy.precision.precision == "16-mixed"
        return make_optimizer(groups, recipe, lr=recipe.lr, fused=not clips_scaled)

    @property
    def batch_size(self) -> int:
        """Samples a step, over all devices."""
        return self.recipe.batch_size * self.recipe.accumulate

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch."""
        return steps_in(len(self.data.train.records), self.recipe, num_devices=self.fabric.world_size)

    def run(self) -> Counters:
        """Train to the end, from wherever the last checkpoint stands.

        Returns:
            The counters. The best epoch's weights are in ``checkpoints/best.safetensors``.

        Raises:
            TrainingError: The loss is no longer a number; the last good checkpoint stays. A run that is taken up again
                ends with its best epoch where there was one.
        """
        self._restore()
        if self.deadline is not None:  # what was spent before the run was cut off counts
            self.deadline -= self.counters.elapsed
        try:
            while not self.counters.finished:
                try:
                    self.train_epoch()
                except _DivergedError as problem:
                    self._go_back(str(problem))
                else:
                    self._end_epoch()
        except KeyboardInterrupt:
            self._save()
            raise
        return self.counters

    def train_epoch(self) -> None:
        """Train on what is left of the epoch under way."""
        counters = self.counters
        self._unfreeze_for(counters.epoch)
        self.module.train()
        loader = self._loader(counters.epoch, first_batch=counters.step)
        num_left, batch_size = self.steps_per_epoch - counters.step, self.batch_size
        with track(
            f"epoch {counters.epoch + 1}/{self.recipe.epochs}",
            max(min(num_left * batch_size, len(self.data.train.records) - counters.step * batch_size), 0),
            quiet=self.fabric.global_rank > 0,
            is_said_after=True,
        ) as advance:
            for batch in _first(loader, num_left):
                if not self._has_probed:
                    self._probe_compiling(batch)
                with held_back(), self._timed("step"):
                    self.train_step(batch)
                advance(len(batch.positions) * self.fabric.world_size)
                if self._is_late():
                    break
                if time.monotonic() - self._last_saved > self.recipe.checkpoint_seconds:
                    self._save()
        counters.add_seconds(**loader.seconds)
        if not are_finite(self.network.parameters()):  # spoiled by the last step, whose loss still was a number
            self._has_diverged = True
            raise _DivergedError(f"there were weights that are no numbers after epoch {counters.epoch + 1}")

    def _probe_compiling(self, batch: Batch) -> None:
        """Compile the network where the recipe asks for it and it pays; a resumed run does what it did before."""
        self._has_probed = True
        counters, recipe = self.counters, self.recipe
        if (
            self.data.kept is not None
            or recipe.compile == "off"
            or counters.is_compiled is False
            or len(batch) < self._compiled_size
        ):
            return
        inputs = self._inputs(batch, self._steps_done)

        def step() -> float:
            return float(self._gradients(*inputs))

        steps_left = recipe.epochs * self.steps_per_epoch - self._steps_done
        is_asked = recipe.compile == "on" or counters.is_compiled is True
        with self._timed("compile"):
            verdict = try_compiling(self.network, step, steps_left=steps_left, is_asked=is_asked)
        counters.is_compiled = verdict.is_compiled
        self.optimizer.zero_grad(set_to_none=True)
        if self.fabric.is_global_zero:
            say(verdict.words)

    @property
    def _compiled_size(self) -> int:
        """Samples of the batches that a compiled network is for; the last one of an epoch runs as written."""
        return self.recipe.batch_size // self.fabric.world_size

    def _is_late(self) -> bool:
        """Say whether a budget's time for training is over; one device's word counts for all."""
        if self.deadline is None:
            return False
        return bool(self.fabric.broadcast(time.monotonic() > self.deadline))

    def _unfreeze_for(self, epoch: int) -> None:
        """Let train what the recipe says for this epoch; said where it changes."""
        what = self.recipe.trains_at(epoch)
        if epoch and what == self.recipe.trains_at(epoch - 1) and self._is_unfrozen:
            return
        self.network.unfreeze(what)
        self._is_unfrozen = True
        if self.fabric.is_global_zero:
            say(f"epoch {epoch + 1}: {self.network.describe_training(what)}")

    def train_step(self, batch: Batch) -> None:
        """Train on one batch: learning rate, forward, backward, optimizer, moving average."""
        counters, recipe, done = self.counters, self.recipe, self._steps_done
        set_lr(self.optimizer, self._lr(done))
        torch.manual_seed(int(words(recipe.seed, stream="torch", epoch=0, indices=[done], count=1)[0, 0]))
        pixels, targets = self._inputs(batch, done)
        loss = self._gradients(pixels, targets)
        if recipe.clip_grad is not None:
            self.fabric.clip_gradients(self.module, self.optimizer, max_norm=recipe.clip_grad, error_if_nonfinite=False)
        self.optimizer.step()
        if self.ema is not None:
            self.ema.update(self.network, step=done)
        value = float(cast("Tensor", self.fabric.all_reduce(loss, reduce_op="mean")))  # the same on all devices
        if not math.isfinite(value):
            self._has_diverged = True
            raise _DivergedError(f"the loss was {value} in epoch {counters.epoch + 1}, step {counters.step + 1}")
        counters.loss_sum += value * len(batch)
        counters.num_seen += len(batch)
        counters.num_images += len(batch)
        counters.step += 1

    def _inputs(self, batch: Batch, step: int) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Give a batch's pixels and targets on the device, mixed where the recipe says so."""
        device, contract = self.fabric.device, self.network.contract
        targets = self.task.targets(self.data.train, batch.positions, batch.affine, contract)
        targets = tuple(target.to(device, non_blocking=True) for target in targets)
        pixels = batch.pixels.to(device, non_blocking=True)
        number = step * self.fabric.world_size + self.fabric.global_rank
        mixing = draw_mixing(self.recipe, step=number, num_samples=len(batch), image_size=contract.image_size)
        if mixing is None:
            return pixels, targets
        return mixing.mixed_pixels(pixels), self.task.mixed(self.network.head, targets, mixing)

    def _gradients(self, pixels: Tensor, targets: tuple[Tensor, ...]) -> Tensor:
        """Give the batch's mean loss and leave its gradients; where memory is short, part by part."""
        while True:
            try:
                return self._gradients_by_parts(pixels, targets)
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if not is_out_of_memory(error) or self.fabric.world_size > 1:
                    raise
            self._split_further(len(pixels))

    def _gradients_by_parts(self, pixels: Tensor, targets: tuple[Tensor, ...]) -> Tensor:
        self.optimizer.zero_grad(set_to_none=True)
        whole = min(self.batch_size // self.fabric.world_size, len(self.data.train.records))
        # the last step of an epoch has fewer samples, in parts as large
        num_parts = max(min(-(-len(pixels) * self.counters.num_parts // whole), len(pixels) // 2), 1)
        pieces = zip(*(tensor.tensor_split(num_parts) for tensor in (pixels, *targets)), strict=True)
        total = torch.zeros((), device=pixels.device)
        for number, (part, *theirs) in enumerate(pieces, 1):
            with self.fabric.no_backward_sync(self.module, enabled=number < num_parts):
                outputs = self._outputs(part)
                loss = self.task.loss(self.network.head, outputs, tuple(theirs)) * (len(part) / len(pixels))
                self.fabric.backward(loss)
            total = total + loss.detach()
        return total

    def _outputs(self, inputs: Tensor) -> Tensor:
        """Give the head's outputs for pixels, or for kept activations."""
        if self.data.kept is not None:
            with self.data.kept.cut.fed(self.network, inputs) as pictures:
                return self.module(pictures)
        with nullcontext() if len(inputs) == self._compiled_size else as_written():
            return self.module(inputs)

    def _split_further(self, num_samples: int) -> None:
        """Send batches through the network in twice as many parts: the step stays the same but for batch norm."""
        counters = self.counters
        self.optimizer.zero_grad(set_to_none=True)
        if counters.num_parts * 2 > num_samples // 2:
            problem = f"batches of {num_samples // counters.num_parts} samples"
            remedy = "A smaller --image-size or backbone, or fewer --unfreeze blocks need less."
            raise TrainingError(must_be("memory", "enough for a step", problem, remedy))
        counters.num_parts *= 2
        torch.cuda.empty_cache()
        part = -(-num_samples // counters.num_parts)
        say(f"Out of memory: each batch of {num_samples} now goes through the network in parts of {part}; a step is "
            "made from all of them as before.")  # fmt: skip

    def _go_back(self, problem: str) -> None:
        """Take up the epoch again from its start at half the learning rate; the second time is the end."""
        if self.counters.lr_scale < 1:
            where = f"It came again after the learning rate had been halved, to {self._lr(self._steps_done):.2g}."
            remedy = f"{where} Try a lower --lr, or --clip-grad 1."
            if self.counters.best_epoch:
                self._load(self.folder / EPOCH)
                self.counters.extend(self.recipe.epochs)
                self.counters.finished, self.counters.stopped = True, problem
                self._save()
                self.fabric.barrier()  # else an error of another device could end the one that writes
                remedy += " With headstart train --resume RUN it ends with the best epoch there was."
            raise TrainingError(must_be("the training loss", "a finite number", problem, remedy))
        if self.fabric.is_global_zero:
            say(f"Training diverged: {problem}. The epoch starts again, at half the learning rate.")
        self._load(self.folder / EPOCH)
        self.counters.extend(self.recipe.epochs)
        self.counters.lr_scale = 0.5
        self._save(starts_epoch=True)

    @property
    def _steps_done(self) -> int:
        return self.counters.epoch * self.steps_per_epoch + self.counters.step

    def _end_epoch(self) -> None:
        if time.monotonic() - self._last_saved + self._validation_seconds > self.recipe.checkpoint_seconds:
            self._save()  # else a kill towards the end of validation would lose more
        start = time.monotonic()
        with self._timed("validation"):
            # The first rank's word counts: batch norm's statistics differ, and all have to stop in the same epoch.
            scores = self.fabric.broadcast(self._validate())
        self._validation_seconds = time.monotonic() - start
        with held_back():
            self._close_epoch(scores)

    def _close_epoch(self, scores: dict[str, float]) -> None:
        """Write the epoch down, keep its weights if they are the best, and save where training stands."""
        counters, recipe = self.counters, self.recipe
        spent = {part: counters.epoch_seconds.get(part, 0.0) for part in PARTS}
        row = epoch_row(
            "fine-tune", counters.epoch + 1, lr=self._lr(self._steps_done - 1),
            train_loss=counters.loss_sum / max(counters.num_seen, 1), scores=scores,
            seconds=spent["wait"] + spent["step"], num=counters.num_seen,
        )  # fmt: skip
        row |= {f"{part}_seconds": seconds for part, seconds in spent.items()}
        counters.epoch, counters.step, counters.loss_sum, counters.num_seen = counters.epoch + 1, 0, 0.0, 0
        counters.epoch_seconds = {}
        if counters.take_score(scores[recipe.monitor], scores[recipe.stop_by or recipe.monitor], recipe):
            counters.best_scores = scores
            self._save_best()
        counters.finished = counters.epoch >= recipe.epochs or counters.has_waited(recipe.patience) or self._is_late()
        if self.history is not None:
            self.history.append(row)
            self.on_epoch(row)
        self._save(starts_epoch=True)

    def _validate(self) -> dict[str, float]:
        """Score the moving average (or the weights themselves) on validation, as in use."""
        evaluated: Network = self.ema.module if self.ema is not None else self.network  # pyright: ignore[reportAssignmentType]
        evaluated.eval()
        with torch.inference_mode(), self.fabric.autocast(), as_written():
            answers = torch.cat([answer.float().cpu() for answer in self._answers(evaluated)])
        return finite_scores(self.task, answers, self.data.validation, self.network.contract)

    def _answers(self, network: Network) -> Iterator[Tensor]:
        """Give the answers for validation, batch by batch."""
        samples, kept, device = self.data.validation, self.data.kept, self.fabric.device
        if kept is not None:
            for batch in ActivationLoader(kept.validation, 0, np.arange(len(samples.records)), BATCH_SIZE):
                with kept.cut.fed(network, batch.pixels.to(device)) as pictures:
                    yield network.answers(pictures)
            return
        loader = evaluation_loader(
            network, self.data.store, samples.records, boxes=samples.boxes, num_threads=self.recipe.num_threads
        )
        for batch in loader:
            yield network.answers(batch.pixels.to(device))

    def _loader(self, epoch: int, *, first_batch: int) -> BatchLoader | ActivationLoader:
        world, rank, recipe = self.fabric.world_size, self.fabric.global_rank, self.recipe
        order = permutation(recipe.seed, stream="order", epoch=epoch, num_samples=len(self.data.train.records))
        contract, kept = self.network.contract, self.data.kept
        if kept is not None:
            return ActivationLoader(kept.train, epoch % len(kept.train.values), order, self.batch_size, first_batch)

        def maps_for(positions: NDArray[np.integer]) -> Maps:
            return self.task.draw(self.data.train, positions, contract, epoch=epoch)

        return BatchLoader(
            self.data.store,
            self.data.train.records,
            maps_for=maps_for,
            image_size=contract.image_size,
            batch_size=self.batch_size // world,
            order=share_of_rank(order, rank=rank, world_size=world),
            first_batch=first_batch,
            num_threads=recipe.num_threads,
            device=str(self.fabric.device),
        )

    def _lr(self, step: int) -> float:
        schedule = Schedule(self.recipe, self.steps_per_epoch)
        return schedule.rate(step, self.counters.monitored) * self.counters.lr_scale

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.counters.add_seconds(**{part: time.perf_counter() - start})

    def _save_best(self) -> None:
        if self.fabric.is_global_zero:
            evaluated = self.ema.module if self.ema is not None else self.network
            save_checkpoint(self.folder / BEST, evaluated.state_dict(), {"epoch": self.counters.best_epoch})

    def _save(self, *, starts_epoch: bool = False) -> None:
        """Save where training stands, unless it has gone astray; an epoch's start is kept for one that diverges."""
        if self._has_diverged:
            return
        start = time.perf_counter()
        if self.fabric.is_global_zero:
            parts = {"network": self.network.state_dict()}
            if self.ema is not None:
                parts["ema"] = self.ema.module.state_dict()
            rows = self.history.rows if self.history else []
            save_training(self.folder / LAST, parts, self.optimizer, {"counters": asdict(self.counters), "rows": rows})
            if starts_epoch:
                link_aside(self.folder / LAST, self.folder / EPOCH)
        self._last_saved = time.monotonic()
        self.counters.add_seconds(checkpoint=time.perf_counter() - start)

    def _restore(self) -> None:
        if (self.folder / LAST).exists():
            self._load(self.folder / LAST)
        else:
            self._save(starts_epoch=True)
        self.counters.extend(self.recipe.epochs)

    def _load(self, path: Path) -> None:
        """Take up weights, moments and counters from a checkpoint."""
        tensors, state = load_training(path, self.optimizer)
        self.network.load_state_dict(under_prefix("network", tensors))
        if self.ema is not None:
            self.ema.module.load_state_dict(under_prefix("ema", tensors))
        self.counters = Counters.from_state(state["counters"])
        self._has_diverged = False


def is_out_of_memory(error: Exception) -> bool:
    """Say whether an error means that memory has run out, on a GPU or a CPU."""
    words_of_it = ("out of memory", "can't allocate memory", "not enough memory", "bad_alloc")
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in words_of_it)


def share_of_rank(order: NDArray[np.int64], *, rank: int, world_size: int) -> NDArray[np.int64]:
    """Give the part of an epoch's order that one rank takes: every ``world_size``-th sample, equally many on each.

    Examples:
        >>> share_of_rank(np.arange(7), rank=1, world_size=2).tolist()
        [1, 3, 5]
    """
    whole = len(order) // world_size * world_size
    return order[rank:whole:world_size]


def _first(loader: BatchLoader | ActivationLoader, num_batches: int) -> Iterator[Batch]:
    """Give the first batches of a loader, maybe none; leaving the loop early shuts its threads down."""
    if num_batches < 1:
        return
    for number, batch in enumerate(loader, 1):
        yield batch
        if number >= num_batches:
            return


def _make_ema(network: Network, recipe: Recipe) -> ModelEmaV3 | None:
    """Keep a moving average of weights and buffers; its decay rises from 0, so that short trainings profit too."""
    if not recipe.ema_decay:
        return None
    return ModelEmaV3(network, decay=recipe.ema_decay, use_warmup=True)
