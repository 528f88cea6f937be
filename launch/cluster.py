"""Which process of its run this one is, by what its engine left in the environment.

The command is the same on every host; where the processes meet, how many there are and which of them this is comes in
variables. JAX itself can ask Open MPI, Slurm and GKE's TPUs; the other engines are read here. On TPU machines without
GKE, and in plain Kubernetes jobs, the variables do not say: GENTRAIN_COORDINATOR=auto makes JAX ask there.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from gentrain.errors import ConfigError

PORT = 8476  # where process 0 listens on a host of its own


class Place(NamedTuple):
    """One process of a run."""

    engine: str  # what said so: a key of ENGINES
    coordinator: str  # host:port, or 'auto' where JAX itself asks the engine
    processes: int  # 0 where only JAX will know
    process: int


# What an engine's variables say: coordinator, processes, process; None: it is not this engine.
Answer = tuple[str, str | int, str | int] | None


def place(environment: Mapping[str, str]) -> Place | None:
    """The place that the first engine that speaks gives this process; None if that is alone, or no engine speaks.

    Raises ConfigError naming the variable that is missing or no number.
    """
    values = {name: value for name, value in environment.items() if value}
    for engine, read in ENGINES.items():
        try:
            answer = read(values)
            process = answer and Place(engine, answer[0], int(answer[1]), int(answer[2]))
        except KeyError as error:
            raise ConfigError(f"{engine} speaks, but {error.args[0]} is not set; {FIX}") from None
        except ValueError as error:
            raise ConfigError(f"{engine} speaks, but not in numbers ({error}); {FIX}") from None
        if process:
            return process if process.processes != 1 else None
    return None


FIX = "set it, or say it all by GENTRAIN_COORDINATOR=host:port, GENTRAIN_NUM_PROCESSES and GENTRAIN_PROCESS_ID"


def explicit(values: Mapping[str, str]) -> Answer:
    """Before all others, so that it can overrule them: GENTRAIN_NUM_PROCESSES=1 with the other two is alone."""
    names = ("GENTRAIN_COORDINATOR", "GENTRAIN_NUM_PROCESSES", "GENTRAIN_PROCESS_ID")
    if values.get("GENTRAIN_COORDINATOR") == "auto":
        return "auto", 0, 0
    if not values.keys() & set(names):
        return None
    coordinator, processes, process = (values[name] for name in names)
    return coordinator, processes, process


def jobset(values: Mapping[str, str]) -> Answer:
    """The manifest (XPK's, for GPUs) hands down two names and the number of pods; Kubernetes numbers the pods."""
    if not values.keys() & {"JOBSET_NAME", "REPLICATED_JOB_NAME"}:
        return None
    name, job = values["JOBSET_NAME"], values["REPLICATED_JOB_NAME"]
    return f"{name}-{job}-0-0.{name}:{PORT}", values["NNODES"], values["JOB_COMPLETION_INDEX"]


def skypilot(values: Mapping[str, str]) -> Answer:
    """One address a line, the head node's first."""
    if not values.keys() & {"SKYPILOT_NODE_IPS", "SKYPILOT_NUM_NODES", "SKYPILOT_NODE_RANK"}:
        return None
    addresses = values["SKYPILOT_NODE_IPS"].split()
    return f"{addresses[0]}:{PORT}", values["SKYPILOT_NUM_NODES"], values["SKYPILOT_NODE_RANK"]


def kubeflow(values: Mapping[str, str]) -> Answer:
    """Of these JAX reads the address only, which others set without a port: alone it says nothing."""
    if not values.keys() & {"JAX_NUM_PROCESSES", "JAX_PROCESS_ID"}:
        return None
    return values["JAX_COORDINATOR_ADDRESS"], values["JAX_NUM_PROCESSES"], values["JAX_PROCESS_ID"]


def mpi(values: Mapping[str, str]) -> Answer:
    """Before Slurm, as in JAX: mpirun starts its daemons by srun. Open MPI 5 does not tell JAX the last of these."""
    if int(values.get("OMPI_COMM_WORLD_SIZE", 1)) == 1:
        return None
    names = ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_MCA_orte_hnp_uri")
    processes, process, _ = (values[name] for name in names)
    return "auto", processes, process


def slurm(values: Mapping[str, str]) -> Answer:
    """In a step: a batch script, too, has SLURM_NTASKS, but is no task."""
    if "SLURM_STEP_NODELIST" not in values:
        return None
    return "auto", values["SLURM_NTASKS"], values["SLURM_PROCID"]


def tpu(values: Mapping[str, str]) -> Answer:
    """Slices of TPU hosts in GKE; a lone host has its own name, or localhost, for a list."""
    hosts = len(values.get("TPU_WORKER_HOSTNAMES", "").split(","))
    slices = int(values.get("MEGASCALE_NUM_SLICES", 1))
    if hosts * slices == 1:
        return None
    slice_id = int(values["MEGASCALE_SLICE_ID"]) if slices > 1 else 0
    return "auto", hosts * slices, hosts * slice_id + int(values["TPU_WORKER_ID"])


ENGINES: dict[str, Callable[[Mapping[str, str]], Answer]] = {
    "GENTRAIN_*": explicit,
    "jobset": jobset,
    "skypilot": skypilot,
    "kubeflow": kubeflow,
    "mpi": mpi,
    "slurm": slurm,
    "tpu": tpu,
}
