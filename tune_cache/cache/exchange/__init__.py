"""Stores as single files for others, and vectors of others as stores."""
