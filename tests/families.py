"""The model families that stand for the others in tests of families."""

CORE = {
    "cogvideox_5b", "cogview4", "dit_xl2", "flux", "lumina2", "qwen_image", "sd15", "sdxl",
    "wan22_a14b", "z_image",
}  # fmt: skip
"""The families of which each has something that no other one has; of the others less is run each time."""
