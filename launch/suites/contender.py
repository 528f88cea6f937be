"""One contender of a work, in a process of its own: python -m launch.suites.contender NAME WORK CORES

WORK is a works.Work in JSON, CORES are numbers with commas. It says what is known beforehand and how long it took to be
ready, then does the work so often as each line of its input says, and says how long that took. A peer that is not
installed says so.
"""

import json
import os
import resource
import sys
import time

from launch.suites import ours, peers
from launch.suites.works import SHAPES, Work


def main(name: str, work_json: str, cores: str) -> None:
    os.sched_setaffinity(0, [int(core) for core in cores.split(",")])  # before any library counts the cores
    does, shape, *rest = json.loads(work_json)
    work, began = Work(does, SHAPES[does](*shape), *rest), time.perf_counter()
    try:
        do, numbers = prepare(name, work)
    except ImportError as error:
        return say(missing=str(error))
    do()
    say(ready_s=time.perf_counter() - began, **numbers)
    for line in sys.stdin:
        do()  # a virtual machine takes idle memory away, and giving it back is not the work
        wall, cpu, count = time.perf_counter(), time.process_time(), int(line)
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(count):
            do()
        say(
            wall_ms=1e3 * (time.perf_counter() - wall) / count,
            cpu_ms=1e3 * (time.process_time() - cpu) / count,
            faults=(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults) / count,
        )


def prepare(name: str, work: Work) -> ours.Prepared:
    """Raises ImportError where the contender is not installed."""
    if name == "gentrain":
        return ours.prepare(work)
    return ours.prepare_matmul() if name == "matmul" else peers.prepare(name, work)


def say(**numbers: object) -> None:
    print(json.dumps(numbers), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
