"""``tune extract``: run the frozen encoder once and keep its vectors."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tune_cache.audio import DECODER, RESAMPLER
from tune_cache.cache.extract import (
    Circumstances,
    ExtractOutcome,
    Progress,
    extract_stores,
)
from tune_cache.cache.plan import units_of_part
from tune_cache.commands.context import (
    Context,
    Length,
    lengths,
    open_context,
    parse_bytes,
    plan_tracks,
    several,
)
from tune_cache.commands.protocol import chosen_protocol, slices_of
from tune_cache.datasets.base import Dataset
from tune_cache.datasets.protocols import Profile, profiles_of
from tune_cache.encoders.base import Encoder, EncoderInfo, get_encoder, parse_layers
from tune_cache.encoders.sized import SizedEncoder
from tune_cache.errors import UsageError
from tune_cache.segments import segment_spec
from tune_cache.specs import CHANNELS, POOLINGS, PRECISIONS, ChannelRule, StoreSpec, TailPolicy

__all__ = [
    "DEFAULT_SECONDS",
    "ExtractReport",
    "extract",
    "known_precision",
    "parse_batch_size",
    "store_specs",
]

DEFAULT_SECONDS = 30.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractReport:
    """What ``tune extract`` did.

    Parameters
    ----------
    dataset
        That was encoded.
    encoder
        That encoded it.
    outcomes
        One a segment length.
    """

    dataset: Dataset
    encoder: EncoderInfo
    outcomes: tuple[ExtractOutcome, ...]
    warnings: tuple[str, ...] = field(default_factory=tuple)

    @property
    def failed(self) -> dict[str, str]:
        """Track id to what went wrong, over all lengths."""
        return {name: text for outcome in self.outcomes for name, text in outcome.failed.items()}


def extract(
    dataset: str | Path | None = None,
    *,
    seg: Length | Sequence[Length] = (),
    encoder: str | None = None,
    encoder_path: Path | None = None,
    hop: float | None = None,
    tail: TailPolicy | None = None,
    min_tail: float | None = None,
    layers: str | None = None,
    pool: str | None = None,
    precision: str | None = None,
    dtype: str | None = None,
    channels: ChannelRule | None = None,
    device: str | None = None,
    batch_size: int | str | None = None,
    max_memory: str | int | None = None,
    workers: int | None = None,
    part: str | None = None,
    protocol: str | None = None,
    data_root: Path | None = None,
    cache_dir: Path | str | None = None,
    rehash: bool = False,
    allow_outside_root: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
    on_start: Callable[[Dataset, EncoderInfo], None] | None = None,
) -> ExtractReport:
    """Encode a dataset once for each segment length, or find that it was.

    Parameters
    ----------
    dataset
        A name, a prefix ``dir/NAME``, a folder or a manifest; the demo if nothing is configured.
    seg
        Segment lengths in seconds, or ``full``; 30 if empty.
    hop, tail, min_tail
        See :mod:`tune_cache.segments`.
    layers
        ``all``, one, or several as ``0,6,12``.
    pool
        Frame poolings kept, as ``mean,max``.
    batch_size
        At most so many segments together; ``auto`` takes about 40 s of audio, on a
        GPU 160 s, and less where that does not fit into the memory that is free.
    max_memory
        Budget of the encoder above its weights, on its device, as ``4GB``. Python, torch and
        decoded audio (two units of ten minutes, 115 MB) are not in it.
    part
        ``I/N``: only this share of the work, for job arrays.
    protocol
        ``marble-v2`` cuts, pads and mixes as MARBLE's profiles of the dataset's tasks say
        (:mod:`tune_cache.datasets.protocols`), so ``seg``, ``hop``, ``tail``, ``min_tail`` and
        ``channels`` are not to be given; ``tune`` if None.
    rehash
        Read every audio file again, whatever its times say.
    on_progress, on_start
        Called with each step, and once before the work.

    Raises
    ------
    TuneCacheError
        Any of its kinds; a single bad track is no error but stands in ``failed``.
    """
    context = open_context(cache_dir)
    choose = context.setting
    loaded = context.dataset(dataset, data_root=data_root, allow_outside_root=allow_outside_root)
    follows = chosen_protocol(
        context,
        protocol,
        seg=several(seg),
        hop=hop,
        tail=tail,
        min_tail=min_tail,
        channels=channels,
    )
    profiles = profiles_of(loaded) if follows else ()
    name = choose("encoder", encoder, loaded.encoder)
    path = choose("encoder_path", encoder_path)
    precision = known_precision(choose("precision", precision, "fp32"))
    budget = parse_bytes(choose("max_memory", max_memory))
    circumstances = Circumstances(
        batch_size=parse_batch_size(choose("batch_size", batch_size, 0)),
        workers=choose("workers", workers, 0),
        part=choose("part", part),
        dataset=loaded.name,
    )
    units_of_part(0, circumstances.part)  # a mistake is one even if nothing is left to do
    factory = get_encoder(name)
    with context.inventory(rehash=rehash) as inventory:
        info = factory.describe(
            path=path, precision=precision, hash_file=lambda file: inventory.file(file).sha256
        )
        if on_start is not None:
            on_start(loaded, info)
        specs = store_specs(
            context,
            info,
            seg=lengths(choose("seg", several(seg), (DEFAULT_SECONDS,))),
            hop=hop,
            tail=tail,
            min_tail=min_tail,
            layers=layers,
            pool=pool,
            dtype=dtype,
            channels=channels,
            profiles=profiles,
        )
        planned = plan_tracks(loaded.tracks, inventory)
    kept = specs[0]

    def load() -> Encoder:
        encoder = factory.load(
            path=path,
            precision=precision,
            device=choose("device", device, "auto"),
            layers=kept.layers,
            poolings=kept.poolings,
            max_memory_bytes=budget,
        )
        if budget is not None and not isinstance(encoder, SizedEncoder):
            logger.warning("encoder %s does not know its memory: no --max-memory", info.name)
        return encoder

    outcomes = extract_stores(
        planned,
        specs,
        layout=context.layout,
        info=info,
        load=load,
        circumstances=circumstances,
        on_progress=on_progress,
    )
    return ExtractReport(dataset=loaded, encoder=info, outcomes=tuple(outcomes))


def known_precision(name: str) -> str:
    """Check a value of ``--precision``; whether a device has it is seen when it is loaded."""
    if name not in PRECISIONS:
        raise UsageError(f"--precision is {name!r}, expected one of {', '.join(PRECISIONS)}")
    return name


def parse_batch_size(value: int | str) -> int:
    """Read a value of ``--batch-size``; 0 is ``auto``."""
    if value in ("auto", 0):
        return 0
    try:
        size = int(value)
    except ValueError:
        size = -1
    if size < 1:
        raise UsageError(f"--batch-size is {value!r}, expected a positive number or 'auto'")
    return size


def store_specs(
    context: Context,
    info: EncoderInfo,
    *,
    seg: Sequence[Length],
    hop: float | None = None,
    tail: TailPolicy | None = None,
    min_tail: float | None = None,
    layers: str | None = None,
    pool: str | None = None,
    dtype: str | None = None,
    channels: ChannelRule | None = None,
    profiles: Sequence[Profile] = (),
) -> list[StoreSpec]:
    """One spec a segment length, or a profile; what is None is as configured, else the default."""
    choose = context.setting
    pools = [word.strip() for word in choose("pool", pool, "mean").split(",")]
    unknown = [word for word in pools if word not in POOLINGS]
    if unknown:
        raise UsageError(f"--pool has {unknown[0]!r}, expected some of {', '.join(POOLINGS)}")
    if hop is not None and all(length == "full" for length in seg):
        raise UsageError("--hop is given, but whole tracks have none", hint="leave out --hop")
    rule = choose("channels", channels, "mix")
    if rule not in CHANNELS:
        raise UsageError(f"--channels is {rule!r}, expected mix or first")
    cuts = [
        (
            slices_of(profile, sample_rate_hz=info.sample_rate, min_samples=info.min_samples),
            profile.channels,
        )
        for profile in profiles
    ] or [
        (
            segment_spec(
                length,
                sample_rate_hz=info.sample_rate,
                min_samples=info.min_samples,
                hop_seconds=None if length == "full" else choose("hop", hop),
                tail=choose("tail", tail, "keep"),
                min_tail_seconds=choose("min_tail", min_tail),
            ),
            rule,
        )
        for length in seg
    ]
    return [
        StoreSpec(
            encoder=info.spec,
            segments=segments,
            layers=parse_layers(choose("layers", layers, "all"), info.n_layers),
            poolings=tuple(word for word in POOLINGS if word in pools),
            dtype=choose("dtype", dtype, "f2"),
            channels=mixed,
            resampler=RESAMPLER,
            decoder=DECODER,
        )
        for segments, mixed in cuts
    ]
