"""Where the tensors are in what denoisers and blocks are given and return."""

import functools
import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from spectrum.core.errors import refuse
from spectrum.hooks.layout import Place

_CONDITION = re.compile("encod|text|pooled|cond|prompt|caption|emb|mask|guidance|_ids|control")
_TIME = re.compile("t|r|(.*_)?time|.*timestep.*|.*sigma.*")
_MOVES = re.compile("latent|sample|tokens|cache|residual|control")


def tensors_in(value: Any, path: Place = ()) -> Iterator[tuple[Place, Tensor]]:
    """Every tensor in nested lists, tuples and mappings (diffusers' outputs are such), with its place.

    Example:
        >>> [path for path, _ in tensors_in({"a": torch.zeros(1), "b": [torch.zeros(1), 2]})]
        [('a',), ('b', 0)]
    """
    if isinstance(value, Tensor):
        yield path, value
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from tensors_in(part, (*path, key))
    elif isinstance(value, (list, tuple)):
        for number, part in enumerate(value):
            yield from tensors_in(part, (*path, number))


def copied(value: Any) -> Any:
    """A value with copies of its tensors, in copies of the lists, tuples, dictionaries and outputs that hold them."""
    if isinstance(value, Tensor):
        return value.clone()
    if type(value) in (list, tuple):
        return like_parts(value, [copied(part) for part in value])
    if type(value) is dict:
        return {key: copied(part) for key, part in value.items()}
    return type(value)(**{key: copied(part) for key, part in value.items()}) if hasattr(value, "to_tuple") else value


def sample_of(output: Any) -> Tensor:
    """The sample in a denoiser's output: a tensor, the first of a tuple, or the first field of a diffusers output.

    Z-Image's is a list of tensors, which are stacked; where their shapes differ, this is the first of them.
    """
    first = output if isinstance(output, Tensor) else output[0]
    return _stacked(first) if first is not None else next(tensor for _, tensor in tensors_in([output]))


def _stacked(value: Any) -> Tensor:
    """A tensor itself, a list of like tensors stacked, else the first tensor inside."""
    if isinstance(value, list) and all(isinstance(part, Tensor) and part.shape == value[0].shape for part in value):
        return torch.stack(value)
    return next(tensor for _, tensor in tensors_in([value]))


def with_sample(output: Any, sample: Tensor) -> Any:
    """A denoiser's output like `output`, with another sample.

    Raises:
        SpectrumError: if it returns tensors of several shapes, or none, in the place of its sample.
    """
    if isinstance(output, Tensor):
        return sample
    first = output[0]
    if isinstance(first, list) and all(isinstance(part, Tensor) for part in first):
        if len({part.shape for part in first}) > 1:
            refuse("the denoiser returns samples of several sizes, which the output site cannot store: sample one")
        value = list(sample.unbind())
    elif isinstance(first, Tensor):
        value = sample
    else:
        return refuse("the denoiser returns no sample, so methods at the output have nothing to store")
    if isinstance(output, tuple):
        return (value, *output[1:])
    return type(output)(**{**output, next(iter(output)): value})


def further_outputs(output: Any) -> dict[Place, Tensor]:
    """What a denoiser returns beside its sample, by place: LTX-2 returns a picture and its sound.

    Args:
        output: what it returned.
    """
    first = next(iter(output)) if isinstance(output, dict) else 0
    found = tensors_in(output) if isinstance(output, (dict, list, tuple)) else ()
    return {path: tensor for path, tensor in found if path[0] != first}


def handed_through(further: Mapping[Place, Tensor], args: Any, kwargs: Any) -> dict[Place, Place]:
    """Which of its arguments a denoiser returns as they are, each by its place in the output."""
    own = {id(tensor): place for place, tensor in tensors_in({**dict(enumerate(args)), **kwargs})}
    return {place: own[id(tensor)] for place, tensor in further.items() if id(tensor) in own}


def with_further_outputs(output: Any, values: Mapping[Place, Tensor]) -> Any:
    """A denoiser's output with other tensors at some places."""
    for place, value in values.items():
        output = _with_part(output, place, value)
    return output


def kinds_of(inputs: Mapping[str, Any]) -> tuple[Any, ...]:
    """What may change the way that a forward takes: shapes of tensors, truth values, texts, what is left out.

    Example:
        >>> kinds_of({"x": torch.zeros(2, 3), "skip_layers": [1, 2], "t": 5.0})
        (('x', (2, 3)), ('skip_layers', (1, 2)), ('t', 'float'))
    """
    return tuple((name, _kind(value)) for name, value in inputs.items() if name != "self")


def _kind(value: Any) -> Any:
    if isinstance(value, Tensor):
        return tuple(value.shape)
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, Mapping):
        return kinds_of(value)
    if isinstance(value, (list, tuple)):
        return tuple(part if isinstance(part, int) else _kind(part) for part in value)
    return type(value).__name__


def latents_name(inputs: Mapping[str, Any]) -> str:
    """Which of a denoiser's forward arguments are the latents: its first with numbers that are no condition or time.

    Example:
        >>> latents_name({"input_ids": torch.zeros(1, dtype=torch.int64), "vision_tokens": torch.zeros(1)})
        'vision_tokens'
    """
    for name in _candidates(tuple(inputs)):
        value = inputs[name]
        first = value if isinstance(value, Tensor) else next((tensor for _, tensor in tensors_in([value])), None)
        if first is not None and first.is_floating_point():
            return name
    return next(name for name in inputs if name != "self")


@functools.lru_cache(maxsize=64)
def _candidates(names: tuple[str, ...]) -> tuple[str, ...]:
    """The arguments that could be latents, by their names."""
    return tuple(name for name in names if name != "self" and not is_time(name) and not _CONDITION.search(name))


def is_time(argument: str) -> bool:
    """Whether a forward's argument is a timestep, by its name."""
    return _TIME.fullmatch(argument) is not None


@functools.lru_cache(maxsize=64)
def _time_name(names: tuple[str, ...]) -> str | None:
    return next((name for name in names if is_time(name)), None)


def time_of(inputs: Mapping[str, Any]) -> Any:
    """The timestep among a denoiser's forward arguments; None if there is none."""
    name = _time_name(tuple(inputs))
    return None if name is None else inputs[name]


def moves(argument: str) -> bool:
    """Whether a sampler changes a forward's argument from step to step, by its name: latents and timesteps."""
    latents = "hidden_states" in argument and not _CONDITION.search(argument)
    return latents or is_time(argument) or _MOVES.search(argument) is not None


def latents_of(inputs: Mapping[str, Any]) -> Tensor:
    """The latents among a denoiser's forward arguments. Z-Image's come as a list of tensors, which are stacked."""
    return _stacked(inputs[latents_name(inputs)])


def hidden_states_of(args: Any, kwargs: Any) -> Tensor:
    """The hidden states among a block's or an attention's arguments."""
    if "hidden_states" in kwargs:
        return kwargs["hidden_states"]
    return args[0] if args else next(iter(kwargs.values()))


def like_parts(whole: Any, parts: list[Any]) -> Any:
    """A list, tuple or named tuple like another, of other parts."""
    named = isinstance(whole, tuple) and type(whole) is not tuple
    return type(whole)(*parts) if named else type(whole)(parts)


def argument_at(args: Any, kwargs: Any, place: Place) -> Any:
    """The argument at a place; a name may also be that of a dictionary's entry in an argument.

    Example:
        >>> argument_at((1, [2, 3]), {"a": 4}, (1, 0)), argument_at((1,), {"a": 4}, ("a",))
        (2, 4)
    """
    found = kwargs[place[0]] if isinstance(place[0], str) else args[place[0]]
    for key in place[1:]:
        found = found[key]
    return found


def with_argument(args: Any, kwargs: Any, place: Place, value: Any) -> tuple[Any, Any]:
    """Arguments with another one at a place; nothing that was given is changed.

    Example:
        >>> with_argument((1, [2, 3]), {"a": 4}, (1, 0), 5)
        ((1, [5, 3]), {'a': 4})
    """
    if len(place) == 1:
        first = place[0]
        if isinstance(first, str):
            return args, {**kwargs, first: value}
        return (*args[:first], value, *args[first + 1 :]), kwargs
    given = {**dict(enumerate(args)), **kwargs}
    given[place[0]] = _with_part(given[place[0]], place[1:], value)
    return tuple(given[number] for number in range(len(args))), {name: given[name] for name in kwargs}


def _with_part(whole: Any, place: Place, value: Any) -> Any:
    if not place:
        return value
    parts: Any = dict(whole) if isinstance(whole, Mapping) else list(whole)
    parts[place[0]] = _with_part(parts[place[0]], place[1:], value)
    if isinstance(whole, Mapping):
        return parts if type(whole) is dict else type(whole)(**parts)
    return tuple(parts) if isinstance(whole, tuple) else parts
