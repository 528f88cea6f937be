"""Each engine's environment, as its own sources and documents have it, and the place it gives a process."""

import subprocess
import sys

import pytest

from gentrain.errors import ConfigError
from launch.cluster import ENGINES, Place, place
from tests.helpers import ROOT

EXPLICIT = {"GENTRAIN_COORDINATOR": "first:1234", "GENTRAIN_NUM_PROCESSES": "4", "GENTRAIN_PROCESS_ID": "3"}
JOBSET = {"JOBSET_NAME": "run", "REPLICATED_JOB_NAME": "hosts", "NNODES": "64", "JOB_COMPLETION_INDEX": "63"}
SKYPILOT = {"SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2", "SKYPILOT_NUM_NODES": "2", "SKYPILOT_NODE_RANK": "1"}
KUBEFLOW = {"JAX_COORDINATOR_ADDRESS": "run-node-0-0.run:29500", "JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "2"}
MPI = {
    "OMPI_COMM_WORLD_SIZE": "8",
    "OMPI_COMM_WORLD_RANK": "5",
    "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1:34911",
}
SLURM = {"SLURM_STEP_NODELIST": "node[1-4]", "SLURM_NTASKS": "4", "SLURM_PROCID": "1"}
TPU = {"TPU_WORKER_HOSTNAMES": "host-0,host-1,host-2,host-3", "TPU_WORKER_ID": "2"}
SLICES = {"MEGASCALE_NUM_SLICES": "2", "MEGASCALE_SLICE_ID": "1"}

PLACES = [
    (EXPLICIT, Place("GENTRAIN_*", "first:1234", 4, 3)),
    ({"GENTRAIN_COORDINATOR": "auto"}, Place("GENTRAIN_*", "auto", 0, 0)),
    (JOBSET, Place("jobset", "run-hosts-0-0.run:8476", 64, 63)),
    # What XPK sets for GPUs: an address without a port, which is not Kubeflow's.
    (JOBSET | {"JAX_COORDINATOR_ADDRESS": "run-hosts-0-0.run"}, Place("jobset", "run-hosts-0-0.run:8476", 64, 63)),
    (SKYPILOT, Place("skypilot", "10.0.0.1:8476", 2, 1)),
    (KUBEFLOW, Place("kubeflow", "run-node-0-0.run:29500", 4, 2)),
    (MPI, Place("mpi", "auto", 8, 5)),
    (SLURM, Place("slurm", "auto", 4, 1)),
    (TPU, Place("tpu", "auto", 4, 2)),
    (TPU | SLICES, Place("tpu", "auto", 8, 6)),
    (SLICES | {"TPU_WORKER_ID": "0"}, Place("tpu", "auto", 2, 1)),  # slices of one host
]


@pytest.mark.parametrize(("environment", "expected"), PLACES)
def test_each_engine_says_its_place(environment, expected):
    assert place({"HOME": "/root", **environment}) == expected
    assert expected.engine in ENGINES


def test_the_earlier_engine_decides():
    """GENTRAIN_* before all, engines that are read here before those JAX asks, and those in JAX's own order."""
    order = [EXPLICIT, JOBSET, SKYPILOT, KUBEFLOW, MPI, SLURM, TPU]
    places = []
    while order:
        places.append(place({name: value for environment in reversed(order) for name, value in environment.items()}))
        order.pop(0)
    assert [where.engine for where in places] == list(ENGINES)


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"GENTRAIN_COORDINATOR": "", "SLURM_STEP_NODELIST": ""},  # set to nothing is not set
        EXPLICIT | {"GENTRAIN_NUM_PROCESSES": "1"} | SLURM,  # overruled: one task of four, alone
        JOBSET | {"NNODES": "1"},
        SKYPILOT | {"SKYPILOT_NUM_NODES": "1"},
        KUBEFLOW | {"JAX_NUM_PROCESSES": "1"},
        {"JAX_COORDINATOR_ADDRESS": "first:1234"},
        {"JOB_COMPLETION_INDEX": "3", "KUBERNETES_SERVICE_HOST": "10.0.0.1"},  # one of many jobs that are each alone
        {"OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "0"},
        SLURM | {"SLURM_NTASKS": "1"},
        {"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_JOB_NODELIST": "node[1-4]"},  # a batch script, not a step
        {"TPU_WORKER_HOSTNAMES": "localhost"},
        {"TPU_WORKER_HOSTNAMES": "localhost", "TPU_WORKER_ID": "0", "MEGASCALE_NUM_SLICES": "1"},
    ],
)
def test_one_process_is_alone(environment):
    assert place(environment) is None


@pytest.mark.parametrize(
    ("environment", "missing"),
    [
        *((EXPLICIT, name) for name in EXPLICIT),
        *((JOBSET, name) for name in JOBSET),
        *((SKYPILOT, name) for name in SKYPILOT),
        *((KUBEFLOW, name) for name in KUBEFLOW),
        (MPI, "OMPI_COMM_WORLD_RANK"),
        (MPI, "OMPI_MCA_orte_hnp_uri"),
        (SLURM, "SLURM_NTASKS"),
        (SLURM, "SLURM_PROCID"),
        (TPU, "TPU_WORKER_ID"),
        (TPU | SLICES, "MEGASCALE_SLICE_ID"),
    ],
)
def test_half_of_it_is_an_error_that_names_the_rest(environment, missing):
    with pytest.raises(ConfigError, match=f"{missing} is not set; set it, or say it all by GENTRAIN_") as raised:
        place({name: value for name, value in environment.items() if name != missing})
    assert "\n" not in str(raised.value)


def test_what_is_no_number_is_an_error_that_quotes_it():
    for environment, name in ((EXPLICIT, "GENTRAIN_PROCESS_ID"), (MPI, "OMPI_COMM_WORLD_SIZE"), (TPU, "TPU_WORKER_ID")):
        with pytest.raises(ConfigError, match="'four'"):
            place(environment | {name: "four"})


def test_it_is_known_before_jax_is_imported():
    check = "import sys, launch.cluster; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], cwd=ROOT).returncode == 0
