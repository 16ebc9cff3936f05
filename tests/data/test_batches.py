import threading
import time

import numpy as np
import pytest
import torch

from headstart.data.augmentation import PRESETS, draw_maps
from headstart.data.batches import BatchLoader
from headstart.errors import HeadstartError
from headstart.randomness import permutation

IMAGE_SIZE = (32, 24)


class MemoryStore:
    """Photos of many sizes in memory; the first two pixels' colour tells the record."""

    def __init__(self, num_records=40, *, broken=None):
        rng = np.random.default_rng(0)
        self.sizes = rng.integers(30, 90, (num_records, 2)).astype(np.int32)
        self.broken = broken

    def read(self, record):
        if record == self.broken:
            raise OSError(f"record {record} cannot be read")
        photo = np.zeros((*self.sizes[record], 3), np.uint8)
        photo[:, :, 0], photo[:, :, 1] = record * 5, np.arange(photo.shape[1]) * 2
        return photo


def make_loader(store=None, *, preset="standard", num_samples=37, batch_size=8, **options):
    store = store or MemoryStore()
    records = np.arange(num_samples)[::-1].copy()

    def maps_for(positions):
        return draw_maps(
            PRESETS[preset],
            seed=3,
            epoch=1,
            sample_ids=positions,
            sizes=store.sizes[records[positions]],
            image_size=IMAGE_SIZE,
            fit="crop",
            crop_fraction=0.875,
        )

    return BatchLoader(store, records, maps_for=maps_for, image_size=IMAGE_SIZE, batch_size=batch_size, **options)


def pixels_of(loader):
    return torch.cat([batch.pixels for batch in loader])


def loader_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("headstart-batches")]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    assert loader_threads() == []


@pytest.mark.parametrize("num_threads", [2, 5, None])
def test_batches_are_the_same_for_any_number_of_threads(num_threads):
    order = permutation(0, stream="order", epoch=0, num_samples=37)
    one, more = (list(make_loader(order=order, num_threads=number)) for number in (1, num_threads))
    assert all(torch.equal(first.pixels, second.pixels) for first, second in zip(one, more, strict=True))
    assert all(np.array_equal(first.positions, second.positions) for first, second in zip(one, more, strict=True))


def test_every_sample_comes_once_in_the_order_given():
    order = permutation(0, stream="order", epoch=0, num_samples=37)
    loader = make_loader(order=order)
    batches = list(loader)
    assert np.array_equal(np.concatenate([batch.positions for batch in batches]), order)
    assert [len(batch) for batch in batches] == [8, 8, 8, 8, 5]
    assert len(loader) == 5


def test_pixels_belong_to_their_positions():
    for batch in make_loader(preset="none"):
        records = 36 - batch.positions
        assert (batch.pixels[:, 0, 0, 0].numpy() == records * 5).all()
        assert batch.pixels.shape[1:] == (*IMAGE_SIZE, 3)
        assert batch.pixels.dtype == torch.uint8


def test_dropping_the_last_batch_leaves_full_ones():
    loader = make_loader(drop_last=True)
    assert [len(batch) for batch in loader] == [8] * 4
    assert len(loader) == loader.num_batches == 4


def test_starting_at_a_later_batch_gives_the_rest_unchanged():
    whole, rest = pixels_of(make_loader()), make_loader(first_batch=3)
    assert torch.equal(pixels_of(rest), whole[24:])
    assert (len(rest), rest.num_batches) == (2, 5)


def test_starting_after_the_last_batch_gives_nothing():
    assert list(make_loader(first_batch=5)) == []
    assert len(make_loader(first_batch=9)) == 0


def test_part_of_the_samples_can_be_ordered():
    positions = [batch.positions.tolist() for batch in make_loader(order=np.array([4, 4, 30]), batch_size=2)]
    assert positions == [[4, 4], [30]]


def test_no_samples_give_no_batches():
    assert list(make_loader(order=np.array([], np.int64))) == []


def test_a_loader_can_be_iterated_again():
    loader = make_loader()
    assert torch.equal(pixels_of(loader), pixels_of(loader))


def test_batches_that_are_kept_do_not_change_later():
    kept = list(make_loader(batch_size=1))
    assert torch.equal(torch.cat([batch.pixels for batch in kept]), pixels_of(make_loader()))


def test_leaving_early_ends_the_threads():
    for _ in make_loader(batch_size=2, num_threads=3):
        assert loader_threads()
        break
    assert loader_threads() == []


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_in_the_loop_ends_the_threads(error):
    def consume():
        for _ in make_loader(batch_size=2, num_threads=3):
            raise error

    with pytest.raises(error):
        consume()
    assert loader_threads() == []


@pytest.mark.parametrize("num_threads", [1, 3])
def test_an_error_of_the_store_reaches_the_loop(num_threads):
    loader = make_loader(MemoryStore(broken=20), num_threads=num_threads)  # position 16, in the third batch
    batches = iter(loader)
    seen = len(next(batches)) + len(next(batches))
    with pytest.raises(OSError, match="record 20 cannot be read"):
        next(batches)
    assert seen == 16
    assert loader_threads() == []


def test_an_error_of_the_maps_reaches_the_loop():
    loader = make_loader()
    loader.maps_for = lambda positions: [][len(positions)]
    with pytest.raises(IndexError):
        list(loader)
    assert loader_threads() == []


@pytest.mark.parametrize("preset", PRESETS)
def test_rendering_on_the_device_shows_the_same(preset):
    by_threads, by_device = (pixels_of(make_loader(preset=preset, render_on=where)) for where in ("threads", "device"))
    off = (by_threads.int() - by_device.int()).abs().float()
    assert off.mean() <= 1
    assert by_device.shape == by_threads.shape


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("render_on", ["threads", "device"])
def test_a_gpu_gets_the_same_batches(preset, render_on):
    on_gpu = pixels_of(make_loader(preset=preset, device="cuda", render_on=render_on))
    off = (pixels_of(make_loader(preset=preset)).int() - on_gpu.cpu().int()).abs().float()
    assert on_gpu.is_cuda
    assert off.mean() <= 1


def test_seconds_say_where_the_time_went():
    class SlowStore(MemoryStore):
        def read(self, record):
            time.sleep(0.002)
            return super().read(record)

    loader = make_loader(SlowStore(), num_threads=2)
    list(loader)
    assert loader.seconds["decode"] >= 37 * 0.002
    assert loader.seconds["augment"] > 0
    assert loader.seconds["wait"] >= 37 * 0.002 / 2 * 0.5


def test_the_next_three_batches_are_made_while_the_loop_works_and_no_more():
    class CountingStore(MemoryStore):
        num_reads = 0

        def read(self, record):
            self.num_reads += 1
            return super().read(record)

    store = CountingStore()
    batches = iter(make_loader(store, batch_size=4, num_threads=1))
    next(batches)
    deadline = time.monotonic() + 5
    while store.num_reads < 16 and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(0.05)
    assert store.num_reads == 16
    batches.close()


def test_bad_settings_are_named_together():
    with pytest.raises(HeadstartError) as error:
        make_loader(batch_size=0, first_batch=-1, num_threads=0, order=np.array([0, 37]))
    for part in (
        "batch_size must be at least 1; got 0",
        "first_batch",
        "num_threads must be at least 1; got 0",
        "from 0 to 36; got 37",
    ):
        assert part in str(error.value)
