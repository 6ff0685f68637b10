"""The recipes for clusters have the structure that their schedulers ask for."""

import os
import re
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from resnet_jax.errors import STOPPED

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
JOBSETS = ("jobset_tpu.yaml", "jobset_gpu.yaml")


def _job(name: str) -> dict:
    """The one Job of a JobSet, as Kubernetes would create it."""
    jobset = yaml.safe_load((DEPLOY / name).read_text())
    [replicated] = jobset["spec"]["replicatedJobs"]
    metadata = {"name": f"{jobset['metadata']['name']}-{replicated['name']}-0"}
    spec = replicated["template"]["spec"]
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}


@pytest.mark.parametrize("name", JOBSETS)
def test_jobs_of_jobsets_follow_kubernetes_schema(name):
    job, version = _job(name), kubernetes_validate.latest_version()
    kubernetes_validate.validate(job, version, strict=True)
    job["spec"]["template"]["spec"]["containers"][0]["entrypoint"] = []
    with pytest.raises(kubernetes_validate.ValidationError, match="entrypoint"):
        kubernetes_validate.validate(job, version, strict=True)


@pytest.mark.parametrize("name", JOBSETS)
def test_jobsets_are_queued_by_kueue_and_start_every_host_together(name):
    jobset = yaml.safe_load((DEPLOY / name).read_text())
    spec = _job(name)["spec"]

    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    assert jobset["metadata"]["labels"]["kueue.x-k8s.io/queue-name"]
    assert spec["completionMode"] == "Indexed"
    assert spec["completions"] == spec["parallelism"]


@pytest.mark.parametrize("name", JOBSETS)
def test_batches_of_training_and_of_an_evaluation_fit_into_shared_memory(name):
    spec = _job(name)["spec"]
    pod = spec["template"]["spec"]
    [container] = pod["containers"]
    command = " ".join([*container["command"], *container.get("args", ())])
    number = lambda field: int(re.search(rf"{field}=(\d+)", command)[1])
    [size] = [v["emptyDir"]["sizeLimit"] for v in pod["volumes"] if v["name"] == "shm"]

    rows = number("batch_size") // spec["completions"]
    batches = 2 * (6 * number("num_workers") + 1)  # see docs/streaming.md
    assert rows * 224 * 224 * 3 * batches < int(size.removesuffix("Gi")) * 2**30


def test_gpu_processes_meet_at_a_name_that_jobset_gives_the_first_pod():
    job = _job("jobset_gpu.yaml")
    [container] = job["spec"]["template"]["spec"]["containers"]
    [command] = container["args"]

    assert f"--coordinator={job['metadata']['name']}-0.resnet-gpu:1234" in command
    assert f"--num_processes={job['spec']['completions']}" in command


def test_skypilot_restarts_an_interrupted_run():
    task = yaml.safe_load((DEPLOY / "skypilot.yaml").read_text())
    assert task["resources"]["job_recovery"] == {"recover_on_exit_codes": [STOPPED]}


def test_skypilot_reads_the_task():
    sky = pytest.importorskip("sky")
    task = sky.Task.from_yaml(str(DEPLOY / "skypilot.yaml"))
    assert task.num_nodes == 2


@pytest.mark.parametrize(("code", "requeued"), [(0, False), (1, False), (75, True)])
def test_slurm_array_runs_its_line_and_requeues_an_interrupted_run(tmp_path, code, requeued):
    (tmp_path / "runs.txt").write_text(f"echo first\necho 'second run'; exit {code}\n")
    _executable(tmp_path / "srun", 'shift; exec "$@"')
    _executable(tmp_path / "scontrol", f'echo "$@" > {tmp_path}/requeued')
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        **{"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "2"},
    }

    done = subprocess.run(
        ["bash", DEPLOY / "slurm_array.sh", tmp_path / "runs.txt"],
        env=environment,
        capture_output=True,
        text=True,
    )

    assert done.stdout == "second run\n"
    assert done.returncode == code
    assert (tmp_path / "requeued").exists() == requeued


def _executable(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/bash\n{script}\n")
    path.chmod(0o755)
