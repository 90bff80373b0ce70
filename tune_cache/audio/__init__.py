"""A file becomes mono float32 at the encoder's rate, or an error that says why not.

Conventions
-----------
Samples are (n_samples,) float32, full scale ±1, always finite, never normalised;
those of a long track may lie in a file and are then read by slices.
The decoded length decides, whatever headers and manifests say. Nothing is ever
replaced by zeros: a file decodes, or :class:`~tune_cache.errors.AudioError`
carries one of the reason codes of :data:`REASONS`.
"""

from __future__ import annotations

from tune_cache.audio.decoding import DECODER, decode, header_seconds
from tune_cache.audio.failures import REASONS
from tune_cache.audio.mono import RESAMPLER, AudioFacts, DecodedAudio
from tune_cache.audio.pool import DecodePool
from tune_cache.audio.samples import Spilling, SpooledSamples
from tune_cache.audio.sndfile import write_flac, write_wav

__all__ = [
    "DECODER",
    "REASONS",
    "RESAMPLER",
    "AudioFacts",
    "DecodePool",
    "DecodedAudio",
    "Spilling",
    "SpooledSamples",
    "decode",
    "header_seconds",
    "write_flac",
    "write_wav",
]
