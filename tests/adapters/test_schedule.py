"""Schedules against their definitions, on every step and epoch of made-up training runs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vogcore.errors import SettingsError
from vogcore_adapters import schedule
from vogcore_adapters.schedule import Moment, between_epochs, between_steps, early_and_late, every_epoch, every_n_steps

counts = st.integers(1, 60)
schedules = st.recursive(
    st.one_of(
        st.builds(every_n_steps, counts),
        st.builds(every_epoch, st.integers(1, 5)),
        st.builds(schedule.at, st.lists(st.integers(0, 200), max_size=5), st.sampled_from(["steps", "epochs"])),
        st.builds(lambda a, b: between_steps(min(a, b), max(a, b)), counts, counts),
        st.builds(lambda a, b: between_epochs(min(a, b), max(a, b)), st.integers(0, 9), st.integers(0, 9)),
    ),
    lambda inner: st.one_of(st.builds(lambda a, b: a | b, inner, inner), st.builds(lambda a, b: a & b, inner, inner)),
    max_leaves=4,
)


def run(steps_per_epoch, epochs):
    """The moments of a training run: each step, then the end of the epoch."""
    for epoch in range(epochs):
        for step in range(epoch * steps_per_epoch + 1, (epoch + 1) * steps_per_epoch + 1):
            yield Moment(step, epoch)
        yield Moment((epoch + 1) * steps_per_epoch, epoch + 1, epoch_end=True)


def steps(chosen, steps_per_epoch=10, epochs=6):
    return [moment.step for moment in run(steps_per_epoch, epochs) if not moment.epoch_end and chosen.due(moment)]


def epochs(chosen, count=30):
    return [moment.epoch for moment in run(1, count) if moment.epoch_end and chosen.due(moment)]


@given(counts)
def test_every_n_steps_is_due_at_its_multiples(n):
    assert steps(every_n_steps(n)) == list(range(n, 61, n))


@given(st.integers(1, 8))
def test_every_epoch_is_due_at_the_ends_of_epochs_only(n):
    assert epochs(every_epoch(n)) == list(range(n, 31, n))
    assert steps(every_epoch(n)) == []


def test_nothing_periodic_is_due_before_training():
    start = Moment(0, 0, epoch_end=True)
    assert not every_n_steps(1).due(start)
    assert not every_epoch().due(start)
    assert schedule.at([0]).due(start)


@given(schedules, schedules, st.integers(1, 20))
def test_either_and_both_are_those_of_logic(a, b, steps_per_epoch):
    for moment in run(steps_per_epoch, 4):
        assert (a | b).due(moment) == (a.due(moment) or b.due(moment))
        assert (a & b).due(moment) == (a.due(moment) and b.due(moment))


@given(st.integers(1, 200), st.integers(1, 10_000), st.integers(0, 10_000))
def test_log_spaced_gives_as_many_as_asked_for_from_first_to_last(count, first, more):
    last = first + more
    if more + 1 < count or (count == 1 and more):
        with pytest.raises(SettingsError, match=f"no {count} log-spaced steps from {first} to {last}"):
            schedule.log_spaced(count, last, first)
        return
    chosen = schedule.log_spaced(count, last, first)
    found = [step for step in range(first, last + 1) if chosen.due(Moment(step))]
    assert len(found) == count
    assert (found[0], found[-1]) == (first, last)


def test_log_spaced_has_equal_ratios():
    assert [s for s in range(1, 70) if schedule.log_spaced(7, 64).due(Moment(s))] == [1, 2, 4, 8, 16, 32, 64]
    assert epochs(schedule.log_spaced(4, 27, unit="epochs")) == [1, 3, 9, 27]


@given(st.lists(st.integers(1, 60), min_size=3, max_size=3).map(sorted), st.integers(1, 20))
def test_early_and_late_windows(bounds, every):
    early, late, total = bounds
    chosen = steps(early_and_late(early, late, total, every))
    assert chosen == sorted({s for s in range(1, early + 1) if s % every == 0} | set(range(total, late - 1, -every)))
    assert total in chosen


def test_windows_restrict_other_schedules():
    assert steps(every_n_steps(5) & between_steps(20, 40)) == [20, 25, 30, 35, 40]
    assert steps(every_n_steps(5) & between_epochs(0, 1)) == [5, 10, 15, 20]
    assert epochs(early_and_late(2, 28, 30, unit="epochs")) == [1, 2, 28, 29, 30]
    assert steps(every_n_steps(30) | schedule.at([1, 2])) == [1, 2, 30, 60]


def test_an_epoch_that_the_loop_does_not_tell_is_in_no_window():
    assert not between_epochs(0, 9).due(Moment(3))
    assert not every_epoch().due(Moment(3))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: every_n_steps(0), "n must be an integer of at least 1, not 0"),
        (lambda: every_epoch(1.5), "n must be .* not 1.5"),
        (lambda: every_epoch(True), "n must be .* not True"),
        (lambda: schedule.at([1, -1]), "counts must be .* not -1"),
        (lambda: schedule.at([1], "batches"), "unit 'batches' is not known"),
        (lambda: between_steps(5, 4), "from 5 to 4 is empty"),
        (lambda: early_and_late(5, 4, 10), "up to 5 and from 4 to 10"),
        (lambda: schedule.log_spaced(3, 9, 0), "first must be"),
    ],
)
def test_what_makes_no_schedule_is_refused(make, message):
    with pytest.raises(SettingsError, match=message):
        make()


def test_only_schedules_combine():
    with pytest.raises(TypeError):
        every_epoch() | 3
