"""A function stands in the place of an object's method for a while."""

from spectrum.hooks.replaced import replaced


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
