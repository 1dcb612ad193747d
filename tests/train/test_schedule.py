import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from phenoscope.core.errors import InputError
from phenoscope.train import cosine, linear_decay, step_decay, warmup


def torchs(make, steps):
    """The factors of one of torch's schedules."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule, factors = make(optimizer), []
    for _ in range(steps):
        factors.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return factors


@given(st.integers(1, 60))
def test_cosine_and_line_are_those_of_torch(steps):
    rates = torch.optim.lr_scheduler
    for ours, theirs in (
        (cosine(steps), lambda o: rates.CosineAnnealingLR(o, steps)),
        (linear_decay(steps), lambda o: rates.LinearLR(o, 1.0, 0.0, steps)),
    ):
        # torch computes by recursion, whose rounding adds up
        assert [ours(step) for step in range(steps)] == pytest.approx(torchs(theirs, steps), abs=1e-9)


def test_step_decay_is_that_of_torch():
    theirs = torchs(lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [50, 75]), 100)
    assert [step_decay(100)(step) for step in range(100)] == pytest.approx(theirs)


@given(st.integers(1, 40), st.integers(1, 40))
def test_warmup_rises_to_one_and_multiplies_what_comes_after(rise, steps):
    factor = warmup(rise, cosine(steps))
    assert warmup(rise)(rise - 1) == warmup(rise)(rise + 5) == 1
    assert all(warmup(rise)(t) < warmup(rise)(t + 1) for t in range(rise - 1))
    assert all(factor(t) == warmup(rise)(t) * cosine(steps)(t) for t in range(50))


def test_past_its_end_a_schedule_stays_where_it_is():
    assert cosine(10, final=0.1)(25) == pytest.approx(0.1)
    assert linear_decay(10, final=0.2)(25) == pytest.approx(0.2)


def test_bad_input_is_named():
    with pytest.raises(InputError, match="at least 1 step"):
        cosine(0)
    with pytest.raises(InputError, match="from 0 to 1"):
        step_decay(10, at=(5,))
