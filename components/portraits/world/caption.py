"""Words for a person in a view: the caption, finer details, and attributes that a machine can check."""

from components.portraits.world.identity import Identity
from components.portraits.world.view import View

_PERSONS = {"female": "a woman", "male": "a man"}
_AGE_WORDS = {"young": "a young person", "middle-aged": "a middle-aged person", "old": "an old person"}
_STYLE_WORDS = {"side part": "side-parted", "shoulder-length": "shoulder-length"}


def wears_glasses(identity: Identity, view: View) -> bool:
    """Whether glasses are seen, after the view's override."""
    return identity.glasses != "none" if view.glasses is None else view.glasses


def smiles(view: View) -> bool:
    """Whether the view shows a smile."""
    return view.smile > 0.4


def hair_words(identity: Identity) -> str:
    """Such as "long red hair", "red hair in a bun", "a bald head"."""
    colour, style = identity.hair_colour, identity.hair_style
    if style == "bald":
        return "a bald head"
    if style in ("bun", "fringe"):
        return f"{colour} hair in a bun" if style == "bun" else f"{colour} hair and a fringe"
    if style == "afro":
        return f"a {colour} afro"
    return f"{_STYLE_WORDS.get(style, style)} {colour} hair"


def caption_of(identity: Identity, view: View) -> str:
    """Such as "a photo of a woman with long red hair and glasses, smiling, on a blue background"."""
    has = [hair_words(identity)]
    if identity.beard != "none":
        has.append(identity.beard if identity.beard == "stubble" else f"a {identity.beard}")
    if wears_glasses(identity, view):
        has.append("glasses")
    if identity.hat != "none":
        has.append(f"a {identity.hat_colour} {identity.hat}")
    listed = has[0] if len(has) == 1 else ", ".join(has[:-1]) + " and " + has[-1]
    smile = ", smiling" if smiles(view) else ""
    person, wall = _PERSONS[identity.gender], _with_article(view.background)
    return f"a photo of {person} with {listed}{smile}, on {wall} background"


def prompt_of(identity: Identity, view: View) -> str:
    """The caption with S* for the person: what belongs to the picture alone, and glasses.

    Such as "a photo of S* with glasses, smiling, on a blue background".
    """
    return prompt_for(wears_glasses(identity, view), smiles(view), view.background)


def prompt_for(glasses: bool, smile: bool, background: str) -> str:
    """The prompt that says these three, in the words of captions."""
    worn, smiling = " with glasses" if glasses else "", ", smiling" if smile else ""
    return f"a photo of S*{worn}{smiling}, on {_with_article(background)} background"


def _with_article(word: str) -> str:
    return ("an " if word[0] in "aeiou" else "a ") + word


def details_of(identity: Identity, view: View) -> tuple[str, ...]:
    """Six to twelve phrases on finer traits, the most telling first."""
    found = [_skin_words(identity.skin_tone), f"{identity.eye_colour} eyes", _AGE_WORDS[identity.age]]
    found += ["a smile" if smiles(view) else "a calm face", _pose_words(view), hair_words(identity)]
    if identity.freckles:
        found.append("freckles")
    if identity.moles:
        found.append("a mole" if len(identity.moles) == 1 else "moles")
    if wears_glasses(identity, view):
        kind = identity.glasses if identity.glasses != "none" else "round"
        found.append(f"{kind} {identity.glasses_colour} glasses")
    if identity.wrinkles > 0.5:
        found.append("wrinkles")
    for value, low, high, less, more in _scales(identity):
        middle = (value - low) / (high - low)
        if middle < 0.33 or middle > 0.67:
            found.append(less if middle < 0.33 else more)
    return tuple(found[:12])


def _scales(identity: Identity):
    """(value, low, high, phrase when low, phrase when high)."""
    person = identity
    return (
        (person.nose_width, 0.055, 0.105, "a narrow nose", "a wide nose"),
        (person.head_height / person.head_width, 1.22, 1.65, "a round face", "a long face"),
        (person.brow_thickness, 0.014, 0.040, "thin brows", "thick brows"),
        (person.lip_thickness, 0.022, 0.056, "thin lips", "full lips"),
        (person.jaw_taper, 0.05, 0.38, "a broad jaw", "a pointed chin"),
        (person.eye_spacing, 0.235, 0.315, "close-set eyes", "wide-set eyes"),
        (person.nose_length, 0.30, 0.41, "a short nose", "a long nose"),
        (person.eye_height, 0.040, 0.078, "narrow eyes", "large eyes"),
        (person.mouth_width, 0.155, 0.235, "a small mouth", "a wide mouth"),
    )


def _skin_words(tone: float) -> str:
    return (
        "light skin"
        if tone < 0.2
        else "tan skin"
        if tone < 0.45
        else "brown skin"
        if tone < 0.68
        else "dark skin"
    )


def _pose_words(view: View) -> str:
    if abs(view.yaw) < 0.2:
        return "facing the camera"
    return "turned to the right" if view.yaw > 0 else "turned to the left"


def attributes_of(identity: Identity, view: View) -> dict[str, str | bool]:
    """What an automatic judge can look for."""
    bald = identity.hair_style == "bald"
    return {
        "group": identity.group,
        "gender": identity.gender,
        "age": identity.age,
        "hair_colour": "none" if bald else identity.hair_colour,
        "hair_style": identity.hair_style,
        "eye_colour": identity.eye_colour,
        "glasses": wears_glasses(identity, view),
        "beard": identity.beard != "none",
        "beard_kind": identity.beard,
        "hat": identity.hat != "none",
        "hat_kind": identity.hat,
        "freckles": identity.freckles,
        "smile": smiles(view),
        "background": view.background,
    }
