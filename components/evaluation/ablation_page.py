"""The ablation's table as `ablation.json`, `ablation.md` and one page, `ablation.html`, without network."""

import base64
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from components.core import Ablation, Checkpoint, EvaluationReport, write_text_atomic
from components.evaluation.ablation import FULL, VARIANTS, Line, ablation_lines
from components.evaluation.config import AblationConfig
from components.evaluation.report import thumbnail_data_uri
from components.evaluation.scores import Figure

ABLATION_SCHEMA = 1
PEOPLE_SHOWN = 4
Finished = tuple[Checkpoint, EvaluationReport]


def write_ablation(
    config: AblationConfig,
    finished: Mapping[str, Finished],
    folder: Path,
    *,
    missing: Sequence[str] = (),
    facts: Mapping[str, Any] | None = None,
) -> Ablation:
    """Writes the table of the finished variants.

    Args:
        config: How the intervals are made.
        finished: Training and evaluation of each variant that has both; "full" among them.
        folder: Where the table goes.
        missing: Variants that failed.
        facts: What else the page says of the run: profile, steps, seed.

    Raises:
        ValueError: The full method is not among them, or they were not measured alike.
    """
    reports = {
        name: json.loads(Path(report.report_json).read_text(encoding="utf-8"))
        for name, (_, report) in finished.items()
    }
    lines = [
        _with_training(line, *finished[line.variant])
        for line in ablation_lines(
            reports,
            seed=reports.get(FULL, {}).get("seed", 0),
            samples=config.bootstrap_samples,
            confidence=config.confidence,
        )
    ]
    folder.mkdir(parents=True, exist_ok=True)
    told = {
        "people": reports[FULL]["people"],
        "pictures": finished[FULL][1].count_out,
        "confidence": config.confidence,
    } | dict(facts or {})
    table = [line.model_dump(mode="json") for line in lines]
    contents = {"schema_version": ABLATION_SCHEMA, **told, "missing": list(missing), "lines": table}
    write_text_atomic(folder / "ablation.json", json.dumps(contents, indent=1, allow_nan=False) + "\n")
    write_text_atomic(folder / "ablation.md", markdown(lines, told, missing))
    write_text_atomic(folder / "ablation.html", _page(lines, told, missing, picture_rows(reports, finished)))
    return Ablation(
        count_in=len(lines) + len(missing),
        count_out=len(lines),
        folder=str(folder),
        report_json=str(folder / "ablation.json"),
        report_html=str(folder / "ablation.html"),
        verdicts={line.title: line.words for line in lines if line.words},
        missing=tuple(missing),
    )


def _with_training(line: Line, checkpoint: Checkpoint, report: EvaluationReport) -> Line:
    seconds = {"train": checkpoint.seconds, "evaluate": report.seconds}
    return line.model_copy(update={"reference_gain": checkpoint.reference_gain, "seconds": seconds})


def said(figure: Figure | None, share: bool = False) -> str:
    """Returns a figure with its interval, as words."""
    if figure is None or figure.mean is None or figure.interval is None:
        return "-"
    low, high = figure.interval
    if share:
        return f"{figure.mean:.0%} ({max(low, 0):.0%} to {high:.0%})"
    return f"{figure.mean:.3f} ({low:.3f} to {high:.3f})"


HEAD = (
    *("variant", "identity", "second judge", "colour", "top-1", "face found", "obeys"),
    *("full minus this, paired", "paper", "paper: full minus this", "verdict"),
)


def cells(line: Line) -> tuple[str, ...]:
    """Returns the line's cells, in the order of `HEAD`."""
    return (
        line.title,
        said(line.judges.get("identity")),
        said(line.judges.get("second")),
        said(line.judges.get("colour")),
        said(line.retrieval_top1, share=True),
        said(line.found, share=True),
        said(line.obedience, share=True),
        said(line.difference),
        "-" if line.paper is None else f"{line.paper:.3f}",
        "-" if line.paper_difference is None else f"{line.paper_difference:.3f}",
        line.words or "-",
    )


def markdown(lines: Sequence[Line], told: Mapping[str, Any], missing: Sequence[str]) -> str:
    """Returns the table for a README or Prefect's pages."""
    table = (HEAD, ("---",) * len(HEAD), *map(cells, lines))
    rows = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in table]
    facts = ", ".join(f"{name}: {value}" for name, value in told.items())
    lost = [f"Failed and not in the table: {', '.join(missing)}."] if missing else []
    return "\n".join([*rows, "", f"{facts}.", *lost]) + "\n"


def forest(lines: Sequence[Line]) -> str:
    """Returns the identity judge's figures of all variants as a PNG data URI, the full method first."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(6.2, 0.42 * len(lines) + 0.9), dpi=130, layout="constrained")
    axis = canvas.subplots()
    for y, line in enumerate(reversed(lines)):
        figure = line.judges["identity"]
        assert figure.interval is not None
        colour = "#1f4e9c" if line.variant == FULL else "#b3541e" if line.apart else "#777777"
        axis.plot(figure.interval, [y, y], color=colour, lw=2.5)
        axis.plot([figure.mean or 0.0], [y], "o", color=colour, ms=6)
    low, high = lines[0].judges["identity"].interval or (0, 0)
    axis.axvspan(low, high, color="#1f4e9c", alpha=0.1, lw=0)
    axis.set_yticks(range(len(lines)), [line.title for line in reversed(lines)], fontsize=8)
    axis.set_title(
        "identity judge: similarity of generated pictures to the reference", fontsize=9, loc="left"
    )
    axis.tick_params(axis="x", labelsize=8)
    axis.grid(axis="x", color="#dddddd", lw=0.6)
    axis.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    FigureCanvasAgg(canvas).print_png(buffer)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def picture_rows(
    reports: Mapping[str, Mapping[str, Any]], finished: Mapping[str, Finished]
) -> list[tuple[str, list[tuple[str, str]]]]:
    """Returns for some people the reference and each variant's picture from the same seed, as data URIs.

    People are taken evenly from best to worst by the full method.
    """
    rows = sorted(_first_pictures(reports[FULL]).items(), key=lambda item: -item[1]["similarity"])
    picks = np.linspace(0, len(rows) - 1, min(PEOPLE_SHOWN, len(rows))).round().astype(int)
    shown = []
    for person, row in (rows[i] for i in picks):
        pictures = [("reference", _uri(finished[FULL][1], row["reference_file"]))]
        for variant in (name for name in VARIANTS if name in reports):
            other = _first_pictures(reports[variant])[person]
            label = f"{VARIANTS[variant].title}: {other['similarity']:.2f}"
            pictures.append((label, _uri(finished[variant][1], other["file"])))
        shown.append((person, pictures))
    return shown


def _first_pictures(report: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    first: dict[str, dict[str, Any]] = {}
    for row in report["pictures"]:
        first.setdefault(row["person"], row)
    return first


def _uri(report: EvaluationReport, file: str) -> str:
    with Image.open(Path(report.report_json).parent / file) as picture:
        return thumbnail_data_uri(np.asarray(picture.convert("RGB")))


def _page(
    lines: Sequence[Line],
    told: Mapping[str, Any],
    missing: Sequence[str],
    people: Sequence[tuple[str, list[tuple[str, str]]]],
) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    return environment.get_template("ablation.html.j2").render(
        lines=lines, head=HEAD, cells=cells, told=told, missing=missing, plot=forest(lines), people=people
    )
