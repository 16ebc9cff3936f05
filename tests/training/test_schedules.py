"""Learning-rate schedules are pure functions of the step."""

import pytest

from headstart.training.schedules import warmup_cosine


def test_the_rate_rises_in_the_warmup_and_falls_after_it():
    factors = [warmup_cosine(step, total_steps=100, warmup_steps=10) for step in range(100)]
    assert factors[:10] == sorted(factors[:10])
    assert factors[9] == 1.0
    assert factors[10:] == sorted(factors[10:], reverse=True)


def test_the_rate_stays_positive_inside_and_ends_at_zero():
    factors = [warmup_cosine(step, total_steps=50, warmup_steps=0) for step in range(51)]
    assert min(factors[:50]) > 0
    assert factors[50] == pytest.approx(0)


def test_the_middle_of_the_cosine_is_half():
    assert warmup_cosine(60, total_steps=100, warmup_steps=20) == pytest.approx(0.5)
