"""One file a verb: the function that a notebook calls and the shell wraps."""
