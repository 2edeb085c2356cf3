"""What the embedded model can draw: objects, their pictures, ground colours, and which pairs it never saw.

Every object has one ground colour it is never painted on while training. The evaluation prompts ask for exactly those
pairs, so a picture of one cannot be recalled, it has to be composed.
"""

import hashlib

# name -> Noto emoji file (code points), grouped by the word a vague caption may use instead of the name.
OBJECTS: dict[str, dict[str, str]] = {
    "animal": {
        "cat": "1f431", "dog": "1f436", "fox": "1f98a", "panda": "1f43c", "pig": "1f437", "frog": "1f438",
        "rabbit": "1f430", "chick": "1f424", "penguin": "1f427", "owl": "1f989", "fish": "1f420", "turtle": "1f422",
        "butterfly": "1f98b", "bee": "1f41d", "ladybug": "1f41e",
    },
    "fruit": {
        "apple": "1f34e", "banana": "1f34c", "cherry": "1f352", "grape": "1f347", "lemon": "1f34b",
        "orange": "1f34a", "pear": "1f350", "pineapple": "1f34d", "strawberry": "1f353", "watermelon": "1f349",
    },
    "food": {
        "burger": "1f354", "pizza": "1f355", "doughnut": "1f369", "ice cream": "1f366", "cake": "1f382",
        "carrot": "1f955", "egg": "1f373", "mushroom": "1f344", "avocado": "1f951",
    },
    "plant": {
        "sunflower": "1f33b", "rose": "1f339", "tulip": "1f337", "cactus": "1f335", "tree": "1f333", "pine": "1f332",
    },
    "thing": {
        "car": "1f697", "bus": "1f68c", "rocket": "1f680", "sailboat": "26f5", "football": "26bd",
        "basketball": "1f3c0", "balloon": "1f388", "house": "1f3e0", "key": "1f511", "umbrella": "2602-fe0f",
        "clock": "23f0", "book": "1f4d5", "gift": "1f381", "crown": "1f451", "hat": "1f3a9", "light bulb": "1f4a1",
        "bell": "1f514", "star": "2b50", "heart": "2764-fe0f", "sun": "1f31e", "moon": "1f319", "snowman": "26c4",
        "ghost": "1f47b", "pumpkin": "1f383",
    },
}  # fmt: skip
FILES = {name: code for group in OBJECTS.values() for name, code in group.items()}
GROUP = {name: group for group, names in OBJECTS.items() for name in names}

# Centre of each ground colour in sRGB; a scene draws its ground near it.
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (205, 50, 50), "pink": (240, 150, 185), "brown": (125, 85, 55), "yellow": (240, 210, 80),
    "green": (70, 150, 80), "teal": (40, 150, 150), "blue": (60, 110, 215), "navy": (30, 45, 105),
    "purple": (135, 80, 180), "white": (242, 242, 238), "gray": (140, 142, 146), "black": (28, 28, 32),
}  # fmt: skip
PATTERNS = ("plain", "striped", "dotted", "checkered", "shaded")


def article(noun: str) -> str:
    """The noun with its indefinite article."""
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def plural(noun: str) -> str:
    """The noun in the plural, as the captions write it."""
    if noun == "fish":
        return noun
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + ("es" if noun.endswith(("s", "x", "ch")) else "s")


def unseen_colour(name: str) -> str:
    """The ground colour that `name` is never painted on in the training data."""
    digest = hashlib.sha256(f"held out: {name}".encode()).digest()
    return list(COLOURS)[digest[0] % len(COLOURS)]
