"""What their makers say of accelerators, by how JAX's names for them begin."""

from typing import Any

# Peak matmul rate of one device in bfloat16, FLOP/s.
PEAK_FLOPS = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
    "NVIDIA A100": 312e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
}
# Bytes of memory of one chip: the maker's GB taken for 10^9, the smaller reading.
HBM = {"TPU v4": 32e9, "TPU v5 lite": 16e9, "TPU v5": 95e9, "TPU v6 lite": 32e9}


def look_up(table: dict[str, float], kind: str) -> Any:
    """What a table says of a kind of device, by the first name that it begins with; None where it says nothing."""
    for name, value in table.items():
        if kind.startswith(name):
            return value
    return None
