"""Weights take as long as their volume's published limits let them, and their bytes are counted where they pass."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab_pipelines.rehearsal.weights import MIB, StorageError, Volume, Weights, volume_of

PHI_3_BYTES = 7.64e9
DISK, SHARE = "managed-csi-premium", "azurefile-csi-premium"
RECEIVED, READ, READS = (
    "container_network_receive_bytes_total",
    "container_fs_reads_bytes_total",
    "container_fs_reads_total",
)


def values(**model: Any) -> dict[str, Any]:
    return {"servingEngineSpec": {"modelSpec": [model]}}


def claim(size: str, storage_class: str) -> Volume:
    volume = volume_of(values(pvcStorage=size, storageClass=storage_class))
    assert volume is not None
    return volume


def weights(volume: Volume, replicas: int = 1) -> Weights:
    return Weights("vllm", "lab-09", volume, PHI_3_BYTES, bootstrap_s=98.0, replicas=replicas)


def counted(one: Weights, metric: str, at_s: float) -> list[float]:
    return [value for series, value in one.series(at_s) if series.startswith(f"{metric}{{")]


def test_a_disk_is_of_the_smallest_size_that_holds_the_claim_and_bursts_for_half_an_hour() -> None:
    p4, p10 = claim("32Gi", DISK), claim("100Gi", DISK)
    # 120 reads of 128 KiB a second are fewer bytes than the 25 MB/s that the disk would give.
    assert p4.bytes_per_s == 120 * 131072 and p10.bytes_per_s == 500 * 131072
    assert p4.seconds(7.64e9) == pytest.approx(7.64e9 / 170e6)
    burst = 170e6 * 1800
    assert p4.seconds(burst + p4.bytes_per_s * 100) == pytest.approx(1800 + 100)


def test_a_share_is_as_fast_as_it_is_large_and_all_who_mount_it_divide_that() -> None:
    share = claim("100Gi", SHARE)
    assert share.bytes_per_s == (100 + 4 + 6) * MIB
    alone, two = weights(share), weights(share, replicas=2)
    for one in (alone, two):
        one.load(0.0, random.Random(1))
    once_s, twice_s = (one.load(1000.0, random.Random(2)) for one in (alone, two))
    assert twice_s == pytest.approx(2 * once_s) and once_s >= PHI_3_BYTES / share.bytes_per_s


def test_values_that_name_no_volume_have_none_and_an_unknown_class_is_refused_by_name() -> None:
    assert volume_of(values()) is None
    assert volume_of(values(extraVolumes=[{"name": "token", "secret": {}}])) is None
    assert volume_of(values(extraVolumes=[{"name": "weights", "emptyDir": {}}])) == Volume("empty_dir")
    with pytest.raises(
        StorageError, match=r"32Gi of the storage class fast has no model; known: managed-csi-premium, "
    ):
        claim("32Gi", "fast")
    with pytest.raises(StorageError, match="4Ti of the storage class managed-csi-premium"):
        claim("4Ti", DISK)


def test_an_empty_dir_goes_with_its_pod_but_not_with_its_container() -> None:
    one = weights(Volume("empty_dir"))
    first_s = one.load(0.0, random.Random(1))
    assert counted(one, RECEIVED, first_s / 2) == [pytest.approx(PHI_3_BYTES / 2)]
    assert one.load(500.0, random.Random(2), same_pod=True) == 0.0
    assert counted(one, RECEIVED, 600.0) == [PHI_3_BYTES]
    one.gone()
    assert list(one.series(700.0)) == []
    again_s = one.load(1000.0, random.Random(3))
    assert again_s > 0 and counted(one, RECEIVED, 1000.0 + again_s) == [PHI_3_BYTES]


def test_a_disk_is_written_once_and_read_by_the_next_pod() -> None:
    one = weights(claim("32Gi", DISK))
    first_s = one.load(0.0, random.Random(1))
    assert (counted(one, RECEIVED, first_s), counted(one, READ, first_s)) == ([PHI_3_BYTES], [0.0])
    again_s = one.load(1000.0, random.Random(2))
    end_s = 1000.0 + again_s
    assert (counted(one, RECEIVED, end_s), counted(one, READ, end_s)) == ([0.0], [PHI_3_BYTES])
    assert counted(one, READS, end_s) == [PHI_3_BYTES // 131072]


def test_of_two_that_share_a_volume_one_downloads_and_none_reads_a_block_device() -> None:
    one = weights(claim("100Gi", SHARE), replicas=2)
    first_s = one.load(0.0, random.Random(1))
    assert sorted(counted(one, RECEIVED, first_s)) == [0.0, PHI_3_BYTES]
    again_s = one.load(1000.0, random.Random(2))
    assert counted(one, RECEIVED, 1000.0 + again_s) == counted(one, READ, 1000.0 + again_s) == [0.0, 0.0]


@given(
    st.sampled_from([Volume("empty_dir"), claim("32Gi", DISK), claim("100Gi", SHARE)]),
    st.integers(1, 3),
    st.lists(st.booleans(), max_size=5),
    st.integers(0, 1000),
)
def test_counters_never_fall_within_a_pod_s_life_and_no_byte_is_faster_than_its_volume(
    volume: Volume, replicas: int, restarts: list[bool], seed: int
) -> None:
    one, numbers, from_s = weights(volume, replicas), random.Random(seed), 0.0
    seen: dict[str, float] = {}
    for same_pod in (False, *restarts):
        took_s = one.load(from_s, numbers, same_pod=same_pod)
        assert took_s >= 0.0
        for share in (0.0, 0.3, 0.7, 1.0):
            for series, value in one.series(from_s + share * took_s):
                assert value >= seen.get(series, 0.0)
                seen[series] = value
        from_s += took_s + 100.0
    block = sum(value for series, value in seen.items() if series.startswith(READ))
    assert block == 0.0 if volume.kind != "disk" else block % PHI_3_BYTES == pytest.approx(0.0, abs=1.0)
