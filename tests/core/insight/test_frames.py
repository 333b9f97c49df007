"""Records of event files are found alike, however their groups repeat."""

from __future__ import annotations

import random
import struct

import pytest

from bestiary.core.insight.runs.frames import find_records, frame


def by_definition(data: bytes) -> list[tuple[int, int]]:
    """First byte and length of each record, one after the other."""
    place, found = 0, []
    while place + 12 <= len(data):
        (length,) = struct.unpack_from("<Q", data, place)
        if place + 16 + length > len(data):
            break
        found.append((place + 12, length))
        place += 16 + length
    return found


@pytest.mark.parametrize("seed", range(40))
def test_groups_that_repeat_change_and_are_cut_off(seed: int) -> None:
    rng = random.Random(seed)
    group = [rng.randrange(40) for _ in range(rng.randrange(1, 6))]
    records = []
    for _ in range(rng.randrange(1, 300)):
        if rng.random() < 0.02:
            group = [rng.randrange(40) for _ in range(rng.randrange(1, 6))]
        records += [frame(rng.randbytes(length)) for length in group]
        if rng.random() < 0.01:
            records.append(frame(b"x" * rng.randrange(200)))
    data = b"".join(records)
    if seed % 3 == 0:
        data = data[: rng.randrange(len(data) + 1)]
    found = find_records(data)
    assert list(zip(found.firsts.tolist(), found.lengths.tolist(), strict=True)) == by_definition(
        data
    )
    assert not found.problems and found.end == sum(n + 16 for _, n in by_definition(data))


def test_a_damaged_record_among_equal_ones_is_passed_over() -> None:
    data = bytearray(b"".join(frame(b"value %03d" % k) for k in range(500)))
    data[321 * 25 + 14] ^= 1  # in the data of record 321
    data[400 * 25 + 2] ^= 1  # in the length of record 400
    found = find_records(bytes(data))
    assert len(found.firsts) == 498 and len(found.problems) == 2
    assert found.end == len(data)
