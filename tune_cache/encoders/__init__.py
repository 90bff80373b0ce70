"""Frozen models that turn samples into per-layer vectors."""
