"""Toy pipelines: diffusers' own pipelines with all their parts at toy width, drawn weights, and what to call them with.

Each file in `configs/pipeline` has the parts that a family shares and the pipelines that use them. Such a file is data:
nothing in it is run.
"""

import functools
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import yaml

from spectrum.config.reader import CONFIGS, choices
from spectrum.core.errors import refuse
from spectrum.models.architectures import assembled, assembled_of_blocks, class_of, is_modular, randomise
from spectrum.models.toys import toy, value_of

CALLS = 8
"""Denoising steps that a toy pipeline is asked for where its file says nothing else."""


@dataclass(frozen=True)
class ToyPipeline:
    """A toy pipeline.

    Attributes:
        name: its name in the file.
        cls: its class in diffusers.
        family: the file that it is in.
        components: by name what `_component` makes of it.
        settings: further arguments of the pipeline's class.
        call: by argument of the pipeline's call what `value_of` makes of it.
        blocks: of a modular pipeline, the blocks that it is made of: those of its class under these names.
    """

    name: str
    cls: str
    family: str
    components: Mapping[str, Any]
    settings: Mapping[str, Any]
    call: Mapping[str, Any]
    blocks: tuple[str, ...] = ()

    def build(self) -> Any:
        """The pipeline, with drawn weights and without a progress bar.

        Raises:
            SpectrumError: if diffusers has no such pipeline or part.
        """
        cls, parts = class_of(self.cls, "diffusers"), {n: _component(n, spec) for n, spec in self.components.items()}
        if is_modular(cls):
            return assembled_of_blocks(cls, self.blocks, {**parts, **self.settings})
        return assembled(cls, {**parts, **self.settings})

    def arguments(self, pipe: Any) -> dict[str, Any]:
        """The arguments of one call of the pipeline; each time new objects with the same numbers."""
        modular = is_modular(type(pipe))
        taken = {"output", *pipe.blocks.input_names} if modular else inspect.signature(type(pipe).__call__).parameters
        draw = torch.Generator().manual_seed(0)
        made = {name: value_of(spec, 0, draw) for name, spec in self.call.items()}
        usual = {"num_inference_steps": CALLS, "output_type": "latent", "generator": torch.Generator().manual_seed(1)}
        usual |= {"output": "latents"} if modular else {}
        return {name: value for name, value in usual.items() if name in taken and name not in made} | made


def _component(name: str, spec: Any) -> Any:
    """One part of a toy pipeline.

    Args:
        name: of the part.
        spec: `{denoiser: NAME}` for a toy of `configs/denoiser`, further keys change its config; `{words: 100}` for a
            tokenizer of so many words; `{class: ...}` for a class of diffusers or transformers, further keys are
            the arguments of its config, where parts of a processor are said alike, and `dtype` that of its parameters;
            a list of such for a part that is a list.
    """
    if isinstance(spec, list):
        return [_component(name, one) for one in spec]
    given = dict(spec)
    if "denoiser" in given:
        base = toy(given.pop("denoiser"))
        return randomise(class_of(base.cls, "diffusers")(**{**base.config, **given}))
    if "words" in given:
        return tokenizer(**given)
    given = {key: _component(key, one) if _is_part(one) else one for key, one in given.items()}
    dtype = given.pop("dtype", None)
    cls = class_of(given.pop("class", None) or refuse(f"the part {name} has no class"), "diffusers", "transformers")
    config = getattr(cls, "config_class", None)
    made = cls(config(**given)) if config is not None else cls(**given)
    if not isinstance(made, torch.nn.Module):
        return made
    return randomise(made) if dtype is None else randomise(made).to(getattr(torch, dtype))


def _is_part(spec: Any) -> bool:
    return isinstance(spec, Mapping) and bool({"class", "words"} & spec.keys())


def tokenizer(words: int, length: int = 8, marks: Sequence[str] = (), template: str | None = None) -> Any:
    """A tokenizer that gives each word of a text one of a few numbers.

    Args:
        words: size of the vocabulary.
        length: the longest text, in tokens.
        marks: further words that stand for something else than a text: `<|image_pad|>`.
        template: the Jinja template of its chats, where a pipeline makes one.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {"<pad>": 0, "</s>": 1, "<unk>": 2} | {f"w{number}": number for number in range(3, words)}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    named = {"pad_token": "<pad>", "eos_token": "</s>", "bos_token": "</s>", "unk_token": "<unk>"}
    made = class_of("PreTrainedTokenizerFast", "transformers")(tokenizer_object=inner, model_max_length=length, **named)
    made.add_special_tokens({"additional_special_tokens": list(marks)})
    made.chat_template = template
    return made


@functools.cache
def toy_pipelines() -> Mapping[str, ToyPipeline]:
    """All toy pipelines of `configs/pipeline`, by name.

    A pipeline is listed under its class's name, or, where a class comes in several forms, under that name and a word
    behind a space. Its `components`, `settings` and `call` are laid over those of its file; what its list `without`
    names is taken away from them.
    """
    found: dict[str, ToyPipeline] = {}
    for family in choices("pipeline"):
        said = yaml.safe_load((CONFIGS / "pipeline" / f"{family}.yaml").read_text())
        for name, own in said["pipelines"].items():
            own = own or {}
            laid = {key: {**said.get(key, {}), **own.get(key, {})} for key in ("components", "settings", "call")}
            for key, part in ((key, part) for key in own.get("without", ()) for part in laid.values()):
                part.pop(key, None)
            blocks = tuple(own.get("blocks", said.get("blocks", ())))
            found[name] = ToyPipeline(name, name.split()[0], family, **laid, blocks=blocks)
    return found


NO_TOY: Mapping[str, tuple[str, ...]] = {
    "has no loop over a denoiser of its own": (
        "FluxPriorReduxPipeline", "LTXLatentUpsamplePipeline", "LTX2LatentUpsamplePipeline",
        "LTX2VideoDiffusionDecodePipeline", "VersatileDiffusionPipeline",
    ),
    "is a language model": ("DiffusionGemmaPipeline", "LLaDA2Pipeline"),
    "fails by itself in diffusers 0.42.1": (
        "ChromaInpaintPipeline", "EasyAnimateControlPipeline", "VersatileDiffusionDualGuidedPipeline",
    ),
    "downloads a tokenizer when it is made": ("BlipDiffusionPipeline", "BlipDiffusionControlNetPipeline"),
    "has to be called once more before, to invert a picture": (
        "LEditsPPPipelineStableDiffusion", "LEditsPPPipelineStableDiffusionXL",
    ),
    "drops the embeddings it is given, and its text encoder is one of its own": ("KolorsImg2ImgPipeline",),
    "needs a published processor of texts and pictures": ("LongCatImageEditPipeline", "QwenImage21Pipeline"),
    "its denoiser is refused, see compatibility.md": ("RFD4ProteinaPipeline",),
    "is a stage of SanaWMPipeline": ("SanaWMLTX2Refiner",),
}  # fmt: skip
"""By reason, the pipelines of diffusers that have no toy; others without one are deprecated, or new."""


def missing_pipelines() -> dict[str, list[str]]:
    """The pipelines of the installed diffusers without a toy, by the reason."""
    import diffusers

    known = {one.cls for one in toy_pipelines().values()}
    reasons = {name: reason for reason, names in NO_TOY.items() for name in names}
    found: dict[str, list[str]] = {}
    for name in dir(diffusers):
        cls = getattr(diffusers, name)
        inside = isinstance(cls, type) and cls.__module__.startswith(("diffusers.pipelines.", "diffusers.modular_pip"))
        pipeline = inside and issubclass(cls, (diffusers.DiffusionPipeline, diffusers.ModularPipeline))
        if pipeline and name not in {*known, "DiffusionPipeline", "ModularPipeline"}:
            old = "deprecated by diffusers" if ".deprecated." in cls.__module__ else "new: nobody has written one"
            found.setdefault(reasons.get(name, old), []).append(name)
    return found
