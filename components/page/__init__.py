"""The page to play with: a person from one photo, a prompt, dials, pictures. What it does, and how it looks.

Names are loaded when first used, so that whoever needs only the settings never imports torch or Gradio.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from components.page.config import PageConfig
    from components.page.layout import build_page, launch_page
    from components.page.studio import Ask, Shot, Studio

_HOME = {
    "Ask": "studio",
    "PageConfig": "config",
    "Shot": "studio",
    "Studio": "studio",
    "build_page": "layout",
    "launch_page": "layout",
}

__all__ = ["Ask", "PageConfig", "Shot", "Studio", "build_page", "launch_page"]


def __getattr__(name: str) -> Any:
    """Loads the file that a public name lives in."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
