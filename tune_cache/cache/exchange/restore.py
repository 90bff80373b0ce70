"""From what an exchange file holds to a published store, checked on the way.

Conventions
-----------
A store that comes back is byte for byte the one that went out: spec, facts and
ledger are taken over, everything else is computed again, and nothing is
published whose content digest differs.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tune_cache.cache.ahead import store_n_bytes
from tune_cache.cache.assemble import Assembly, assemble
from tune_cache.cache.disk import make_folders, remove_tree
from tune_cache.cache.exchange.header import COMPUTED, Content
from tune_cache.cache.journal import TrackOutcome
from tune_cache.cache.layout import Layout
from tune_cache.cache.locks import Claims
from tune_cache.cache.preflight import check_free
from tune_cache.cache.rows import Rows
from tune_cache.cache.store import STATUS_FAILED, STATUS_OK, Store, open_store
from tune_cache.cache.texts import check_offsets, decode_texts
from tune_cache.errors import StoreCorruptError, StoreMismatchError, printable
from tune_cache.segments import covered_samples
from tune_cache.specs import collection_digest, differing_fields, is_imported

__all__ = ["assembly_of", "publish"]

NO_ROOM = "make room, or name another place with --cache-dir"


def assembly_of(content: Content, place: str) -> Assembly:
    """Check what a file says of its tracks, and prepare to store it.

    Parameters
    ----------
    place
        The file, for messages.

    Raises
    ------
    StoreCorruptError
        If tracks, offsets, grid or digests contradict each other.
    """
    header, spec = content.header, content.header.spec
    try:
        outcomes = _outcomes(content)
        collection = collection_digest((o.track_id, o.audio_sha256) for o in outcomes)
        if collection != header.attributes["collection_digest"]:
            raise ValueError("its tracks are not those of its collection digest")
    except (ValueError, IndexError, OverflowError) as error:
        raise StoreCorruptError(
            f"tracks of {place!r} contradict each other: {printable(error)}",
            hint="export the store again",
            path=place,
        ) from error

    def rows(pooling: str) -> Iterator[Rows]:
        row = 0
        for block in content.blocks(pooling):
            if not np.isfinite(block).all():
                raise StoreCorruptError(f"{place!r} holds {pooling} rows that are not finite")
            here = slice(row, row + len(block))
            row = here.stop
            arrays = content.arrays
            yield Rows(
                block, arrays["segments/start_sample"][here], arrays["segments/n_samples"][here]
            )

    facts = {name: v for name, v in header.attributes.items() if name not in COMPUTED}
    return Assembly(
        spec=spec,
        dim=header.dim,
        collection=collection,
        outcomes=outcomes,
        facts=facts,
        ledger=header.value["ledger"],
        rows=rows,
        expected_digest=header.attributes["content_digest"],
    )


def _outcomes(content: Content) -> list[TrackOutcome]:
    """Read the tracks; ValueError says what is wrong with them."""
    header, arrays = content.header, content.arrays
    ids = decode_texts(arrays["tracks/id_utf8"], arrays["tracks/id_offset"])
    messages = decode_texts(arrays["tracks/message_utf8"], arrays["tracks/message_offset"])
    offset = arrays["tracks/offset"]
    check_offsets("tracks/offset", offset, header.n_segments)
    lengths = np.diff(offset)
    if not np.array_equal(arrays["segments/track"], np.repeat(np.arange(len(ids)), lengths)):
        raise ValueError("segments/track is not what tracks/offset says")
    if any(left >= right for left, right in itertools.pairwise(ids)):
        raise ValueError("track ids are not sorted, or not unique")
    for name in ("segments/start_sample", "tracks/n_samples", "tracks/sample_rate"):
        if len(arrays[name]) and arrays[name].min() < 0:
            raise ValueError(f"{name} is negative")
    starts, counts = arrays["segments/start_sample"], arrays["segments/n_samples"]
    if len(counts) and (counts.min() < 1 or starts.max() > 1 << 53):
        raise ValueError("segments are empty or begin nowhere")
    may_lack_audio = is_imported(header.spec.encoder.name)
    outcomes = []
    for index, (track_id, message) in enumerate(zip(ids, messages, strict=True)):
        sha256 = arrays["tracks/audio_sha256"][index]
        code = int(arrays["tracks/status"][index])
        reason, colon, sentence = message.partition(": ")
        if code == STATUS_OK:
            reason, sentence = "ok", message
            if not sha256.any() and not may_lack_audio:
                raise ValueError(f"track {track_id!r} has rows of unknown audio")
        elif code != STATUS_FAILED or not colon or reason in ("", "ok") or lengths[index]:
            raise ValueError(f"track {track_id!r} failed without a reason, or has rows")
        here = slice(int(offset[index]), int(offset[index + 1]))
        outcomes.append(
            TrackOutcome(
                track_id=track_id,
                audio_sha256=sha256.tobytes().hex() if sha256.any() else "",
                status=reason,
                message=sentence,
                n_samples=int(arrays["tracks/n_samples"][index]),
                sample_rate_hz=int(arrays["tracks/sample_rate"][index]),
                n_rows=int(lengths[index]),
                covered_samples=covered_samples(starts[here], counts[here]),
            )
        )
    return outcomes


def publish(layout: Layout, assembly: Assembly) -> tuple[Store, bool]:
    """Make sure that a store is in the cache; says whether it was there already.

    Raises
    ------
    StoreMismatchError
        If another one is there under its name.
    StoreError
        If the disk has no room for it; no store is begun then.
    """
    layout.prepare()
    final = layout.store_path(assembly.spec, assembly.collection)
    if final.exists():
        return _agreeing(final, assembly), True
    make_folders(final.parent)
    needed = store_n_bytes(
        assembly.spec,
        dim=assembly.dim,
        n_segments=sum(outcome.n_rows for outcome in assembly.outcomes),
        track_ids=[outcome.track_id for outcome in assembly.outcomes],
    )
    check_free(final.parent, needed, hint=NO_ROOM)
    with Claims(layout.lock_path(final)) as claims, claims.assembling():
        hit = final.exists()
        try:
            hit = hit or not assemble(final, assembly)
        except FileNotFoundError:
            if not final.exists():  # else a rival published, and removed our folder with its own
                raise
            hit = True
        for orphan in final.parent.glob(f".{final.name}.*.building"):
            remove_tree(orphan)
    return _agreeing(final, assembly), hit


def _agreeing(final: Path, assembly: Assembly) -> Store:
    """Open the store that is there, and see that it is this one."""
    store = open_store(final)
    fields = differing_fields(assembly.spec.to_json(), store.spec.to_json())
    if store.collection_digest != assembly.collection:
        fields.append(("collection_digest", assembly.collection, store.collection_digest))
    if assembly.expected_digest not in ("", store.content_digest):
        fields.append(("content_digest", assembly.expected_digest, store.content_digest))
    if fields:
        told = "; ".join(f"{name}: expected {a!r}, found {b!r}" for name, a, b in fields[:4])
        raise StoreMismatchError(
            f"the cache has another store at {str(final)!r}; {told}",
            hint="move that one away, or import into another --cache-dir",
        )
    return store
