"""Stage one: audio to stores; and the stores themselves."""
