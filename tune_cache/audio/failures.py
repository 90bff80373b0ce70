"""Why a file was refused: a closed set of reason codes, each with its remedy.

Conventions
-----------
Messages are predicates ("is empty"); :func:`about` puts the subject before them
where the path is known.
"""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType

from tune_cache.errors import AudioError

__all__ = ["REASONS", "about", "failure"]

_LISTEN = "play the file to its end; encode it again or fetch another copy"

# reason code → hint; "too-short" is raised where a track is cut
REASONS = MappingProxyType(
    {
        "missing": "check audio_path in the manifest and --data-root",
        "not-a-file": "only regular files are opened; check audio_path in the manifest",
        "permission": "make the file readable, as: chmod a+r FILE",
        "empty": "fetch the file again",
        "not-audio": "wav, aiff, au, caf, w64, flac, ogg, opus, mp3, m4a, aac, webm, wma are read",
        "truncated": _LISTEN,
        "unreadable": _LISTEN,
        "non-finite": "mend it, as: ffmpeg -i FILE -c:a pcm_s16le NEW.wav",
        "too-short": "remove the track from the manifest, or check whether its file is complete",
        "too-long": "cut it into parts, as: ffmpeg -i FILE -f segment -segment_time 3600 %02d.flac",
        "too-many-channels": "mix it down, as: ffmpeg -i FILE -ac 2 NEW.wav",
        "bad-rate": "resample it, as: ffmpeg -i FILE -ar 48000 NEW.wav",
        "timeout": "the decoder hangs on it or the machine was too busy: play it, encode it again",
        "memory": "cut it into parts, or encode it again; few healthy files need so much",
        "crashed": "encode the file again; the damage in it brings the decoder down",
    }
)


def failure(reason: str, predicate: str) -> AudioError:
    """Make the error of a reason code; its subject is still to come."""
    return AudioError(predicate, hint=REASONS[reason], reason=reason)


def about(path: Path, track_id: str, error: AudioError) -> AudioError:
    """Name the file and the track in an error made by :func:`failure`."""
    return AudioError(
        f"audio file {str(path)!r} {error.message}",
        hint=error.hint,
        track_id=track_id,
        reason=error.reason,
    )
