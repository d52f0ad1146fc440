"""The report: the same figures as `report.json` and as one HTML page that needs no network.

Pictures and the plot are inside the page as data; the page is a single column that a phone can read.
"""

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from components.core import atomic_path, write_text_atomic
from components.evaluation.data import Photo
from components.evaluation.scores import COLUMNS, JudgeFigures

REPORT_SCHEMA = 2
THUMBNAIL_PX = 192  # twice the width of a picture on the page
JUDGE_WORDS = {
    "identity": "Identity net: an ArcFace-style recogniser on the aligned face; training may have used it.",
    "second": "Second recogniser, which training never saw.",
    "colour": "Colour histogram of the face (Bhattacharyya coefficient). Faces share colours: look at "
    "the distance between floor and ceiling, not at the number alone.",
}
SHOWN = ("generated", "floor", "base_alone", "ceiling")
COLUMN_WORDS = {
    "generated": "generated",
    "floor": "floor: other people",
    "base_alone": "base model alone",
    "ceiling": "ceiling: another photo",
    "through_vae": "the reference through the VAE",
    "retrieval_top1": "top-1 retrieval",
    "found": "face found",
}


@dataclass(frozen=True)
class GalleryRow:
    """One reference of the picture grid.

    Attributes:
        reference: The photo.
        other_uint8: Another photo of the person, None where there is none.
        pictures: The generated pictures, (H, W, 3) RGB each.
        similarities: (K,) by the identity judge.
        found: (K,) whether a face was found.
    """

    reference: Photo
    other_uint8: NDArray[np.uint8] | None
    pictures: Sequence[NDArray[np.uint8]]
    similarities: NDArray[np.float64]
    found: NDArray[np.bool_]


def thumbnail_data_uri(picture_uint8: NDArray[np.uint8]) -> str:
    """Returns the picture as a data URI: PNG up to `THUMBNAIL_PX`, above it reduced to that and JPEG."""
    picture, buffer = Image.fromarray(picture_uint8), io.BytesIO()
    if max(picture.size) <= THUMBNAIL_PX:
        picture.save(buffer, format="PNG", optimize=True)
        return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    picture.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.LANCZOS)
    picture.save(buffer, format="JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def write_json(
    path: Path, facts: dict[str, Any], tables: Sequence[JudgeFigures], rows: list[dict[str, Any]]
) -> None:
    """Writes `report.json`: schema version, what was judged, one table a judge, one row a picture."""
    judges = {table.judge: table.model_dump(mode="json") for table in tables}
    report = {"schema_version": REPORT_SCHEMA, **facts, "judges": judges, "pictures": rows}
    write_text_atomic(path, json.dumps(report, indent=1, allow_nan=False) + "\n")


def plot_tables(tables: Sequence[JudgeFigures]) -> str:
    """Returns all judges as a PNG data URI: dot and interval a row, floor and ceiling as marks."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    heights = [len(table.rows) for table in tables]
    canvas = Figure(figsize=(6.2, 0.9 * len(tables) + 0.3 * sum(heights)), dpi=130, layout="constrained")
    axes = canvas.subplots(len(tables), 1, squeeze=False, height_ratios=[h + 1.5 for h in heights])[:, 0]
    for axis, table in zip(axes, tables, strict=True):
        _plot_table(axis, table)
    handles, labels = axes[0].get_legend_handles_labels()
    canvas.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    buffer = io.BytesIO()
    FigureCanvasAgg(canvas).print_png(buffer)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _plot_table(axis: Any, table: JudgeFigures) -> None:
    names = list(table.rows)[::-1]
    marks = {
        "floor": ("|", "#8a8a8a", "floor"),
        "base_alone": ("x", "#b3541e", "base alone"),
        "ceiling": ("|", "#1d7a46", "ceiling"),
    }
    for y, name in enumerate(names):
        row = table.rows[name]
        for column, (marker, colour, label) in marks.items():
            if row[column].mean is not None:
                size = 11 if marker == "|" else 6
                axis.plot(
                    row[column].mean,
                    y,
                    marker,
                    color=colour,
                    ms=size,
                    mew=2,
                    ls="",
                    label=label if not y else "",
                )
        made = row["generated"]
        if made.mean is not None and made.interval is not None:
            axis.plot(made.interval, [y, y], color="#1f4e9c", lw=2)
            axis.plot(made.mean, y, "o", color="#1f4e9c", ms=6, label="generated, 95%" if not y else "")
    shown = [row[column].mean for row in table.rows.values() for column in SHOWN]
    means = [mean for mean in shown if mean is not None]
    axis.set_xlim(min(means) - 0.12, max(means) + 0.12)  # intervals of very few people run out of the picture
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.set_ylim(-0.6, len(names) - 0.4)
    axis.set_title(f"{table.judge} judge: cosine similarity", fontsize=9, loc="left")
    axis.tick_params(axis="x", labelsize=8)
    axis.grid(axis="x", color="#dddddd", lw=0.6)
    axis.spines[["top", "right"]].set_visible(False)


def order_gallery(rows: Sequence[GalleryRow], count: int) -> list[tuple[str, list[GalleryRow]]]:
    """Returns titled parts of the picture grid: best, median and worst of each group, then people in order.

    Args:
        rows: One a reference.
        count: How many references the last part may show.
    """
    parts: list[tuple[str, list[GalleryRow]]] = []
    for group in sorted({row.reference.group for row in rows}):
        of_group = sorted(
            (r for r in rows if r.reference.group == group), key=lambda r: -float(r.similarities.mean())
        )
        picks = dict.fromkeys([0, len(of_group) // 2, len(of_group) - 1])
        title = f"Best, median and worst: {group}" if group else "Best, median and worst"
        parts.append((title, [of_group[i] for i in picks]))
    shown = sorted(rows, key=lambda row: (row.reference.person, row.reference.key))[:count]
    return [*parts, (f"References in order of name ({len(shown)} of {len(rows)})", shown)]


def write_sheet(path: Path, gallery: Sequence[GalleryRow], rows: int = 8, side: int = 128) -> None:
    """Writes a contact sheet: a person a row, the reference first, then the generated pictures."""
    gap = 4
    chosen = sorted(gallery, key=lambda row: (row.reference.person, row.reference.key))[:rows]
    columns = 1 + max(len(row.pictures) for row in chosen)
    size = (columns * side + (columns + 1) * gap, len(chosen) * side + (len(chosen) + 1) * gap)
    sheet = Image.new("RGB", size, "white")
    for y, row in enumerate(chosen):
        for x, picture in enumerate([row.reference.target_uint8, *row.pictures]):
            small = Image.fromarray(picture).resize((side, side), Image.Resampling.LANCZOS)
            sheet.paste(small, (gap + x * (side + gap), gap + y * (side + gap)))
    with atomic_path(path) as temporary:
        sheet.save(temporary, format="PNG")


def write_html(
    path: Path,
    facts: dict[str, Any],
    tables: Sequence[JudgeFigures],
    gallery: Sequence[GalleryRow],
    base_pictures: Sequence[NDArray[np.uint8]],
    gallery_people: int,
    extras: dict[str, Any],
    curve_plot: str | None = None,
) -> None:
    """Writes `report.html`.

    Args:
        path: The page.
        facts: What was judged.
        tables: One a judge.
        gallery: Rows of the picture grid.
        base_pictures: Of the base model alone.
        gallery_people: How many people the grid shows in order of name.
        extras: What was measured beside identity, as plain values.
        curve_plot: The trade-off as a data URI.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters["thumbnail"] = thumbnail_data_uri
    page = environment.get_template("report.html.j2").render(
        facts=facts,
        extras=extras,
        curve_plot=curve_plot,
        tables=tables,
        columns=COLUMNS,
        column_words=COLUMN_WORDS,
        judge_words=JUDGE_WORDS,
        plot=plot_tables(tables),
        parts=order_gallery(gallery, gallery_people),
        base_pictures=base_pictures[:20],
    )
    write_text_atomic(path, page)
