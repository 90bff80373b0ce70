"""Collections of audio files with labels and splits."""
