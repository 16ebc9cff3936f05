"""Errors say place, expectation, value and remedy."""

from headstart.errors import all_at_once, did_you_mean, must_be


def test_a_message_names_place_expectation_value_and_remedy():
    message = must_be("train.lr", "greater than 0", -1, "Try 1e-4.")
    assert message == "train.lr must be greater than 0; got -1. Try 1e-4."


def test_a_near_name_is_offered_and_a_far_one_is_not():
    assert did_you_mean("batchsize", ["batch_size", "lr"]) == "Did you mean 'batch_size'?"
    assert did_you_mean("zebra", ["batch_size", "lr"]) == ""


def test_one_problem_stands_alone_and_more_are_numbered():
    assert all_at_once(["only"]) == "only"
    assert all_at_once(["first", "second"]).splitlines() == ["2 problems:", "  1. first", "  2. second"]
