"""What the page says: titles, and each dial in plain words."""

TITLE = "PhotoVerse"
INTRO = (
    "One photo of a person, a few words, and pictures of that person. Use photos of people who agreed to it. "
    "Every picture is marked as AI-generated: in its metadata, in its pixels, and with a signature."
)
PROMPT = "`S*` stands for the person"
EXAMPLES = ("a photo of S*, smiling", "a photo of S* with glasses", "a photo of S* on a blue background")

SIGMA = ("Likeness (sigma)", "How much the photo shapes the face. Up: more like the person. Down: more free.")
GAMMA = ("Words (gamma)", "How much your words shape the picture.")
ALPHA = ("Learned style (alpha)", "How much of the training on faces is used. 0 is the base's own hand.")
M = ("Words for the person (m)", "1 is easiest to change by your words; more keep more of the person.")
GUIDANCE = ("Obedience (guidance)", "How hard the words are enforced. Too high burns the colours. 1 is off.")
STEPS = ("Steps", "More steps take longer and look cleaner, up to a point.")
STRENGTH = ("How much may change", "Near 0 the photo stays; at 1 nothing of it is left but the person.")
NEGATIVE = ("Not in the picture", "What to keep away, for instance: blurry, text")
SEED = ("Seed", "The same seed and settings give the same picture again. -1 picks a new one.")
OVER = ("Start from the photo", "Paints over the square around the face, instead of starting from nothing.")
COUNT = "How many pictures"
CONSENT = "The person in the photo agreed to these pictures (or it is me)"

NO_PERSON = "Who is meant? Add a photo, take one, or choose a kept person."
NO_CONSENT = "Please tick that the person in the photo agreed to it."
NO_PROMPT = "Say what to draw, for instance: a photo of S*, smiling"
NO_SUBJECT = "Write S* where the person should be, for instance: a photo of S*, smiling"
NO_START = "Start from the photo needs a photo."
FAULT = "Something went wrong here, not with your photo. The log of this machine has the rest, under {mark}."
FAULTS = {
    "no_face": "No face was found in the photo. Try one that shows the face from the front, in good light.",
    "tiny_face": "The face in the photo is too small. Come closer, or crop the photo.",
    "several_faces": "There are several people in the photo. Crop it to the one you mean.",
}
