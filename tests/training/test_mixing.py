"""CutMix and MixUp: pixels and targets are mixed in the same share, by draws that depend on the step alone."""

import numpy as np
import pytest
import torch

from headstart.errors import RecipeError
from headstart.recipe import make_recipe
from headstart.training.losses import as_shares
from headstart.training.mixing import draw_mixing

SIZE = (40, 30)


def _draw(step=0, **settings):
    return draw_mixing(make_recipe(settings), step=step, num_samples=16, image_size=SIZE)


def _photos():
    """Sixteen photos of one colour each: the photo's number, times ten."""
    return (10 * torch.arange(16, dtype=torch.uint8))[:, None, None, None].expand(16, *SIZE, 3)


@pytest.mark.parametrize("per", ["batch", "sample"])
def test_a_photo_shows_of_its_partner_what_its_target_says(per):
    for step in range(20):
        mixing = _draw(step, cutmix=1.0, mix_per=per)
        mixed = mixing.mixed_pixels(_photos())
        assert mixed.dtype == torch.uint8
        own = (mixed[..., 0] == _photos()[..., 0]).float().mean((1, 2)).numpy()
        differs = mixing.partners != np.arange(16)
        assert own[differs] == pytest.approx(mixing.shares[differs], abs=1e-6)
        assert (len(set(mixing.shares.tolist())) == 1) == (per == "batch")


def test_blended_photos_lie_between_both_as_the_target_says():
    mixing = _draw(cutmix=0.0, mixup=1.0, mixup_alpha=1.0, mix_per="sample")
    mixed = mixing.mixed_pixels(_photos())[:, 0, 0, 0].numpy()
    numbers = np.arange(16)
    assert mixed == pytest.approx(10 * (mixing.shares * numbers + (1 - mixing.shares) * mixing.partners), abs=1e-3)
    shares = mixing.mixed_shares(as_shares(torch.arange(16), 16))
    assert shares.sum(1).numpy() == pytest.approx(np.ones(16), abs=1e-6)
    expected = np.where(mixing.partners == numbers, 1, mixing.shares)
    assert shares[range(16), range(16)].numpy() == pytest.approx(expected, abs=1e-6)


def test_batches_are_mixed_as_often_as_the_probability_says():
    mixed = [_draw(step, cutmix=0.3, mixup=0.2) for step in range(600)]
    found = [mixing for mixing in mixed if mixing is not None]
    assert len(found) / 600 == pytest.approx(0.5, abs=0.07)
    assert np.mean([mixing.is_blended.all() for mixing in found]) == pytest.approx(0.4, abs=0.1)


def test_the_shares_follow_the_beta_of_the_papers():
    kept = np.array([_draw(step, mixup=1.0, mixup_alpha=0.4).shares[0] for step in range(800)])
    assert kept.mean() == pytest.approx(0.5, abs=0.05)
    assert kept.var() == pytest.approx(0.25 / (2 * 0.4 + 1), rel=0.15)


def test_the_same_step_draws_the_same_and_another_step_another():
    assert _draw(3, cutmix=1.0).partners.tolist() == _draw(3, cutmix=1.0).partners.tolist()
    assert _draw(3, cutmix=1.0).partners.tolist() != _draw(4, cutmix=1.0).partners.tolist()


def test_nothing_is_drawn_where_nothing_is_mixed():
    assert _draw() is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cutmix": 0.7, "mixup": 0.5}, r"cutmix \+ mixup must be at most 1; got 1\.2"),
        ({"cutmix_alpha": 0.5}, r"cutmix_alpha must be left out without --cutmix above 0"),
        ({"task": "keypoints", "cutmix": 0.5}, "cutmix must be left out for keypoints"),
    ],
)
def test_mixing_that_makes_no_sense_is_refused(settings, message):
    with pytest.raises(RecipeError, match=message):
        make_recipe(settings)
