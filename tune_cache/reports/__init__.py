"""What was found: the results database and its tables."""
