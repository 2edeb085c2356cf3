"""Metrics of human preference: ImageReward, HPSv2 and PickScore, from their checkpoints and without their packages."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from safetensors import SafetensorError
from torch import Tensor

from eval.metrics.checkpoints import UNREADABLE, load_weights, read_state_dict, short_reason
from eval.metrics.files import HPS, IMAGE_REWARD, VOCABULARY, hub_path
from eval.metrics.metric import Result, import_package, weights_file
from eval.metrics.pictures import Pictures
from eval.metrics.prompted import check_architecture, check_prompts, preprocessed, scores
from eval.metrics.reward_net import PUBLISHED, bert_tokenizer, load_reward_net
from spectrum.core.errors import refuse
from spectrum.models.sources import COMMAND, cached_file

PIXEL_MEAN, PIXEL_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Mean and standard deviation of each channel, by which CLIP's pictures are normalised, and so ImageReward's."""
NO_WEIGHTS = f"type {COMMAND} image_reward, or eval.image_reward.checkpoint=FILE"
NO_VOCABULARY = f"type {COMMAND} image_reward, or eval.image_reward.vocabulary=FILE"
PUBLISHED_MODEL = "ViT-H-14"
"""The architecture of open_clip that HPSv2's published weights are of."""
PICK_SCORE = "yuvalkirstain/PickScore_v1"
"""The repository of the Hugging Face hub that has PickScore's published weights."""
PICK_FILES = "model.safetensors", "pytorch_model.bin"
"""The names that transformers gives a checkpoint's weights; the first that is there is read."""
NO_PICK_SCORE = f"type hf download {PICK_SCORE}, or eval.pick_score.checkpoint=FOLDER"
NO_HPS = f"type {COMMAND} hpsv2, or eval.hpsv2.checkpoint=FILE (HPS_v2.1_compressed.pt will do too)"


def image_reward(
    samples: Pictures,
    reference: Pictures | None,
    prompts: Sequence[str],
    *,
    checkpoint: str | None = None,
    vocabulary: str | None = None,
) -> Result:
    """The metric `image_reward`: ImageReward (Xu et al. 2023) of each picture and its prompt, on a scale without ends.

    Args:
        samples: the method's pictures.
        reference: not used.
        prompts: one prompt per picture.
        checkpoint: the published `ImageReward.pt`; None for the one in the Hugging Face cache.
        vocabulary: the `vocab.txt` of bert-base-uncased; None for the one beside the checkpoint, or else in the Hugging
            Face cache.

    Raises:
        AbsentError: if a file or a package is missing.
        SpectrumError: if the prompts do not match the pictures, or a file is not what it should be.
    """
    check_prompts("image_reward", samples, prompts)
    transformers = import_package("transformers", "transformers", "image_reward")
    transforms = import_package("torchvision.transforms", "torchvision", "image_reward")
    path, digest = weights_file("image_reward", checkpoint or hub_path(IMAGE_REWARD), NO_WEIGHTS)
    beside = path.parent / "vocab.txt"
    words = vocabulary or (beside if beside.is_file() else hub_path(VOCABULARY))
    word_list, words_digest = weights_file("image_reward", words, NO_VOCABULARY)
    tokens, net = bert_tokenizer(word_list, PUBLISHED.words), load_reward_net(path, PUBLISHED)
    preprocess = _clip_preprocess(transforms, PUBLISHED.side)

    def score(images: Tensor, texts: Sequence[str]) -> Tensor:
        return net(preprocessed(images, preprocess), *tokens(texts))

    facts = {"model": "ImageReward", "checkpoint": path.name, "sha256": digest, "vocabulary_sha256": words_digest}
    return Result.per_sample(scores(samples, prompts, score), **facts, transformers=transformers.__version__)


def _clip_preprocess(transforms: Any, side: int) -> Callable[[Image.Image], Tensor]:
    """CLIP's preprocessing: the shorter side is resized to `side`, bicubic, and the middle square is normalised."""
    return transforms.Compose(
        [
            transforms.Resize(side, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(side),
            transforms.ToTensor(),
            transforms.Normalize(PIXEL_MEAN, PIXEL_STD),
        ]
    )


def hpsv2(
    samples: Pictures,
    reference: Pictures | None,
    prompts: Sequence[str],
    *,
    checkpoint: str | None = None,
    model: str = PUBLISHED_MODEL,
) -> Result:
    """The metric `hpsv2`: the Human Preference Score v2 (Wu et al. 2023) of each picture and its prompt.

    It is the cosine of the picture's and the prompt's embeddings, in [-1, 1]. Pictures that are not square are padded
    with black, as the authors do.

    Args:
        samples: the method's pictures.
        reference: not used.
        prompts: one prompt per picture.
        checkpoint: `HPS_v2_compressed.pt` or `HPS_v2.1_compressed.pt`; None for the former in the Hugging Face cache.
        model: the architecture of open_clip that the checkpoint is of.

    Raises:
        AbsentError: if the checkpoint or the package open_clip is missing.
        SpectrumError: if the prompts do not match the pictures, or for an unknown architecture or other weights.
    """
    check_prompts("hpsv2", samples, prompts)
    open_clip = import_package("open_clip", "open_clip_torch", "hpsv2")
    check_hpsv2(model=model)
    path, digest = weights_file("hpsv2", checkpoint or hub_path(HPS), NO_HPS)
    net, _, preprocess = open_clip.create_model_and_transforms(model, image_resize_mode="longest")
    load_weights(net, read_state_dict(path), path, f"open_clip's {model}")
    tokens = open_clip.get_tokenizer(model)

    def score(images: Tensor, texts: Sequence[str]) -> Tensor:
        seen = net.encode_image(preprocessed(images, preprocess), normalize=True)
        return (seen * net.encode_text(tokens(list(texts)), normalize=True)).sum(-1)

    facts = {"model": model, "checkpoint": path.name, "sha256": digest, "open_clip": open_clip.__version__}
    return Result.per_sample(scores(samples, prompts, score), **facts)


def check_hpsv2(*, checkpoint: str | None = None, model: str = PUBLISHED_MODEL) -> None:
    """Check the parameters of `hpsv2`.

    Args:
        checkpoint: not checked: without it the metric is left out.
        model: the architecture.

    Raises:
        SpectrumError: for an architecture that open_clip does not know.
    """
    if model != PUBLISHED_MODEL:
        check_architecture("eval.hpsv2.model", model, f"{PUBLISHED_MODEL}, which the published weights are of")


def pick_score(
    samples: Pictures, reference: Pictures | None, prompts: Sequence[str], *, checkpoint: str | None = None
) -> Result:
    """The metric `pick_score`: PickScore (Kirstain et al. 2023) of each picture and its prompt.

    It is the cosine of the picture's and the prompt's embeddings times the network's learned scale, which is about 100:
    the logit that the authors publish. The published network is CLIP-H/14, trained further on people's choices.

    Args:
        samples: the method's pictures.
        reference: not used.
        prompts: one prompt per picture.
        checkpoint: a folder with a CLIP model as transformers stores it, `config.json` and `model.safetensors`; None
            for PickScore v1 in the Hugging Face cache.

    Raises:
        AbsentError: if the folder or a package is missing.
        SpectrumError: if the prompts do not match the pictures, or the folder holds another network.
    """
    check_prompts("pick_score", samples, prompts)
    transformers = import_package("transformers", "transformers", "pick_score")
    transforms = import_package("torchvision.transforms", "torchvision", "pick_score")
    open_clip = import_package("open_clip", "open_clip_torch", "pick_score")
    cached = cached_file(PICK_SCORE, "config.json")
    folder = Path(checkpoint).expanduser() if checkpoint else cached.parent if cached else Path("PickScore_v1")
    files = [folder / name for name in PICK_FILES]
    path, digest = weights_file("pick_score", next((f for f in files if f.is_file()), files[0]), NO_PICK_SCORE)
    net = _clip_model(transformers, path)
    preprocess = _clip_preprocess(transforms, net.config.vision_config.image_size)
    tokens = open_clip.SimpleTokenizer(context_length=net.config.text_config.max_position_embeddings)

    def score(images: Tensor, texts: Sequence[str]) -> Tensor:
        found = net(input_ids=tokens(list(texts)), pixel_values=preprocessed(images, preprocess))
        return found.logits_per_image.diagonal()

    facts = {"model": "PickScore", "checkpoint": path.name, "sha256": digest, "transformers": transformers.__version__}
    return Result.per_sample(scores(samples, prompts, score), **facts)


def _clip_model(transformers: Any, path: Path) -> Any:
    """The CLIP model of transformers in a folder, in evaluation mode and float32. No code in the folder is run."""
    how = "type eval.pick_score.checkpoint=FOLDER, with PickScore's config.json and model.safetensors"
    safe = path.suffix == ".safetensors"
    given: dict[str, Any] = {"local_files_only": True, "output_loading_info": True, "use_safetensors": safe}
    try:
        net, loaded = transformers.CLIPModel.from_pretrained(path.parent, dtype="float32", **given)
    except (*UNREADABLE, OSError, SafetensorError) as error:
        refuse(f"{path.parent} is no CLIP model that transformers can read ({short_reason(error)}): {how}")
    for fault, keys in (("lacks", loaded["missing_keys"]), ("has the unknown", loaded["unexpected_keys"])):
        named = [key for key in keys if not key.endswith(".position_ids")]  # a constant that old checkpoints store
        if named:
            refuse(f"{path} is no checkpoint of CLIP: it {fault} {min(named)} ({len(named)} such keys): {how}")
    return net.eval()
