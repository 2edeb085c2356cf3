"""A function stands in the place of an object's method for a while."""

import copy
import inspect

from spectrum.hooks.replaced import Around, replaced


def test_what_stood_on_an_object_is_put_back():
    class Thing:
        def double(self, x):
            return 2 * x

    thing, mine = Thing(), Thing()
    mine.double = lambda x: 3 * x
    for own, before in ((thing, 4), (mine, 6)):
        with replaced(own, "double", lambda double, x: double(x) + 1):
            assert own.double(2) == before + 1 and Thing().double(2) == 4
        assert own.double(2) == before
    assert "double" not in vars(thing)


class Counter:
    """Counts its steps, as a scheduler does."""

    def __init__(self):
        self.count = 0

    def step(self, by):
        self.count += by


def test_a_copy_has_the_method_of_its_own():
    counter, told = Counter(), []
    with replaced(counter, "step", lambda step, by: (told.append(by), step(by))):
        other = copy.deepcopy(counter)
        other.step(5)
        counter.step(1)
    assert (other.count, counter.count, told) == (5, 1, [1])


def test_a_function_that_is_there_for_good_is_around_the_method_of_a_copy_too():
    counter = Counter()
    counter.step = Around(counter, "step", lambda step, by, times=1: step(by * times), copied=True)
    with replaced(counter, "step", lambda step, *args, **kwargs: step(*args, **kwargs)):
        other = copy.deepcopy(counter)
    other.step(2, times=3)
    assert (other.count, counter.count) == (6, 0)
    assert list(inspect.signature(other.step).parameters) == ["by", "times"]
