"""One definition of every setting; all problems in one message."""

import pytest
from pydantic import ValidationError

from headstart.errors import RecipeError
from headstart.recipe import Recipe, make_recipe, read_recipe


def test_all_problems_stand_in_one_message_with_the_nearest_name():
    with pytest.raises(RecipeError) as caught:
        make_recipe({"epoch": 3, "lr": -1, "fit": "letterbx", "batch_size": "many"})
    message = str(caught.value)
    assert message.startswith("4 problems:")
    assert "recipe.epoch must be a known setting; got 3. Did you mean 'epochs'?" in message
    assert "recipe.lr must be greater than 0; got -1." in message
    assert "got 'letterbx'. Did you mean 'letterbox'?" in message
    assert "recipe.batch_size must be a whole number; got 'many'." in message


@pytest.mark.parametrize(
    ("given", "size"), [("224", (224, 224)), (224, (224, 224)), ("280,210", (280, 210)), ([280, 210], (280, 210))]
)
def test_an_image_size_is_one_number_or_height_and_width(given, size):
    assert make_recipe({"image_size": given}).image_size == size


def test_three_numbers_are_no_image_size():
    with pytest.raises(RecipeError, match="one number, or height and width"):
        make_recipe({"image_size": "1,2,3"})


def test_a_recipe_comes_back_from_its_file_unchanged(tmp_path):
    recipe = make_recipe(
        {"data": "사진", "image_size": "280,210", "unfreeze": 3, "group_pattern": r"(\w+)_", "lr": "5e-6"}
    )
    recipe.save(tmp_path / "recipe.toml")
    assert make_recipe(read_recipe(tmp_path / "recipe.toml")) == recipe


def test_a_group_pattern_needs_a_capture_and_must_compile():
    with pytest.raises(RecipeError, match="a regular expression with a capture"):
        make_recipe({"group_pattern": "person"})
    with pytest.raises(RecipeError, match="unterminated"):
        make_recipe({"group_pattern": "(person"})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"unfreeze_later": "1=4"}, r"must be stages EPOCH=WHAT, with epochs from 2 on, e.g. 3=4,6=all; got '1=4'"),
        ({"unfreeze_later": "all"}, "must be stages EPOCH=WHAT, with epochs from 2 on, e.g. 3=4,6=all; got 'all'"),
        ({"unfreeze_later": "3=(x"}, r"must be a regular expression; .*unterminated.*got '3=\(x'"),
        ({"unfreeze": "(x"}, r"must be a regular expression; .*unterminated.*got '\(x'"),
        ({"nme_points": "3,3"}, "must be two different point numbers from 0, e.g. 36,45; got '3,3'"),
    ],
)
def test_what_trains_and_when_and_pairs_of_points_are_checked(settings, message):
    with pytest.raises(RecipeError, match=message):
        make_recipe(settings)


def test_fractions_must_leave_something_to_train_on():
    with pytest.raises(RecipeError, match="must be below 1"):
        make_recipe({"validation_fraction": 0.5, "test_fraction": 0.5})


def test_a_missing_or_broken_recipe_file_is_named(tmp_path):
    with pytest.raises(RecipeError, match="No such file"):
        read_recipe(tmp_path / "none.toml")
    (tmp_path / "broken.toml").write_text("lr = = 3")
    with pytest.raises(RecipeError, match=r"a TOML file; got .*broken\.toml"):
        read_recipe(tmp_path / "broken.toml")


def test_every_setting_has_help_and_a_group():
    for name, field in Recipe.model_fields.items():
        assert field.description, name
        assert field.json_schema_extra["group"], name


def test_an_update_is_checked_like_a_new_recipe():
    assert Recipe().updated(epochs=3).epochs == 3
    with pytest.raises(RecipeError, match="epochs"):
        Recipe().updated(epochs=-3)


def test_what_does_not_go_together_is_named_by_flag_with_its_choices_in_the_one_message():
    with pytest.raises(RecipeError) as caught:
        make_recipe(
            {"task": "keypoints", "loss": "cross_entropy", "monitor": "accuracy", "lr": -1, "num_devices": 3},
            flags={"loss", "lr"},
        )
    assert [line[5:] for line in str(caught.value).splitlines()[1:]] == [
        "--lr must be greater than 0; got -1.",
        "--loss must be one of mse, l1, smooth_l1, wing, soft_wing for keypoints; got 'cross_entropy'.",
        "recipe.monitor must be 'nme' for keypoints; got 'accuracy'.",
        "recipe.batch_size must be a multiple of num_devices; got 32 and 3.",
    ]


def test_a_wrong_setting_is_not_complained_of_twice():
    with pytest.raises(RecipeError) as caught:
        make_recipe({"task": "keypoints", "head": "bogus", "targets": "pixels"}, flags={"head", "targets"})
    assert str(caught.value).startswith("--head must be 'linear', 'coordinates'")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "l1"}, "^--loss must be one of cross_entropy, focal, .* for classification; got 'l1'"),
        ({"head": "simcc"}, "--head must be 'linear' for classification; got 'simcc'"),
        ({"monitor": "nme"}, "--monitor must be one of accuracy, balanced_accuracy, macro_f1, log_loss for class"),
        ({"nme_by": "image"}, "--nme-by must be left out for classification; got 'image'"),
        ({"targets": "pixels"}, "--targets must be left out for classification; got 'pixels'"),
        ({"max_lost_points": 0.5}, "--max-lost-points must be left out for classification; got 0.5"),
        ({"epochs_before": [9]}, "--epochs-before must be rising numbers below epochs, 8; got 9"),
        ({"from_sha256": "ab"}, "--from-sha256 must be left out without from_run; got 'ab'"),
    ],
)
def test_settings_that_classification_does_not_heed_are_refused(settings, message):
    with pytest.raises(RecipeError, match=message):
        make_recipe(settings, flags=settings)


@pytest.mark.parametrize(
    "settings",
    [{"cutmix": 0.5}, {"mixup": 0.2}, {"layer_decay": 0.7}, {"ema_decay": 0.9}, {"compile": "on"}],
    ids=str,
)
def test_what_a_head_on_cached_features_cannot_heed_is_refused(settings):
    name, value = next(iter(settings.items()))
    message = f"{name} must be left out without fine-tuning: only a head .*; got {value!r}"
    with pytest.raises(RecipeError, match=message):
        make_recipe(settings | {"unfreeze": "none"})
    assert getattr(make_recipe(settings | {"unfreeze": "none", "unfreeze_later": "2=all"}), name) == value


def test_a_head_alone_trains_all_its_epochs_unless_patience_is_given():
    assert make_recipe({"unfreeze": "none"}).patience == 60
    assert make_recipe({"unfreeze": "none", "epochs": "100"}).patience == 100
    assert make_recipe({"unfreeze": "none", "patience": 5}).patience == 5
    with pytest.raises(RecipeError, match=r"^recipe.epochs must be a whole number; got 'many'\.$"):
        make_recipe({"unfreeze": "none", "epochs": "many"})


def test_weighed_classes_are_not_smoothed_unless_that_is_asked():
    assert make_recipe({"class_weights": "balanced"}).label_smoothing == 0
    assert make_recipe({"class_weights": "balanced", "label_smoothing": 0.1}).label_smoothing == 0.1
    assert Recipe().updated(class_weights="balanced").label_smoothing == 0


def test_a_budget_is_not_laid_over_stages():
    with pytest.raises(RecipeError, match=r"unfreeze_later must be left out beside budget; got 3=all"):
        make_recipe({"budget": "10m", "unfreeze_later": "3=all"})


def test_a_recipe_in_python_names_what_does_not_go_together():
    with pytest.raises(ValidationError, match="nme_by must be 'points' beside nme_points; got 'image'"):
        Recipe(task="keypoints", nme_points=(0, 1), nme_by="image")
