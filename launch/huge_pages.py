"""The C library's allocator on huge pages, where steps run on the CPU.

XLA takes its temporary memory at the start of a step and frees it at the end. What is larger than 32 MB glibc maps and
unmaps each time, and the kernel zeroes it page by page: a quarter of the time of a small Transformer. The setting is
read when a process starts, so the command starts once more, as the same process.
"""

import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path

VARIABLE, SETTING = "GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"
ACCELERATORS = ("/dev/nvidia0", "/dev/accel0", "/dev/vfio/0", "/dev/kfd")
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def start_with_them() -> None:
    """Replaces this process by the same command with the setting, unless that does nothing or another is chosen."""
    if helps(os.environ):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | {VARIABLE: SETTING})


def helps(environment: Mapping[str, str]) -> bool:
    """Whether the setting is there to be used, is not chosen yet, and the work is the CPU's."""
    library, version = platform.libc_ver()
    knows_it = library == "glibc" and tuple(map(int, version.split("."))) >= (2, 35)
    chosen = VARIABLE in environment
    on_cpu = environment.get("JAX_PLATFORMS", "cpu") in ("", "cpu") and not any(map(os.path.exists, ACCELERATORS))
    return knows_it and not chosen and on_cpu and HUGE_PAGES.exists() and "[never]" not in HUGE_PAGES.read_text()
