"""What a recipe may say of labels, and what is refused by name before any work."""

import pytest

from headstart.errors import RecipeError
from headstart.recipe import Recipe, make_recipe, read_recipe
from headstart.resolution import completed


def test_a_plain_name_is_one_label_by_either_setting():
    for settings in ({"label": "mask"}, {"label_column": "mask"}):
        found = make_recipe(settings).labels
        assert (found.form, found.names) == ("single", ("mask",))


def test_a_column_whose_name_holds_a_comma_can_still_be_named():
    assert make_recipe({"label_column": "size, cm"}).labels.names == ("size, cm",)


def test_python_and_toml_may_give_lists_and_tables(tmp_path):
    recipe = make_recipe({"label": ["mask", "age"], "label_weights": {"age": 2}, "label_bins": {"age": [30, 60]}})
    recipe.save(tmp_path / "recipe.toml")
    found = make_recipe(read_recipe(tmp_path / "recipe.toml")).labels
    assert found == recipe.labels
    assert (found.weight("mask"), found.weight("age"), found.bins) == (1.0, 2.0, {"age": (30.0, 60.0)})


def test_several_labels_in_a_cell_bring_their_own_defaults():
    recipe = make_recipe({"multi_label": "tags"})
    assert (recipe.monitor, recipe.loss, recipe.label_smoothing) == ("mean_average_precision", "bce", 0.0)
    assert (Recipe().loss, Recipe().label_smoothing) == ("cross_entropy", 0.1)


def test_another_form_of_labels_given_anew_drops_what_followed_from_the_old():
    base = make_recipe({"multi_label": "tags", "label_separator": ";"}).model_dump(exclude_none=True)
    recipe = make_recipe(completed({"label": "mask,age", "data": "x.csv"}, base))
    assert (recipe.labels.form, recipe.monitor, recipe.label_separator) == ("heads", "accuracy", None)
    assert (recipe.loss, recipe.label_smoothing) == ("cross_entropy", 0.1)
    back = make_recipe(completed({"multi_label": "tags"}, recipe.model_dump(exclude_none=True)))
    assert (back.labels.form, back.loss, back.monitor) == ("multi", "bce", "mean_average_precision")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"label": "a,b+c"}, r"label must be columns joined by commas .* or by \+"),
        ({"label": "a,,b"}, "label must be column names, each once"),
        ({"label": "a,a"}, "label must be column names, each once"),
        ({"label": "a", "multi_label": "b"}, "multi_label must be left out beside label; got 'b'"),
        ({"label": "a", "label_column": "a"}, "label_column must be left out beside label"),
        ({"label": "a,b", "label_weights": "c=1"}, r"label_weights must name columns of label \(a, b\); got 'c'"),
        ({"label": "a+b", "label_weights": "a=1"}, "label_weights must be left out where label does not name several"),
        ({"label": "a,b", "label_weights": "a=0,b=0"}, "must leave a head with a weight above 0"),
        ({"label": "a,b", "label_weights": "a=-1"}, "label_weights must be one weight, 0 or more"),
        ({"label": "a", "label_bins": "b=1"}, "label_bins must name columns of label"),
        ({"label_bins": "b=1"}, r"label_bins must name columns of label \(none is named; say --label NAME\)"),
        ({"label": "a", "label_bins": "a=60,30"}, "label_bins must be rising edges"),
        ({"label": "a", "label_bins": "a=old"}, "label_bins must be numbers after each name; 'old' is none"),
        ({"label": "a", "label_separator": ";"}, "label_separator must be left out without multi_label"),
        ({"label": "a", "monitor": "exact"}, "monitor must be one for one label; got 'exact'"),
        ({"label": "a,b", "monitor": "micro_f1"}, "monitor must be one for several heads"),
        ({"multi_label": "a", "monitor": "accuracy"}, "monitor must be one for multi_label"),
        (
            {"multi_label": "a", "loss": "cross_entropy"},
            "loss must be bce, focal or soft_f1 for multi_label; got 'cross_entropy'",
        ),
        ({"label": "a,b", "loss": "focal", "focal_alpha": 0.3}, "focal_alpha must be left out for several heads"),
        ({"task": "keypoints", "label": "a,b"}, "label must be left out for keypoints"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused(settings, words):
    with pytest.raises(RecipeError, match=words):
        make_recipe(settings)
