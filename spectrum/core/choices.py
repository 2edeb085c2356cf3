"""What a method chooses among: what it looks at, what it stores, where, and what it keeps of that."""

from enum import StrEnum


class Signal(StrEnum):
    """The tensor by which a data-dependent method decides.

    Attributes:
        teacache: TeaCache's: an embedding of the timestep in some families, the modulated input in the others.
        modulated_input: the input of the first block's first attention, after AdaLN, in every family.
        front_residual: the residual of the front blocks (output minus input), which then run at every step.
        latents: the latents that the denoiser is given.
    """

    teacache = "teacache"
    modulated_input = "modulated_input"
    front_residual = "front_residual"
    latents = "latents"


class Space(StrEnum):
    """What is stored and forecast: the site's output, or that minus the site's input."""

    feature = "feature"
    residual = "residual"


class Site(StrEnum):
    """Where it is stored.

    Attributes:
        exit: the output of the last block, before the final norm and projection.
        output: the denoiser's output; nothing of the denoiser runs on a skipped step.
        modules: the output of every attention and MLP; everything between them runs on a skipped step.
    """

    exit = "exit"
    output = "output"
    modules = "modules"


class Keep(StrEnum):
    """What is kept of the features.

    Attributes:
        features: they themselves.
        bfloat16: they themselves, rounded to bfloat16.
        float8: they themselves, in eight bits (e4m3) with a scale for each channel of each sample.
        sums: a few weighted sums of them in float32, from which every later forecast follows, see
            `spectrum.core.spans`.
        host: they themselves, in the memory of the host; on a CPU that is where they are.
    """

    features = "features"
    bfloat16 = "bfloat16"
    float8 = "float8"
    sums = "sums"
    host = "host"
