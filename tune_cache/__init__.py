"""Encode a music collection once with a frozen encoder, then probe it as often as you like."""

from __future__ import annotations

__version__ = "0.1.0"
