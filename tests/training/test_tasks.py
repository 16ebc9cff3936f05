"""Keypoint targets follow the pixels: mirrored pairs swap, points that leave the picture do not count."""

from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch

from headstart.data import geometry
from headstart.data.augmentation import AugmentationPolicy, draw_maps_for_points
from headstart.data.keypoint_samples import crop_boxes, keypoint_samples
from headstart.data.keypoints import KeypointLayout, keypoint_columns
from headstart.errors import RecipeError
from headstart.models.backbones import InputContract
from headstart.recipe import Recipe
from headstart.training.tasks import Keypoints, keypoint_policy

CONTRACT = InputContract((80, 60), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), fit="letterbox")
LAYOUT = KeypointLayout(("left", "right", "nose"), flip_pairs=((0, 1),))
COMMON = {"seed": 3, "epoch": 1, "image_size": (64, 64), "fit": "letterbox", "crop_fraction": 1.0}


def samples(*, num=6, recipe=None, visible=None):
    """Samples of 200×300 photos stored at half size, with points around the middle."""
    rng = np.random.default_rng(0)
    points = rng.uniform([100, 60], [200, 140], (num, 3, 2))
    frame = pl.DataFrame({"record": range(num), "sample_id": range(num), "height": [200] * num, "width": [300] * num})
    frame = frame.with_columns(keypoint_columns(points, visible))
    store = SimpleNamespace(sizes=np.full((num, 2), [100, 150]), scales=np.full((num, 2), 0.5))
    return keypoint_samples(frame, store, recipe or Recipe(task="keypoints"))


def task(**settings):
    return Keypoints(Recipe(task="keypoints", **settings), LAYOUT)


def test_points_go_through_the_model_and_back():
    found, one = samples(), task()
    positions = np.arange(len(found))
    maps = one.draw(found, positions, CONTRACT, epoch=0)
    shares, _ = one.targets(found, positions, maps.affine, CONTRACT)
    mirrored = geometry.mirrored(maps.affine)
    shares[mirrored] = shares[mirrored][:, LAYOUT.mirrored_order()]
    back = found.to_original(shares.double().numpy(), maps.affine, image_size=CONTRACT.image_size)
    assert np.abs(back - found.original).max() < 0.01


def test_a_mirrored_picture_has_its_pairs_swapped():
    found = samples(num=1)
    flip = geometry.flips([True], [False], image_size=CONTRACT.image_size)
    plain = geometry.resize_and_crop(found.stored_sizes, image_size=CONTRACT.image_size, fit="letterbox")
    as_is, _ = task().targets(found, np.array([0]), plain, CONTRACT)
    swapped, _ = task().targets(found, np.array([0]), geometry.compose(plain, flip), CONTRACT)
    assert torch.allclose(swapped[0, :, 0], 1 - as_is[0, [1, 0, 2], 0], atol=1e-6)
    assert torch.allclose(swapped[0, :, 1], as_is[0, [1, 0, 2], 1], atol=1e-6)


def test_a_point_outside_the_frame_does_not_count():
    found = samples(num=1)
    far = geometry.scale_and_shift(np.ones((1, 2)), np.array([[1000.0, 0.0]]))
    assert not task().targets(found, np.array([0]), far, CONTRACT)[1].any()


def test_hidden_points_do_not_count():
    found = samples(num=2, visible=[[True, False, True], [False, True, True]])
    plain = geometry.resize_and_crop(found.stored_sizes, image_size=CONTRACT.image_size, fit="letterbox")
    assert task().targets(found, np.arange(2), plain, CONTRACT)[1].tolist() == [
        [True, False, True],
        [False, True, True],
    ]


def test_no_draw_loses_more_points_than_allowed():
    rng, policy = np.random.default_rng(1), AugmentationPolicy(rotation=180, scale=0.6, shift=0.5, horizontal_flip=0.5)
    points = rng.uniform(0, 100, (200, 10, 2))
    common = COMMON | {"sample_ids": np.arange(200), "sizes": np.full((200, 2), 100)}
    maps = draw_maps_for_points(policy, points=points, visible=np.ones((200, 10), bool), max_lost=0.1, **common)
    inside = geometry.is_inside(geometry.apply_to_points(maps.affine, points), (64, 64))
    assert ((~inside).mean(axis=1) <= 0.1).all()
    assert (geometry.mirrored(maps.affine)).any()


def test_a_draw_does_not_depend_on_the_batch_that_a_sample_stands_in():
    rng, policy = np.random.default_rng(1), AugmentationPolicy(rotation=90, scale=0.5, shift=0.4)
    points = rng.uniform(0, 100, (50, 10, 2))
    visible, ids = np.ones((50, 10), bool), np.arange(50)
    together = draw_maps_for_points(
        policy, points=points, visible=visible, max_lost=0.1, sample_ids=ids, sizes=np.full((50, 2), 100), **COMMON
    )
    alone = draw_maps_for_points(
        policy,
        points=points[7:8],
        visible=visible[7:8],
        max_lost=0.1,
        sample_ids=ids[7:8],
        sizes=[[100, 100]],
        **COMMON,
    )
    assert (together.affine[7] == alone.affine[0]).all()


def test_points_outside_the_photo_are_not_counted_as_lost():
    points = np.full((1, 4, 2), 500.0)
    maps = draw_maps_for_points(
        AugmentationPolicy(rotation=30), points=points, visible=np.ones((1, 4), bool), max_lost=0.0, sample_ids=[1],
        sizes=[[100, 100]], **COMMON,
    )  # fmt: skip
    assert abs(maps.affine[0, 0, 1]) > 0  # the draw stands: nothing was lost


def test_a_flip_is_refused_where_the_pairs_are_not_known():
    unknown = KeypointLayout(("a", "b"), flip_note="The shape is not symmetrical.")
    with pytest.raises(RecipeError, match=r"horizontal_flip must be 0 where .* not known; got 0\.5\. The shape is not"):
        keypoint_policy(Recipe(task="keypoints", horizontal_flip=0.5), unknown)
    assert Keypoints(Recipe(task="keypoints"), unknown).policy.horizontal_flip == 0


def test_a_crop_to_the_points_holds_them_with_a_margin():
    recipe = Recipe(task="keypoints", crop_to_points=0.25)
    found = samples(recipe=recipe)
    assert found.boxes is not None
    low, high = found.stored.min(axis=1), found.stored.max(axis=1)
    margin = 0.25 * (high - low).max(axis=1, keepdims=True)
    assert np.allclose(found.boxes, np.concatenate([low - margin, high + margin], axis=1))


def test_a_box_that_some_sample_lacks_is_named():
    frame = pl.DataFrame({"box": pl.Series([[0, 0, 5, 5], None], dtype=pl.Array(pl.Float32, 4))})
    with pytest.raises(ValueError, match="--crop-to-box must be a box that every sample has; got '1 without'"):
        crop_boxes(frame, Recipe(task="keypoints", crop_to_box="face"))


@pytest.mark.parametrize("head", ["coordinates", "integral"])
def test_scores_of_a_perfect_answer_are_zero(head):
    found, one = samples(), task(head=head)
    plain = geometry.resize_and_crop(found.stored_sizes, image_size=CONTRACT.image_size, fit="letterbox")
    shares, _ = one.targets(found, np.arange(len(found)), plain, CONTRACT)
    assert one.scores(shares, found, CONTRACT)["nme"] < 1e-3
