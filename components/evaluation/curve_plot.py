"""The picture of the trade-off: identity against obedience, one line a dial, one point a value."""

import base64
import io
from collections.abc import Mapping, Sequence

from components.evaluation.looks import Point
from components.evaluation.scores import Figure

COLOURS = ("#1f4e9c", "#b3541e", "#1d7a46", "#7a3e9d", "#8a6d00", "#444444")


def plot_curve(curve: Mapping[str, Sequence[Point]], identity_floor: float | None = None) -> str | None:
    """Returns the plot as a PNG data URI; None where no point has both figures.

    Args:
        curve: Points by dial.
        identity_floor: Similarity of different people, drawn as a line.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    lines = {dial: [p for p in points if _obedience(p) is not None] for dial, points in curve.items()}
    lines = {dial: points for dial, points in lines.items() if points}
    if not lines:
        return None
    canvas = Canvas(figsize=(6.2, 4.2), dpi=130, layout="constrained")
    axis = canvas.subplots()
    for (dial, points), colour in zip(lines.items(), COLOURS, strict=False):
        xs = [_mean(_obedience(point)) for point in points]
        ys = [_mean(point.identity) for point in points]
        axis.plot(xs, ys, "-o", color=colour, lw=1.5, ms=5, label=dial)
        for x, y, point in zip(xs, ys, points, strict=True):
            low, high = point.identity.interval or (y, y)
            axis.plot([x, x], [low, high], color=colour, lw=1, alpha=0.35)
            axis.annotate(
                point.label, (x, y), textcoords="offset points", xytext=(6, 4), fontsize=8, color=colour
            )
    if identity_floor is not None:
        axis.axhline(identity_floor, color="#8a8a8a", lw=1, ls="--", label="floor: other people")
    seen = [_mean(point.identity) for points in lines.values() for point in points]
    floor = seen if identity_floor is None else [*seen, identity_floor]
    axis.set_ylim(min(floor) - 0.1, max(seen) + 0.1)  # intervals of very few people run out of the picture
    first = next(iter(lines.values()))[0]
    if first.obeyed:
        axis.set_xlim(-0.03, 1.03)
    axis.set_xlabel("wishes met" if first.obeyed else "CLIP-T", fontsize=9)
    axis.set_ylabel("identity: similarity to the reference", fontsize=9)
    axis.tick_params(labelsize=8)
    axis.grid(color="#e3e3e3", lw=0.6)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize=8, frameon=False)
    buffer = io.BytesIO()
    FigureCanvasAgg(canvas).print_png(buffer)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _obedience(point: Point) -> Figure | None:
    return point.obeyed or point.clip_t


def _mean(figure: Figure | None) -> float:
    assert figure is not None
    assert figure.mean is not None
    return figure.mean
