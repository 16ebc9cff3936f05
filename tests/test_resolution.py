"""What follows from settings follows from those given last."""

import json

import pytest

from headstart.recipe import Recipe, make_recipe
from headstart.resolution import completed

CLASSES = Recipe().model_dump()
POINTS = Recipe(task="keypoints", nme_points=(36, 45), epochs=9, epochs_before=(5,)).model_dump()


def test_another_task_has_its_own_defaults():
    recipe = make_recipe(completed({"task": "keypoints"}, CLASSES | {"lr": 1e-5}))
    assert (recipe.head, recipe.monitor, recipe.label_smoothing, recipe.lr) == ("integral", "nme", 0.0, 1e-5)
    back = make_recipe(completed({"task": "classification", "nme_by": "box", "epochs": 9}, POINTS))
    assert (back.head, back.loss, back.fit, back.label_smoothing) == ("linear", "cross_entropy", "crop", 0.1)


def test_what_was_set_in_a_recipe_of_the_other_task_is_still_refused():
    with pytest.raises(
        ValueError, match=r"label_smoothing must be 0 for keypoints: only classes are smoothed; got 0\.2"
    ):
        make_recipe(completed({"task": "keypoints"}, CLASSES | {"label_smoothing": 0.2}))


def test_another_length_to_divide_by_takes_the_place_of_the_points():
    by_image = make_recipe(completed({"nme_by": "image"}, POINTS))
    assert (by_image.nme_by, by_image.nme_points) == ("image", ())
    assert make_recipe(completed({"nme_by": "points"}, POINTS)).nme_points == (36, 45)


def test_the_epochs_before_an_extension_hold_until_epochs_are_given():
    assert make_recipe(completed({}, POINTS)).epochs_before == (5,)
    assert make_recipe(completed({"epochs": 4}, POINTS)).epochs_before == ()


def test_the_weights_of_a_parent_are_written_down_until_another_is_named(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name / "bundle").mkdir(parents=True)
        content = json.dumps({"weights": {"sha256": name * 4}})
        (tmp_path / name / "bundle" / "bundle.json").write_text(content, encoding="utf-8")
    first = completed({"from_run": str(tmp_path / "one")})
    assert first["from_sha256"] == "oneoneoneone"
    assert completed({"lr": 1e-5}, first | {"from_sha256": "as it was"})["from_sha256"] == "as it was"
    assert completed({"from_run": str(tmp_path / "two")}, first)["from_sha256"] == "twotwotwotwo"
    assert "from_sha256" not in completed({"from_run": str(tmp_path / "three")}, first)
