"""How the page looks: Gradio blocks around a `Studio`. Nothing here knows how a picture is made."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from components.page import words
from components.page.studio import Ask, Shot, Studio, explain

# The fonts of the reader's own system: nothing is fetched from anywhere.
THEME = gr.themes.Soft(
    primary_hue="indigo", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
)
CSS = """
.gradio-container {
  max-width: 1180px !important; min-width: 0; width: 100%; margin: 0 auto; overflow: clip !important
}
#intro p {opacity: .8}
#status {min-height: 1.6em}
#pictures .caption-label, #history .caption-label {max-width: calc(100% - 12px); font-size: 12px}
#pictures .grid-wrap, #history .grid-wrap {min-height: 0}
#recipe .json-holder {overflow-x: auto}
#recipe .content, #recipe .value {min-width: 0; white-space: normal; overflow-wrap: anywhere}
#status .bad {color: #b3261e; font-weight: 600}
.dark #status .bad {color: #ff8a80}
#pictures .grid-wrap, #history .grid-wrap {max-height: none}
@media (max-width: 640px) {
  .gradio-container {padding: 8px !important}
  #pictures .caption-label, #history .caption-label {font-size: 11px; padding: 2px 5px}
  #draw {position: sticky; bottom: 8px; z-index: 5}
}
"""
LIFETIMES = [("30 days", 30), ("1 year", 365), ("without end", 0)]


def build_page(studio: Studio) -> gr.Blocks:
    """Returns the page."""
    config = studio.config
    often = (config.forget_after_s, config.forget_after_s)
    with gr.Blocks(title=words.TITLE, analytics_enabled=False, delete_cache=often) as page:
        gr.Markdown(f"# {words.TITLE}\n{words.INTRO}", elem_id="intro")
        session = gr.State([], time_to_live=config.forget_after_s, delete_callback=_forget)
        with gr.Row():
            with gr.Column(scale=5, min_width=300):
                photo = gr.Image(
                    label="A photo of the person", sources=["upload", "webcam"], type="filepath", height=260,
                    elem_id="photo", buttons=[],
                )  # fmt: skip
                agreed = gr.Checkbox(label=words.CONSENT, elem_id="agreed")
                kept = gr.Dropdown(
                    label="or a kept person", choices=_choices(studio), value="", elem_id="kept",
                    visible=bool(studio.people()),
                )  # fmt: skip
                prompt = gr.Textbox(
                    label="What to draw", info=words.PROMPT, value=words.EXAMPLES[0], lines=2,
                    max_length=config.max_prompt_characters, elem_id="prompt",
                )  # fmt: skip
                gr.Examples([[text] for text in words.EXAMPLES], inputs=[prompt], label="For instance")
                count = gr.Slider(1, config.max_images, value=2, step=1, label=words.COUNT, elem_id="count")
                dials = _dials(studio)
                draw = gr.Button("Draw", variant="primary", size="lg", elem_id="draw")
            with gr.Column(scale=6, min_width=300):
                status = gr.HTML("Your pictures will appear here.", elem_id="status")
                gallery = gr.Gallery(
                    show_label=False, columns=2, object_fit="contain", height="auto", elem_id="pictures",
                    buttons=["download", "fullscreen"], interactive=False,
                )  # fmt: skip
                files = gr.File(
                    label="Download, with recipe", file_count="multiple", interactive=False, visible=False,
                    elem_id="files",
                )  # fmt: skip
                with gr.Accordion("Earlier pictures of this session", open=False, elem_id="earlier"):
                    history = gr.Gallery(
                        columns=4, object_fit="contain", height="auto", show_label=False, elem_id="history",
                        interactive=False, buttons=["download"],
                    )  # fmt: skip
                with gr.Accordion("Recipe of the picture last chosen", open=False, elem_id="chosen"):
                    recipe = gr.JSON(show_label=False, elem_id="recipe")
                keep = _keep(studio)
        gr.Markdown(f"Model: `{studio.model_version}`. Nothing leaves this machine.")

        private: dict[str, Any] = {"api_visibility": "private"}
        given = [photo, kept, agreed, prompt, count, *dials, session]
        shown = [status, gallery, files, history, session]
        drawn = draw.click(
            partial(_draw, studio), given, shown, concurrency_id="draw", concurrency_limit=1,
            show_progress="minimal", show_progress_on=[gallery], **private,
        )  # fmt: skip
        drawn.then(lambda shots: shots[-1].recipe if shots else None, [session], [recipe], **private)
        gallery.select(_chosen, [session], [recipe], **private)
        history.select(_chosen, [session], [recipe], **private)
        person, purpose, days, button, said = keep
        button.click(
            partial(_keep_person, studio), [photo, person, purpose, agreed, days], [said, kept],
            concurrency_id="draw", **private,
        )  # fmt: skip
        page.load(lambda: _people(studio), None, [kept], **private)
    return page


def _dials(studio: Studio) -> list[Any]:
    """The dials, in the order that `_draw` takes them."""
    own, config = studio.dials, studio.config
    with gr.Accordion("Start from the photo (image-to-image)", open=False, elem_id="over-photo"):
        over = gr.Checkbox(label=words.OVER[0], info=words.OVER[1], elem_id="over")
        strength = gr.Slider(
            0.05, 1, value=0.6, step=0.05, label=words.STRENGTH[0], info=words.STRENGTH[1], elem_id="strength"
        )
    with gr.Accordion("Dials", open=False, elem_id="dials"):
        sigma = gr.Slider(
            0, 2, value=own.sigma, step=0.05, label=words.SIGMA[0], info=words.SIGMA[1], elem_id="sigma"
        )
        gamma = gr.Slider(0, 2, value=own.gamma, step=0.05, label=words.GAMMA[0], info=words.GAMMA[1])
        alpha = gr.Slider(0, 2, value=own.alpha, step=0.05, label=words.ALPHA[0], info=words.ALPHA[1])
        most = studio.most_words
        m = gr.Slider(
            1, max(most, 2), value=own.m or most, step=1, label=words.M[0], info=words.M[1], visible=most > 1
        )
        guidance = gr.Slider(
            1, 15, value=own.guidance_scale, step=0.5, label=words.GUIDANCE[0], info=words.GUIDANCE[1],
            elem_id="guidance",
        )  # fmt: skip
        steps = gr.Slider(
            1, config.max_steps, value=min(own.num_inference_steps, config.max_steps), step=1,
            label=words.STEPS[0], info=words.STEPS[1], elem_id="steps",
        )  # fmt: skip
        seed = gr.Number(value=-1, precision=0, label=words.SEED[0], info=words.SEED[1], elem_id="seed")
        negative = gr.Textbox(label=words.NEGATIVE[0], info=words.NEGATIVE[1])
    return [over, strength, sigma, gamma, alpha, m, guidance, steps, seed, negative]


def _keep(studio: Studio) -> tuple[Any, ...]:
    with gr.Accordion("Keep this person as a card", open=False, elem_id="keep"):
        gr.Markdown(
            "A card draws the person again without the photo. It is personal data: it stays on this machine, "
            "ends on its day, and `photoverse forget --person NAME` removes it."
        )
        person = gr.Textbox(label="Name of the person", info="letters, digits, . _ @ -", elem_id="person")
        purpose = gr.Textbox(label="What they agreed to", elem_id="purpose")
        days = gr.Dropdown(label="How long", choices=LIFETIMES, value=365)
        button = gr.Button("Keep", elem_id="keep-button")
        said = gr.HTML(elem_id="keep-said")
    return person, purpose, days, button, said


def _draw(
    studio: Studio,
    photo: str | None,
    card: str | None,
    agreed: bool,
    prompt: str,
    count: int,
    over: bool,
    strength: float,
    sigma: float,
    gamma: float,
    alpha: float,
    m: int,
    guidance: float,
    steps: int,
    seed: float | None,
    negative: str,
    session: list[Shot],
    progress: Any = gr.Progress(),  # noqa: B008 - how Gradio wants it
) -> Iterator[tuple[Any, ...]]:
    """Yields the page's outputs after each picture; what is wrong comes as words."""
    dials: dict[str, Any] = {"sigma": sigma, "gamma": gamma, "alpha": alpha, "guidance_scale": guidance}
    dials |= {"num_inference_steps": int(steps)} | ({"strength": strength} if over else {})
    dials |= {"m": int(m) if int(m) < studio.most_words else None}
    ask = Ask(
        photo=Path(photo) if photo else None,
        card=card or None,
        agreed=agreed,
        prompt=prompt or "",
        negative_prompt=negative or "",
        seed=None if seed is None else int(seed),
        count=int(count),
        dials=dials,
    )
    new: list[Shot] = []
    past = list(session)
    folder = _folder(past)
    try:
        yield (_good(f"Drawing 1 of {ask.count} ..."), *_same(4))
        for shot in studio.draw(ask, folder):
            new.append(shot)
            progress(len(new) / ask.count, desc=f"{len(new)} of {ask.count}")
            said = _good(f"Drawing {len(new) + 1} of {ask.count} ..." if len(new) < ask.count else _done(new))
            past = _remember(past, shot, studio.config.history)
            yield (said, _pictures(new), _downloads(new, folder), _pictures(past[::-1]), past)
    except Exception as error:  # noqa: BLE001 - whatever it is, the person at the page is told in words
        if not past:
            shutil.rmtree(folder, ignore_errors=True)
        yield (_bad(explain(error)), *_same(4))


def _folder(past: list[Shot]) -> Path:
    """The session's folder: that of its pictures, or a new one."""
    known = [shot.file.parent for shot in past if shot.file is not None]
    return known[0] if known else Path(tempfile.mkdtemp(prefix="photoverse-page-"))


def _remember(past: list[Shot], shot: Shot, most: int) -> list[Shot]:
    if shot.file is None:
        return past
    for old in past[: max(0, len(past) + 1 - most)]:
        if old.file is not None:
            old.file.unlink(missing_ok=True)
    return [*past, shot][-most:]


def _done(shots: list[Shot]) -> str:
    blocked = sum(shot.file is None for shot in shots)
    if blocked:
        return f"{len(shots) - blocked} drawn; the safety checker of this model does not show {blocked}."
    return "Done. Choose a picture to see its recipe."


def _pictures(shots: list[Shot]) -> list[tuple[str, str]]:
    return [(str(shot.file), shot.caption) for shot in shots if shot.file is not None]


def _downloads(shots: list[Shot], folder: Path) -> Any:
    """The files of a click: the pictures, and their recipes as one JSON file."""
    found = [shot for shot in shots if shot.file is not None]
    recipes = folder / "recipes.json"
    recipes.write_text(json.dumps({shot.file.name: shot.recipe for shot in found if shot.file}, indent=2))
    return gr.update(value=[*(str(shot.file) for shot in found), str(recipes)], visible=True)


def _chosen(session: list[Shot], event: gr.SelectData) -> Any:
    """The recipe of the picture that was clicked: its file's name says which."""
    value = event.value if isinstance(event.value, dict) else {}
    name = Path(str(value.get("image", {}).get("path", ""))).name
    return next((shot.recipe for shot in session if shot.file and shot.file.name == name), None)


def _keep_person(
    studio: Studio, photo: str | None, person: str, purpose: str, agreed: bool, days: int
) -> tuple[Any, Any]:
    try:
        name = studio.keep(Path(photo) if photo else None, person or "", purpose or "", agreed, days or None)
    except Exception as error:  # noqa: BLE001 - as in `_draw`
        return _bad(explain(error)), gr.update()
    return _good(f"Kept, as card {name}."), gr.update(choices=_choices(studio), value=name, visible=True)


def _people(studio: Studio) -> Any:
    return gr.update(choices=_choices(studio), visible=bool(studio.people()))


def _choices(studio: Studio) -> list[tuple[str, str]]:
    return [("nobody: the photo above", ""), *studio.people()]


def _same(count: int) -> list[Any]:
    return [gr.update() for _ in range(count)]


def _good(text: str) -> str:
    return f'<span class="good">{_plain(text)}</span>'


def _bad(text: str) -> str:
    return f'<span class="bad" role="alert">{_plain(text)}</span>'


def _plain(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")


def _forget(session: list[Shot]) -> None:
    """Removes the files of a session that has ended."""
    for folder in {shot.file.parent for shot in session if shot.file is not None}:
        shutil.rmtree(folder, ignore_errors=True)


def launch_page(
    studio: Studio, host: str = "127.0.0.1", port: int | None = None, auth: tuple[str, str] | None = None,
    wait: bool = True,
) -> str:  # fmt: skip
    """Serves the page until it is interrupted, and returns its address.

    Args:
        studio: What it does.
        host: Address to listen at.
        port: None takes a free one from 7860 on.
        auth: Name and password; None lets everybody in who can reach the port.
        wait: Whether to block.

    Raises:
        ValueError: The port is taken.
    """
    page = build_page(studio).queue(max_size=studio.config.max_waiting)
    try:
        _, url, _ = page.launch(
            server_name=host, server_port=port, auth=auth, theme=THEME, css=CSS, quiet=True, share=False,
            footer_links=[], max_file_size=studio.config.max_photo_mb * 2**20, prevent_thread_lock=True,
            ssr_mode=False, pwa=False, enable_monitoring=False, mcp_server=False,
        )  # fmt: skip
    except OSError as error:
        raise ValueError(f"cannot listen at {host}:{port}: {error}") from None
    print(f"PhotoVerse is at {url}", flush=True)
    if wait:
        page.block_thread()
    return url
