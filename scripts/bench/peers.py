"""The caches of diffusers and of cache-dit, put on a pipeline and taken off again."""

import importlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

Peer = Callable[[Any], AbstractContextManager[None]]


@contextmanager
def _of_diffusers(pipe: Any, config: Any) -> Iterator[None]:
    pipe.transformer.enable_cache(config)
    try:
        yield
    finally:
        pipe.transformer.disable_cache()


def _taylorseer(lite: bool) -> Peer:
    def put(pipe: Any) -> AbstractContextManager[None]:
        from diffusers import TaylorSeerCacheConfig

        # Runs 3 steps and then every fifth: 13 of 50.
        return _of_diffusers(pipe, TaylorSeerCacheConfig(cache_interval=5, max_order=1, use_lite_mode=lite))

    return put


def _first_block(threshold: float) -> Peer:
    def put(pipe: Any) -> AbstractContextManager[None]:
        from diffusers import FirstBlockCacheConfig

        return _of_diffusers(pipe, FirstBlockCacheConfig(threshold=threshold))

    return put


def _magcache(pipe: Any) -> AbstractContextManager[None]:
    from diffusers import MagCacheConfig
    from diffusers.hooks.mag_cache import FLUX_MAG_RATIOS

    given = {"threshold": 0.24, "max_skip_steps": 5, "retention_ratio": 0.1, "num_inference_steps": 50}
    return _of_diffusers(pipe, MagCacheConfig(mag_ratios=FLUX_MAG_RATIOS, **given))


def _faster_cache(pipe: Any) -> AbstractContextManager[None]:
    from diffusers import FasterCacheConfig

    seen: dict[str, Any] = {"timestep": 1000}

    def now(module: Any, args: Any, kwargs: Any) -> None:
        seen["timestep"] = float(kwargs["timestep"].flatten()[0]) * 1000

    @contextmanager
    def put() -> Iterator[None]:
        handle = pipe.transformer.register_forward_pre_hook(now, with_kwargs=True)
        given = {"attention_weight_callback": lambda _: 0.3, "current_timestep_callback": lambda: seen["timestep"]}
        try:
            # Its part for CFG needs both branches in one batch, which FLUX's pipeline calls one after the other.
            with _of_diffusers(pipe, FasterCacheConfig(tensor_format="BFCHW", is_guidance_distilled=True, **given)):
                yield
        finally:
            handle.remove()

    return put()


def cache_dit(run_steps: list[int], steps: int, calls: int = 1) -> Peer:
    """cache-dit's DBCache with TaylorSeer on a steps mask.

    Args:
        run_steps: the steps at which all blocks run.
        steps: of the sampler.
        calls: of the denoiser at a step: two where guidance calls it apart.
    """

    @contextmanager
    def put(pipe: Any) -> Iterator[None]:
        peer: Any = importlib.import_module("cache_dit")

        mask = [int(step in run_steps) for step in range(steps)]
        peer.enable_cache(
            pipe,
            cache_config=peer.DBCacheConfig(
                Fn_compute_blocks=1, Bn_compute_blocks=0, max_warmup_steps=0, residual_diff_threshold=100.0,
                num_inference_steps=steps, steps_computation_mask=mask, steps_computation_policy="static",
                enable_separate_cfg=calls == 2,
            ),
            calibrator_config=peer.TaylorSeerCalibratorConfig(taylorseer_order=1),
        )  # fmt: skip
        try:
            yield
        finally:
            peer.disable_cache(pipe)

    return put


PEERS: dict[str, Peer] = {
    "diffusers TaylorSeer": _taylorseer(lite=False),
    "diffusers TaylorSeer lite": _taylorseer(lite=True),
    "diffusers FirstBlockCache": _first_block(0.1),
    "diffusers MagCache": _magcache,
}
"""The caches of diffusers that forecast whole steps, by name, each put on a pipeline by a `with` block."""

FASTER_CACHE: Peer = _faster_cache
"""FasterCache, which reuses attention alone."""

ALWAYS_SKIPS = _first_block(1e9)
"""First-Block-Cache that skips every step after the first: to time its skipped steps."""
