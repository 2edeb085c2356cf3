import math

import pytest
import torch

from eval.metrics import vbench, video
from spectrum.core.errors import SpectrumError


def clip(*levels, height=8, width=8):
    """A video of plain grey frames."""
    return torch.tensor(levels)[:, None, None, None].expand(-1, 3, height, width).clone()


def table(*rows):
    """Features that give frame `i`, known by its grey level `i / 10`, the row `i`."""
    rows = torch.tensor(rows, dtype=torch.float64)
    return lambda frames: rows[(frames[:, 0, 0, 0] * 10).round().long()]


def noise(frames=6, height=16, width=16, seed=0):
    return torch.rand(frames, 3, height, width, generator=torch.Generator().manual_seed(seed))


CONSISTENCIES = [video.subject_consistency, video.background_consistency]


@pytest.mark.parametrize("function", CONSISTENCIES)
@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([(1, 0), (2, 0), (5, 0)], 1.0),
        ([(1, 0), (0, 1)], 0.0),
        ([(1, 0), (-1, 0)], 0.0),
        # to the previous 0 and 0, to the first 0 and 1
        ([(1, 0), (0, 3), (2, 0)], 0.25),
        # frame 1: cos 45 to both; frame 2: cos 45 to the previous, 0 to the first
        ([(1, 0), (1, 1), (0, 1)], (math.sqrt(0.5) + math.sqrt(0.5) / 2) / 2),
        # frame 1: 60 degrees to both; frame 2: 60 to the previous, 120, so 0, to the first
        ([(1, 0), (0.5, math.sqrt(0.75)), (-0.5, math.sqrt(0.75))], (0.5 + 0.25) / 2),
    ],
)
def test_consistency_by_hand(function, rows, expected):
    frames = clip(*[i / 10 for i in range(len(rows))])
    assert function(frames, table(*rows)) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("function", CONSISTENCIES)
def test_consistency_of_a_long_video_spans_batches(function):
    """40 frames whose features turn by 3 degrees each."""
    frames = torch.linspace(0, 1, 40)[:, None, None, None].expand(-1, 3, 4, 4)

    def features(some):
        turn = torch.deg2rad(3 * 39 * some[:, 0, 0, 0].double())
        return torch.stack([turn.cos(), turn.sin()], 1)

    expected = sum((math.cos(math.radians(3)) + max(0, math.cos(math.radians(3 * i)))) / 2 for i in range(1, 40)) / 39
    assert function(frames, features) == pytest.approx(expected, abs=1e-6)


def test_flickering_by_hand():
    assert video.temporal_flickering(clip(0.3, 0.3, 0.3)) == 1
    assert video.temporal_flickering(clip(0.0, 1.0, 0.0)) == 0
    # 51 and 102 of 255 apart
    assert video.temporal_flickering(clip(0.0, 0.2, 0.6)) == pytest.approx((255 - 76.5) / 255)
    half = clip(0.0, 0.0)
    half[1, :, :4] = 0.5
    assert video.temporal_flickering(half) == pytest.approx(0.75)


def mean(a, b):
    return (a + b) / 2


def test_motion_smoothness_by_hand():
    assert video.motion_smoothness(clip(0.0, 0.1, 0.2, 0.3, 0.4), mean) == pytest.approx(1, abs=1e-6)
    assert video.motion_smoothness(clip(0.0, 0.5, 0.0), mean) == pytest.approx(0.5)
    # frame 1 is 0.2 off and frame 3 is right; frame 5 has no frame after it
    levels = (0.0, 0.3, 0.2, 0.3, 0.4, 1.0)
    assert video.motion_smoothness(clip(*levels), mean) == pytest.approx(1 - 0.2 / 2, abs=1e-6)
    assert video.motion_smoothness(clip(1.0, 1.0, 1.0), lambda a, b: 7 * a) == 1
    assert video.motion_smoothness(clip(1.0, 0.0, 1.0), lambda a, b: -7 * a) == 1


def test_motion_smoothness_asks_for_the_frames_between_even_ones():
    asked = []

    def interpolate(a, b):
        asked.extend(zip(a[:, 0, 0, 0].tolist(), b[:, 0, 0, 0].tolist(), strict=True))
        return mean(a, b)

    video.motion_smoothness(clip(*[i / 100 for i in range(41)]), interpolate)
    assert [(round(100 * a), round(100 * b)) for a, b in asked] == [(i, i + 2) for i in range(0, 40, 2)]


def shifts(height, width, lengths, share=1.0):
    """A flow that gives the pairs in turn shifts of these lengths, on the first `share` of the pixels."""
    turns = iter(lengths)

    def flow(a, b):
        found = torch.zeros(len(a), 2, height, width)
        for row in found:
            length = next(turns)
            row[0].view(-1)[: round(share * height * width)] = 0.6 * length
            row[1].view(-1)[: round(share * height * width)] = -0.8 * length
        return found

    return flow


@pytest.mark.parametrize(
    ("moving", "share", "expected"),
    [(4, 1.0, 1), (3, 1.0, 0), (4, 0.05, 1), (4, 0.04, 0), (15, 1.0, 1), (0, 1.0, 0)],
)
def test_dynamic_degree_needs_a_quarter_of_the_pairs_above_the_threshold(moving, share, expected):
    """16 frames of 40x64: the threshold is 6 * 40 / 256 = 0.9375 pixels, and 4 pairs have to pass it."""
    lengths = [1.0] * moving + [0.9] * (15 - moving)
    assert video.dynamic_degree(noise(16, 40, 64), shifts(40, 64, lengths, share)) == expected


def test_dynamic_degree_scales_with_the_shorter_side_and_counts_strictly():
    """At 320x330 the threshold is 6 * 320 / 256 = 7.5 pixels."""
    for length, expected in ((7.5, 0), (7.51, 1)):
        flow = shifts(320, 330, [length] * 3)
        assert video.dynamic_degree(torch.zeros(4, 3, 320, 330), flow) == expected


def test_dynamic_degree_of_small_and_of_short_videos():
    """Of 4x4 pixels one counts, because 5 % are less than one; of 6 frames two pairs have to move, 1.5 rounded."""
    assert video.dynamic_degree(noise(4, 4, 4), shifts(4, 4, [0.1] * 3, share=1 / 16)) == 1
    for moving, expected in ((1, 0), (2, 1)):
        flow = shifts(40, 64, [1.0] * moving + [0.9] * (5 - moving))
        assert video.dynamic_degree(noise(6, 40, 64), flow) == expected


def test_dynamic_degree_keeps_eight_frames_a_second():
    seen = []

    def flow(a, b):
        seen.append((round(100 * a[0, 0, 0, 0].item()), round(100 * b[0, 0, 0, 0].item())))
        return torch.zeros(1, 2, 8, 8)

    video.dynamic_degree(clip(*[i / 100 for i in range(12)]), flow, fps=24)
    assert seen == [(0, 3), (3, 6), (6, 9)]
    with pytest.raises(SpectrumError, match="three frames at 8 a second"):
        video.dynamic_degree(clip(*[i / 100 for i in range(6)]), flow, fps=24)
    with pytest.raises(SpectrumError, match=r"three frames at 8 a second, and there are 1:"):
        video.dynamic_degree(clip(0.0), flow)
    for wrong, said in ((0, "must be above 0, got 0"), ("8", "")):
        with pytest.raises(SpectrumError, match=f"^the frames a second of dynamic_degree .*{said}"):
            video.dynamic_degree(clip(0.0, 0.1, 0.2), flow, fps=wrong)
    assert video.dynamic_degree(clip(0.0, 0.1, 0.2), flow, fps=0.5) == 0


def test_aesthetic_quality_scores_unit_vectors():
    head = torch.nn.Linear(2, 1)
    head.load_state_dict({"weight": torch.tensor([[3.0, 4.0]]), "bias": torch.tensor([1.0])})
    # 3 + 1 and 4 + 1, whatever the lengths
    assert video.aesthetic_quality(clip(0.0, 0.1), table((7, 0), (0, 0.2)), head) == pytest.approx(0.45)
    assert video.aesthetic_quality(clip(0.0), table((7, 0)), head) == pytest.approx(0.4)


def test_imaging_quality_scores_frames_of_512_pixels_or_less():
    sizes = []

    def scorer(frames):
        sizes.append(tuple(frames.shape[-2:]))
        return 100 * frames.mean((1, 2, 3))

    assert video.imaging_quality(clip(0.2, 0.6), scorer) == pytest.approx(0.4)
    assert video.imaging_quality(clip(0.2, 0.4, height=320, width=1024), scorer) == pytest.approx(0.3)
    assert sizes == [(8, 8), (160, 512)]
    assert video.imaging_quality(clip(0.2), scorer) == pytest.approx(0.2)


def test_imaging_quality_halves_by_the_mean_of_four_pixels():
    frames = noise(2, 8, 1024)
    fours = frames.unflatten(2, (4, 2)).unflatten(4, (512, 2)).mean((3, 5))
    found = video.imaging_quality(frames, lambda some: 100 * some[:, 1, 3, 7])
    assert found == pytest.approx(fours[:, 1, 3, 7].mean().item(), rel=1e-5)


def test_values_stay_in_range():
    for seed in range(5):
        frames = noise(seed=seed)
        features = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 16, 5))
        values = [
            *(function(frames, features) for function in CONSISTENCIES),
            video.temporal_flickering(frames),
            video.motion_smoothness(frames, mean),
        ]
        assert all(0 <= value <= 1 for value in values)
        assert video.temporal_flickering(frames.flip(0)) == pytest.approx(values[2])
        assert video.motion_smoothness(frames[:5].flip(0), mean) == pytest.approx(
            video.motion_smoothness(frames[:5], mean)
        )


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (clip(0.0), "needs 2 frames or more"),
        (torch.zeros(4, 8, 8), "takes a float video"),
        (torch.zeros(4, 3, 8, 8, dtype=torch.uint8), "takes a float video"),
        (torch.zeros(4, 2, 8, 8), "takes a float video"),
        (clip(0.0, 200.0), "divide 8-bit ones by 255"),
        (clip(0.0, 1.5), "divide 8-bit ones by 255"),
        (clip(0.0, float("nan")), "sample NaN ones again"),
    ],
)
def test_what_is_no_video_is_refused(frames, message):
    with pytest.raises(SpectrumError, match=message):
        video.temporal_flickering(frames)


DIMENSIONS = {
    "subject_consistency": (video.subject_consistency, 1),
    "background_consistency": (video.background_consistency, 1),
    "temporal_flickering": (video.temporal_flickering, 0),
    "motion_smoothness": (video.motion_smoothness, 1),
    "dynamic_degree": (video.dynamic_degree, 1),
    "aesthetic_quality": (video.aesthetic_quality, 2),
    "imaging_quality": (video.imaging_quality, 1),
}


@pytest.mark.parametrize("name", DIMENSIONS)
def test_every_dimension_names_itself_where_it_refuses(name):
    function, backbones = DIMENSIONS[name]
    with pytest.raises(SpectrumError, match=f"^{name} takes a float video"):
        function(torch.zeros(3, 8, 8), *[mean] * backbones)
    with pytest.raises(SpectrumError, match=rf"^{name} takes pixels in \[0, 1\]"):
        function(clip(0.0, 0.5, 2.0), *[mean] * backbones)


def test_backbones_that_give_other_shapes_are_refused():
    frames = clip(0.0, 0.1, 0.2)
    nothing = float("nan")
    for name in ("subject_consistency", "background_consistency", "aesthetic_quality"):
        function, backbones = DIMENSIONS[name]
        for features, shape in (
            (lambda some: some, r"\(3, 3, 8, 8\)"),
            (lambda some: some[1:, 0, 0], r"\(2, 8\)"),
            (lambda some: nothing * some[:, 0, 0], r"\(3, 8\)"),
        ):
            with pytest.raises(SpectrumError, match=rf"^the features of {name} must be finite and .* got {shape}"):
                function(frames, *[features, mean][:backbones])
    with pytest.raises(SpectrumError, match=r"^the head must give finite values of the shape \(3,\), got \(24,\)"):
        video.aesthetic_quality(frames, lambda some: some[:, 0, 0], lambda rows: rows)
    with pytest.raises(SpectrumError, match=r"^the interpolator must give finite values of the shape \(1, 3, 8, 8\)"):
        video.motion_smoothness(frames, lambda a, b: a[..., 1:])
    with pytest.raises(SpectrumError, match=r"^the flow must give finite values of the shape \(1, 2, 8, 8\)"):
        video.dynamic_degree(frames, lambda a, b: a)
    with pytest.raises(SpectrumError, match=r"^the scorer must give finite values of the shape \(3,\), got \(1,\)"):
        video.imaging_quality(frames, lambda some: some[:1, 0, 0, 0])


def test_corpus_equals_the_mean_over_all_compared_frames():
    features = table((1, 0), (1, 1), (0, 1), (1, 2), (2, 1))
    parts = [clip(0.0, 0.1), clip(0.2, 0.3, 0.4, 0.0)]
    values = [video.subject_consistency(part, features) for part in parts]
    found = vbench.corpus("subject_consistency", values, [len(part) for part in parts])
    root = math.sqrt(5)
    frames = [math.sqrt(0.5), (2 / root + 2 / root) / 2, (4 / 5 + 1 / root) / 2, (2 / root + 0) / 2]
    assert found == pytest.approx(sum(frames) / 4)
