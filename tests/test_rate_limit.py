"""How many objects are read at once: more while all is well, fewer when a store objects."""

from __future__ import annotations

from rastermeta_async.stores.rate_limit import LEAST, START, StoreTuner


class Course:
    """A store that is read from, as the tuner sees it: looks at how it goes, each 25 ms."""

    def __init__(self, ceiling: int) -> None:
        self.now = 0.0
        self.tuner = StoreTuner(ceiling, lambda: self.now)

    def go(self, seconds: float, each: float) -> int:
        """Read for so long, while each object takes some seconds; return the limit then."""
        done = 0.0
        for _ in range(round(seconds / 0.025)):
            self.now += 0.025
            done += self.tuner.limit * 0.025 / each
            self.tuner.note(0.025, int(done), 0.0, 0.0)
            done -= int(done)
        return self.tuner.limit

    def refuse(self) -> int:
        """Have the store refuse twenty requests that were under way together."""
        for _ in range(20):
            self.tuner.note_overload()
            self.tuner.note(0.0, 0, 0.0, 0.0)
        return self.tuner.limit


def test_it_grows_to_its_ceiling_while_answers_come_quickly() -> None:
    course = Course(500)
    assert course.tuner.limit == START
    assert course.go(0.5, each=0.03) == 500


def test_slow_answers_end_the_growth_until_they_are_quick_again() -> None:
    course = Course(10_000)
    before = course.go(0.1, each=0.03)
    after = course.go(5, each=0.3)
    assert after <= 2 * before  # one round may have been of both
    assert course.go(5, each=0.3) == after
    assert course.go(1, each=0.03) > 10 * after


def test_answers_that_are_a_little_slower_let_it_grow_slowly() -> None:
    course = Course(10_000)
    before = course.go(0.1, each=0.1)
    assert before < course.go(2, each=0.2) <= before + 2 / 0.2 + 1


def test_refusals_halve_it_once_a_round_down_to_the_least() -> None:
    course = Course(512)
    course.go(1, each=0.01)
    limits = [course.tuner.limit]
    for _ in range(8):
        course.now += 0.06
        limits.append(course.refuse())
    assert limits[:4] == [512, 256, 128, 64]
    assert limits[-1] == LEAST


def test_a_store_that_refuses_its_first_objects_is_asked_no_more() -> None:
    course = Course(64)
    course.now += 0.06
    assert course.refuse() == START


def test_after_a_refusal_it_grows_slowly() -> None:
    """By one for as many objects as are read at once, not by one for each."""
    course = Course(1000)
    course.go(0.1, each=0.01)
    before = course.refuse()
    rounds = 10
    assert before < course.go(rounds * 0.025, each=0.025) <= before + rounds
    assert course.go(120, each=0.025) == 1000  # it has forgotten


def test_a_store_that_has_become_slower_is_soon_asked_more_again() -> None:
    course = Course(1000)
    before = course.go(0.1, each=0.03)
    assert course.go(600, each=0.3) > 2 * before


def test_a_ceiling_below_the_least_holds() -> None:
    course = Course(3)
    assert course.go(1, each=0.01) == 3
    course.now += 1
    assert course.refuse() == 3
