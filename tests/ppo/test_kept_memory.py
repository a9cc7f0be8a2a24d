"""Freed memory: kept within, given back behind."""

import platform
import resource
from pathlib import Path

import pytest
import torch

from trl_rewards_plugin.ppo.kept_memory import kept_memory

CPU = torch.device("cpu")
glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left as they are")
MEBI = 2**20


def faults():
    """Pages that the system cleared while 96 MiB were taken and freed ten times."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(24 * MEBI)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def resident():
    """Bytes of memory that the process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@glibc
def test_pages_are_cleared_once_within_and_every_time_outside():
    faults()
    outside = faults()
    with kept_memory(CPU):
        faults()
        assert faults() < outside / 20
    faults()
    assert faults() > outside / 2


@glibc
def test_what_was_kept_goes_back_also_after_an_error():
    before = resident()
    within = []

    def fail():
        with kept_memory(CPU):
            faults()
            within.append(resident())
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert within[0] > before + 64 * MEBI
    assert resident() < before + 32 * MEBI


def test_on_another_device_nothing_changes():
    faults()
    outside = faults()
    with kept_memory(torch.device("meta")):
        faults()
        assert faults() > outside / 2
