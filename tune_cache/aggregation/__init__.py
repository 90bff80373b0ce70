"""Segments to track: scikit-learn transformers over ragged tracks."""
