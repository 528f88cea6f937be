"""The files in launch/engines: sound by their engines' rules, in step with launch/cluster.py, and their command runs.

No engine is needed: manifests are read as the engine reads them, scripts run among stand-ins of the engine's programs.
"""

import ast
import itertools
import re
import shlex
import subprocess
import sys
from types import ModuleType, SimpleNamespace

import pytest
import yaml

from gentrain import errors
from launch.cluster import PORT, Place, place
from launch.engines import ray as ray_engine
from tests.helpers import ROOT, environment

ENGINES = ROOT / "launch" / "engines"
COMMAND = "python -m launch --config=configs/lm1b_likelihood.py --config.mesh.data=-1 --workdir=/shared/lm1b"
FINAL = sorted({error.exit_code for error in vars(errors).values() if isinstance(error, type)} - {42})
DRY_RUN = f'exec {sys.executable} "$@" --dry_run'


def text(name: str) -> str:
    return (ENGINES / name).read_text()


def documents(name: str) -> list[dict]:
    return list(yaml.safe_load_all(text(name)))


@pytest.fixture
def run(tmp_path):
    """Runs a command among stand-ins of the engine's programs, each of them a few lines of shell."""

    def run(*command: str, programs: dict[str, str], **extra: str) -> subprocess.CompletedProcess:
        for name, script in programs.items():
            (tmp_path / name).write_text(f"#!/bin/bash\n{script}\n")
            (tmp_path / name).chmod(0o755)
        extra = {"PATH": f"{tmp_path}:/usr/bin:/bin", "RECORD": f"{tmp_path}/record"} | extra
        return subprocess.run(command, cwd=ROOT, env=environment(**extra), capture_output=True, text=True, timeout=60)

    return run


def assert_it_ran(done: subprocess.CompletedProcess) -> None:
    assert done.returncode == 0, done.stderr
    assert "fsdp=16" in done.stdout and "parameters" in done.stdout, done.stdout


def test_every_file_says_what_it_runs_how_to_submit_it_and_what_to_change():
    names = {path.name for path in ENGINES.iterdir() if path.is_file()}
    assert names == {
        "__init__.py",
        *("slurm.sbatch", "jobset.yaml", "xpk.sh", "skypilot.yaml", "kubeflow.yaml", "ray.py"),
    }
    for name in names - {"__init__.py"}:
        head = text(name).removeprefix("#!/bin/bash\n").split("\n\n" if name != "ray.py" else '"""\n\n')[0]
        submit = "launch.engines.ray" if name == "ray.py" else f"launch/engines/{name}"
        assert "gentrain on " in head and submit in head and "Change:" in head, name


def sbatch() -> dict[str, str]:
    """Slurm's options, which it reads up to the first line that is no comment."""
    options = {}
    for line in text("slurm.sbatch").splitlines():
        if line and not line.startswith("#"):
            break
        if line.startswith("#SBATCH "):
            key, _, value = line.removeprefix("#SBATCH --").partition("=")
            options[key] = value
    return options


def test_slurm_signals_the_processes_and_may_requeue():
    assert text("slurm.sbatch").count("\n#SBATCH ") == len(sbatch())
    assert sbatch().items() >= {"signal": "TERM@120", "requeue": "", "ntasks-per-node": "1"}.items()
    assert sbatch()["open-mode"] == "append"  # a requeued job writes to the same log
    task = {"SLURM_STEP_NODELIST": "node[1-4]", "SLURM_NTASKS": sbatch()["nodes"], "SLURM_PROCID": "3"}
    assert place(task) == Place("slurm", "auto", 4, 3)


STEP = 'export SLURM_STEP_NODELIST=localhost SLURM_NTASKS=1 SLURM_PROCID=0\necho "$JAX_LOCAL_DEVICE_IDS"\nexec "$@"'
SCONTROL = 'echo "$@" >> "$RECORD"'


def test_the_slurm_script_runs(run, tmp_path):
    programs = {"srun": STEP, "scontrol": SCONTROL, "python": DRY_RUN}
    done = run("bash", str(ENGINES / "slurm.sbatch"), programs=programs, SLURM_GPUS_ON_NODE="8", SLURM_JOB_ID="7")
    assert_it_ran(done)
    assert done.stdout.startswith("0,1,2,3,4,5,6,7\n") and not (tmp_path / "record").exists()


@pytest.mark.parametrize(
    ("code", "restarts", "again"), [(42, 0, True), (137, 5, True), (42, 100, False), *((c, 0, False) for c in FINAL)]
)
def test_the_slurm_script_requeues_what_may_end_otherwise(run, tmp_path, code, restarts, again):
    programs = {"srun": 'exec "$@"', "scontrol": SCONTROL, "python": f"exit {code}"}
    variables = {"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": str(restarts)}
    done = run("bash", str(ENGINES / "slurm.sbatch"), programs=programs, **variables)
    assert done.returncode == code
    record = tmp_path / "record"
    assert (record.exists() and record.read_text() == "requeue 7\n") == again


def xpk_flags(run, tmp_path) -> dict[str, str]:
    done = run("bash", str(ENGINES / "xpk.sh"), programs={"xpk": 'printf "%s\\n" "$@" > "$RECORD"'})
    assert done.returncode == 0, done.stderr
    workload, create, *flags = (tmp_path / "record").read_text().splitlines()
    assert (workload, create) == ("workload", "create")
    return dict(flag.removeprefix("--").split("=", 1) for flag in flags)


def test_xpk_gets_flags_that_it_knows(run, tmp_path):
    flags = xpk_flags(run, tmp_path)
    assert flags.keys() == {
        *("cluster", "workload", "tpu-type", "docker-image", "storage"),
        *("max-restarts", "termination-grace-period-seconds", "command"),
    }
    assert int(flags["max-restarts"]) > 0 and int(flags["termination-grace-period-seconds"]) >= 60
    assert flags["tpu-type"] == "v5litepod-256" and flags["command"] == f"exec {COMMAND}"
    hosts = {"TPU_WORKER_HOSTNAMES": ",".join(f"host-{n}" for n in range(64)), "TPU_WORKER_ID": "9"}
    assert place(hosts) == Place("tpu", "auto", 64, 9)  # GKE's variables; XPK adds none for TPUs


# What XPK wraps the command in, but for the 5 s of its sleep.
WRAPPER = """for flag; do [[ $flag == --command=* ]] && command=${flag#--command=}; done
exec bash -c "
_sigterm() (kill -SIGTERM \\$! 2>/dev/null;);
trap _sigterm SIGTERM;
($command) & PID=\\$!;
while kill -0 \\$PID 2>/dev/null; do sleep 0.1; done;
wait \\$PID; exit \\$?" """


def test_the_xpk_command_runs(run):
    assert_it_ran(run("bash", str(ENGINES / "xpk.sh"), programs={"xpk": WRAPPER, "python": DRY_RUN}))


def test_a_signal_to_the_xpk_wrapper_reaches_python_and_its_exit_code_comes_back(run):
    python = "trap 'exit 42' TERM; kill -TERM $PPID; for i in {1..50}; do sleep 0.1; done"
    assert run("bash", str(ENGINES / "xpk.sh"), programs={"xpk": WRAPPER, "python": python}).returncode == 42


def assert_pods_restart_together_and_only_if_it_helps(jobset: dict, job: dict, container: dict) -> None:
    """A JobSet's rules and a Job's; what Kubernetes demands of them, and what the exit codes do."""
    assert jobset["failurePolicy"]["maxRestarts"] > 0
    rules = jobset["failurePolicy"]["rules"]
    assert rules == [{"action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}]
    assert job["backoffLimit"] == 0
    (rule,) = job["podFailurePolicy"]["rules"]
    assert rule["action"] == "FailJob" and rule["onExitCodes"]["containerName"] == container["name"]
    assert rule["onExitCodes"]["operator"] == "In" and rule["onExitCodes"]["values"] == FINAL
    pod = job["template"]["spec"]
    assert pod["restartPolicy"] == "Never"  # a pod failure policy needs it
    assert pod["terminationGracePeriodSeconds"] >= 60
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    assert all("/shared/lm1b".startswith(mount["mountPath"]) for mount in container["volumeMounts"])


def test_jobset_is_sound_and_places_every_pod():
    (manifest,) = documents("jobset.yaml")
    assert (manifest["apiVersion"], manifest["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    assert manifest["metadata"]["labels"]["kueue.x-k8s.io/queue-name"]
    (replicated,) = manifest["spec"]["replicatedJobs"]
    job, name = replicated["template"]["spec"], manifest["metadata"]["name"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    assert_pods_restart_together_and_only_if_it_helps(manifest["spec"], job, container)
    assert shlex.join(container["command"]) == COMMAND

    hosts = job["completions"]
    chips = [int(side) for side in pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x")]
    assert job["parallelism"] == hosts and job["completionMode"] == "Indexed" and replicated["replicas"] == 1
    assert hosts * container["resources"]["limits"]["google.com/tpu"] == chips[0] * chips[1] == 256
    first = f"{name}-{replicated['name']}-0-0"
    assert re.fullmatch("[a-z][-a-z0-9]{1,60}", first)  # a host's name

    annotations = {
        "metadata.annotations['jobset.sigs.k8s.io/jobset-name']": name,
        "metadata.annotations['jobset.sigs.k8s.io/replicatedjob-name']": replicated["name"],
    }
    variables = {
        variable["name"]: variable.get("value") or annotations[variable["valueFrom"]["fieldRef"]["fieldPath"]]
        for variable in container["env"]
    }
    for index in range(hosts):
        expected = Place("jobset", f"{first}.{name}:{PORT}", hosts, index)
        assert place(variables | {"JOB_COMPLETION_INDEX": str(index)}) == expected


def test_kubeflow_is_sound_and_places_every_pod():
    runtime, train = documents("kubeflow.yaml")
    assert {runtime["apiVersion"], train["apiVersion"]} == {"trainer.kubeflow.org/v1alpha1"}
    assert (runtime["kind"], train["kind"]) == ("TrainingRuntime", "TrainJob")
    assert train["spec"]["runtimeRef"] == {"kind": runtime["kind"], "name": runtime["metadata"]["name"]}
    assert runtime["spec"]["mlPolicy"]["jax"] == {}  # this sets the variables
    (replicated,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    assert replicated["template"]["metadata"]["labels"] == {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}
    job = replicated["template"]["spec"]
    (container,) = job["template"]["spec"]["containers"]
    assert replicated["name"] == container["name"] == "node"  # by these names Trainer finds them
    assert_pods_restart_together_and_only_if_it_helps(runtime["spec"]["template"]["spec"], job, container)
    trainer, name = train["spec"]["trainer"], train["metadata"]["name"]
    assert shlex.join(trainer["command"]) == COMMAND and trainer["image"] == container["image"]
    assert trainer["numNodes"] * trainer["resourcesPerNode"]["limits"]["nvidia.com/gpu"] % 16 == 0
    for index in range(trainer["numNodes"]):
        variables = {
            "JAX_NUM_PROCESSES": str(trainer["numNodes"]),
            "JAX_PROCESS_ID": str(index),
            "JAX_COORDINATOR_ADDRESS": f"{name}-node-0-0.{name}:29500",
        }
        assert place(variables) == Place("kubeflow", f"{name}-node-0-0.{name}:29500", trainer["numNodes"], index)


def test_skypilot_is_sound_and_recovers_from_what_may_end_otherwise():
    (task,) = documents("skypilot.yaml")
    assert task.keys() == {"name", "num_nodes", "workdir", "resources", "file_mounts", "setup", "run"}
    assert task["resources"].keys() == {"accelerators", "use_spot", "job_recovery"}
    (codes,) = task["resources"]["job_recovery"].values()
    assert 42 in codes and not {*FINAL, 137} & set(codes)
    assert list(task["resources"]["job_recovery"]) == ["recover_on_exit_codes"]
    (mount,) = task["file_mounts"].values()
    assert "/shared" in task["file_mounts"] and mount["mode"] == "MOUNT" and {"name", "store"} <= mount.keys()
    assert task["run"].strip() == COMMAND
    assert subprocess.run(["bash", "-n"], input=task["setup"] + task["run"], text=True).returncode == 0
    nodes = task["num_nodes"]
    assert nodes * int(task["resources"]["accelerators"].split(":")[1]) % 16 == 0
    addresses = "\n".join(f"10.0.0.{n}" for n in range(nodes))
    for index in range(nodes):
        variables = {
            "SKYPILOT_NODE_IPS": addresses,
            "SKYPILOT_NUM_NODES": str(nodes),
            "SKYPILOT_NODE_RANK": str(index),
        }
        assert place(variables) == Place("skypilot", f"10.0.0.0:{PORT}", nodes, index)


@pytest.mark.parametrize("name", ["jobset.yaml", "kubeflow.yaml", "skypilot.yaml"])
def test_the_command_of_a_manifest_runs(run, name):
    last = documents(name)[-1]
    if name == "jobset.yaml":
        command = last["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]["containers"][0]["command"]
    elif name == "kubeflow.yaml":
        command = last["spec"]["trainer"]["command"]
    else:
        command = ["bash", "-c", last["run"]]
    assert_it_ran(run("env", *command, programs={"python": DRY_RUN}))


@pytest.fixture
def ray(monkeypatch):
    """As much of Ray as launch/engines/ray.py uses: what runs on a node runs here, at once."""

    class RayError(Exception):
        pass

    def task(function, **options):
        def remote(*arguments):
            try:
                return function(*arguments)
            except RayError as error:
                return error

        return SimpleNamespace(remote=remote)

    def get(result):
        if isinstance(result, RayError):
            raise result
        return result

    ray, group, scheduling = (ModuleType(name) for name in ("ray", "placement_group", "scheduling_strategies"))
    ray.init, ray.get, ray.exceptions = lambda: None, get, SimpleNamespace(RayError=RayError)
    ray.remote = lambda **options: lambda function: task(function, **options)
    ray.util = SimpleNamespace(get_node_ip_address=lambda: "10.0.0.1")
    ray.groups = []
    group.placement_group = lambda bundles, strategy: ray.groups.append((len(bundles), strategy))
    group.remove_placement_group = lambda group: ray.groups.append("removed")
    scheduling.PlacementGroupSchedulingStrategy = lambda group, placement_group_bundle_index: None
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray.util.placement_group", group)
    monkeypatch.setitem(sys.modules, "ray.util.scheduling_strategies", scheduling)
    return ray


def test_ray_is_imported_only_where_it_runs():
    tree = ast.parse(text("ray.py"))
    imported = [alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names]
    assert imported == ["os", "socket", "subprocess", "sys"]
    submit = ast.get_docstring(tree).split("--", 1)[1].replace("\\\n", " ").split("\n\n")[0]
    assert " ".join(submit.split("-- ")[1].split()).replace("launch.engines.ray", "launch") == COMMAND


@pytest.mark.parametrize(
    ("attempts", "expected"),
    [
        ([[0, 0]], 0),
        ([[42, 42], [-9, 42], [0, 0]], 0),  # stopped, then one killed, then done
        ([["lost", 42], [0, 0]], 0),
        ([[42, 2]], 2),
        ([[6, 6]], 6),
        ([[1, 134]], 1),
        ([[42, 42]] * 3, 42),
    ],
)
def test_ray_attempts_until_it_is_done_or_will_never_be(ray, monkeypatch, attempts, expected):
    codes, started = itertools.chain(*attempts), []

    def child(command, env):
        started.append((command, place(env)))
        if (code := next(codes)) == "lost":
            raise ray.exceptions.RayError
        return SimpleNamespace(returncode=code)

    monkeypatch.setattr(ray_engine, "NODES", 2)
    monkeypatch.setattr(ray_engine, "ATTEMPTS", 3)
    monkeypatch.setattr(subprocess, "run", child)
    assert ray_engine.main(["--config=configs/x.py"]) == expected
    assert next(codes, None) is None and ray.groups == [(2, "STRICT_SPREAD"), "removed"] * len(attempts)
    for number, (command, where) in enumerate(started):
        assert command == [sys.executable, "-m", "launch", "--config=configs/x.py"]
        assert where.engine == "GENTRAIN_*" and where.coordinator.startswith("10.0.0.1:")
        assert (where.processes, where.process) == (2, number % 2)
    for first, second in zip(started[::2], started[1::2], strict=True):
        assert first[1].coordinator == second[1].coordinator


def test_the_ray_command_runs(ray, monkeypatch, capfd):
    monkeypatch.setattr(ray_engine, "NODES", 1)
    monkeypatch.delenv("JAX_NUM_CPU_DEVICES")
    monkeypatch.chdir(ROOT)
    code = ray_engine.main([*shlex.split(COMMAND)[3:], "--dry_run"])
    assert_it_ran(subprocess.CompletedProcess([], code, *capfd.readouterr()))
