"""Stage two: tasks, light supervised models, their scores."""
