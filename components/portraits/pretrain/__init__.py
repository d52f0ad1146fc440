"""Trains the small base model of the portrait world from nothing.

Run it as `python -m components.portraits.pretrain --out DIR`.
"""

from components.portraits.pretrain.config import PretrainConfig

__all__ = ["PretrainConfig"]
