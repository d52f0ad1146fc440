"""The portrait world: people we draw, and the small base model trained on them."""

from components.portraits.config import BaseArchitecture, PortraitsConfig
from components.portraits.dataset import draw_people

__all__ = ["BaseArchitecture", "PortraitsConfig", "draw_people"]
