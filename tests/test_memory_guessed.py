"""What an estimate of memory has to scale, count or guess, where no rehearsal of the very config tells."""

import dataclasses

import pytest

from spectrum.bench.resolve import resolve
from spectrum.config.compose import compose
from spectrum.core.choices import Keep
from spectrum.models.kept_rehearsals import kept_rehearsal
from spectrum.models.memory import stored_bytes
from spectrum.models.plans import cache_bytes, plan_of

WAN = "model=wan21_1_3b"


def of_frames(frames, *words):
    """What a method stores on Wan2.1 with another number of frames, whose outputs are scaled by hand."""
    config, method = resolve(compose([WAN, f"model.frames={frames}", *words]))
    found = kept_rehearsal(compose([WAN]))
    own, latents = found.outputs[0], (frames - 1) // 4 + 1
    scaled = dataclasses.replace(found, outputs=[[own[0] * latents // 21, own[1]]])
    return stored_bytes(config, plan_of(config, method), scaled)


@pytest.mark.parametrize("site", ["exit", "output"])
@pytest.mark.parametrize("keep", Keep)
def test_fewer_frames_take_a_smaller_cache_at_every_site(site, keep):
    words = ["method=spectrum", "runs=14", f"method.site={site}", f"method.keep={keep}"]
    config, method = resolve(compose([WAN, *words]))
    whole = cache_bytes(config, plan_of(config, method))
    assert of_frames(49, *words) == pytest.approx(whole * 13 / 21, rel=1e-3)
    assert of_frames(81, *words) == whole


def test_what_is_kept_inside_the_blocks_counts():
    words = [WAN, "method=taylorseer_modules"]
    config, method = resolve(compose(words))
    plan, found = plan_of(config, method), kept_rehearsal(config)
    kept = {}
    for keep in (Keep.features, Keep.float8):
        chosen = dataclasses.replace(config, method=dataclasses.replace(config.method, keep=keep))
        kept[keep] = stored_bytes(chosen, plan, found)
    assert kept[Keep.float8] == pytest.approx(kept[Keep.features] / 2, rel=1e-3)


def test_where_no_output_is_known_nothing_is_counted():
    config, method = resolve(compose([WAN, "model.frames=49"]))
    found = dataclasses.replace(kept_rehearsal(compose([WAN])), outputs=[])
    assert stored_bytes(config, plan_of(config, method), found) is None
