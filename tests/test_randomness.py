import numpy as np
import pytest

from headstart.randomness import STREAMS, generator, permutation, philox, uniforms, words

# Known answers of the reference implementation (Random123, kat_vectors): counter, key, output.
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def hexadecimal(text):
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN_ANSWERS)
def test_philox_gives_the_reference_answers(counter, key, answer):
    first, second = hexadecimal(key)
    drawn = philox(np.array([hexadecimal(counter)], np.uint64), (first, second))
    assert drawn[0].tolist() == hexadecimal(answer)


def test_a_row_depends_on_its_own_index_only():
    together = words(3, stream="augmentation", epoch=2, indices=[8, 1, 700], count=7)
    alone = [words(3, stream="augmentation", epoch=2, indices=[index], count=7)[0] for index in (8, 1, 700)]
    assert (together == np.stack(alone)).all()


def test_asking_for_more_draws_leaves_the_first_ones():
    few = words(3, stream="order", epoch=0, indices=[5], count=3)
    many = words(3, stream="order", epoch=0, indices=[5], count=11)
    assert (many[:, :3] == few).all()


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 1},
        {"seed": 7 + 2**32},
        {"stream": "split"},
        {"epoch": 1},
        {"epoch": 2**24 - 1},
        {"indices": [6]},
        {"indices": [5 + 2**32]},
    ],
)
def test_seed_stream_epoch_and_index_each_change_the_draws(other):
    address = {"seed": 7, "stream": "order", "epoch": 0, "indices": [5], "count": 4}
    changed = address | other
    base = words(address.pop("seed"), **address)
    assert not (base == words(changed.pop("seed"), **changed)).any()


def test_no_two_streams_share_a_number():
    assert len(set(STREAMS.values())) == len(STREAMS)


def test_uniforms_are_uniform_and_below_one():
    drawn = uniforms(0, stream="augmentation", epoch=0, indices=np.arange(20_000), count=5)
    assert drawn.min() >= 0
    assert drawn.max() < 1
    shares = [np.histogram(column, bins=20, range=(0, 1))[0] / len(column) for column in drawn.T]
    assert np.abs(np.array(shares) - 0.05).max() < 0.007  # 4.5 standard errors


def test_draws_of_a_sample_are_uncorrelated():
    drawn = uniforms(1, stream="augmentation", epoch=3, indices=np.arange(20_000), count=8)
    correlation = np.corrcoef(drawn.T) - np.eye(8)
    assert np.abs(correlation).max() < 0.03


def test_permutation_holds_every_sample_once_and_changes_with_the_epoch():
    orders = [permutation(5, stream="order", epoch=epoch, num_samples=1000) for epoch in range(3)]
    assert all(sorted(order.tolist()) == list(range(1000)) for order in orders)
    assert (orders[0] != orders[1]).mean() > 0.9
    assert (orders[1] != orders[2]).mean() > 0.9


def test_permutation_is_the_same_each_time_and_empty_for_nothing():
    first = permutation(5, stream="order", epoch=4, num_samples=100)
    assert (first == permutation(5, stream="order", epoch=4, num_samples=100)).all()
    assert permutation(5, stream="order", epoch=4, num_samples=0).tolist() == []


def test_permutation_puts_any_sample_anywhere():
    firsts = [permutation(seed, stream="order", epoch=0, num_samples=5)[0] for seed in range(1000)]
    assert np.bincount(firsts, minlength=5).min() > 140  # 200 expected, 12.6 the standard deviation


def test_generator_repeats_and_differs_by_stream():
    draws = [generator(9, stream=stream).random(4).tolist() for stream in ("bootstrap", "bootstrap", "noise")]
    assert draws[0] == draws[1]
    assert draws[0] != draws[2]
