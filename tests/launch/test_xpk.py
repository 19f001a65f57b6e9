"""xpk.sh: the commands of each action; its Dockerfile: what can be told without Docker."""

import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = "xpk/xpk.sh"
CLUSTER = ("--project", "my-project", "--zone", "us-west4-a", "--cluster", "glpi")
WHERE = "--project=my-project --zone=us-west4-a --cluster=glpi"
JOB = ("--workload", "koniq", "--image", "pkg.dev/p/glpi:v1", "--storage", "data")
DOCKERFILE = (ROOT / "launch/xpk/Dockerfile").read_text()


def test_image(dry):
    assert dry(SCRIPT, "image", "--image", "pkg.dev/p/glpi:v1", "--jax-extra=cuda13") == [
        f"docker build --file {ROOT}/launch/xpk/Dockerfile --build-arg JAX_EXTRA=cuda13"
        f" --build-arg RUN_AS=glpi --tag pkg.dev/p/glpi:v1 {ROOT}",
        "docker push pkg.dev/p/glpi:v1",
    ]


def test_cluster(dry):
    assert dry(SCRIPT, "cluster", *CLUSTER, "--tpu-type=v5litepod-16") == [
        f"xpk cluster create {WHERE} --tpu-type=v5litepod-16 --on-demand"
        " --enable-gcpfilestore-csi-driver"
    ]
    gpus = ("--device-type=h100-mega-80gb-8", "--num-nodes", "2", "--reservation", "ours")
    assert dry(SCRIPT, "cluster", *CLUSTER, *gpus) == [
        f"xpk cluster create {WHERE} --device-type=h100-mega-80gb-8 --num-nodes=2"
        " --reservation=ours --enable-gcpfilestore-csi-driver"
    ]


def test_submit_to_tpus(dry):
    words = ("--", "train", "--config", "my config.py")
    (line,) = dry(SCRIPT, "submit", *CLUSTER, *JOB, "--tpu-type", "v5litepod-16", *words)
    before, _, command = line.partition(" '--command=")
    assert before == (
        f"xpk workload create {WHERE} --workload=koniq --tpu-type=v5litepod-16"
        " --docker-image=pkg.dev/p/glpi:v1 --storage=data --max-restarts=50"
        " --restart-on-exit-codes=75,1 --termination-grace-period-seconds=120"
    )
    assert shlex.split(f"'{command}") == [
        "exec glpi train --config 'my config.py' --distributed auto"
    ]


def test_submit_to_gpus(dry):
    words = ("--device-type=h100-mega-80gb-8", "--num-nodes=2", "--max-restarts=0", "--", "train")
    (line,) = dry(SCRIPT, "submit", *CLUSTER, *JOB, *words)
    assert " --device-type=h100-mega-80gb-8 --num-nodes=2 " in line
    assert " --max-restarts=0 " in line
    assert shlex.split(line)[-1] == (
        "--command=exec glpi train"
        " --coordinator $JAX_COORDINATOR_ADDRESS:$JAX_COORDINATOR_PORT"
        " --processes $NNODES --process $NODE_RANK"
    )


def test_the_rest(dry):
    storage = ("--storage", "data", "--size", "2048", "--tier=BASIC_SSD")
    assert dry(SCRIPT, "storage", *CLUSTER, *storage) == [
        f"xpk storage create data {WHERE} --type=gcpfilestore --auto-mount=false"
        " --mount-point=/mnt/glpi --readonly=false --size=2048 --tier=BASIC_SSD"
        " --access-mode=ReadWriteMany --vol=default"
    ]
    assert dry(SCRIPT, "list", *CLUSTER) == [f"xpk workload list {WHERE}"]
    assert dry(SCRIPT, "stop", *CLUSTER, "--workload=koniq") == [
        f"xpk workload delete {WHERE} --workload=koniq"
    ]
    assert dry(SCRIPT, "delete-storage", *CLUSTER, "--storage=data") == [
        f"xpk storage delete data {WHERE}"
    ]
    assert dry(SCRIPT, "delete", *CLUSTER) == [f"xpk cluster delete {WHERE}"]


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["remove"], "the first word is one of image cluster"),
        (["list", *CLUSTER[2:]], "--project is missing"),
        (["image", "--image=i"], "--jax-extra is missing"),
        (["image", "--image=i", "--jax-extra=gpu"], "must be tpu, cuda12 or cuda13"),
        (["cluster", *CLUSTER], "--tpu-type or --device-type is missing"),
        (["cluster", *CLUSTER, "--tpu-type=a", "--device-type=b"], "exclude each other"),
        (["cluster", *CLUSTER, "--tpu-type=a", "--spot", "--reservation=b"], "exclude each other"),
        (["submit", *CLUSTER, *JOB, "--tpu-type=a"], "what glpi is to do is missing"),
        (["submit", *CLUSTER, *JOB[2:], "--tpu-type=a", "--", "x"], "--workload is missing"),
        (["submit", *CLUSTER, *JOB, "--tpu-type=a", "--", 'a"b'], "cannot pass on quotes"),
        (["stop", *CLUSTER], "--workload is missing"),  # without it xpk deletes all
        (["cluster", *CLUSTER, "--device-type=a", "--num-nodes=0"], "1 or more"),
    ],
)
def test_bad_arguments(words, problem, launch, tmp_path):
    done = launch(SCRIPT, *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert problem in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "calls").exists()


def test_image_is_pinned_and_without_root():
    assert re.findall(r"^FROM (.+)$", DOCKERFILE, re.MULTILINE) == ["python:3.12.12-slim-bookworm"]
    assert re.findall(r"^ARG RUN_AS=(.+)$", DOCKERFILE, re.MULTILINE) == ["glpi"]
    user = DOCKERFILE.index("\nUSER $RUN_AS\n")
    assert "\nRUN " not in DOCKERFILE[user:]


def test_image_gets_what_it_copies():
    sources = {
        source
        for line in re.findall(r"^COPY (.+)$", DOCKERFILE, re.MULTILINE)
        for source in line.split()[:-1]
    }
    assert {"pyproject.toml", "glpi_jax", "configs"} <= sources
    assert all((ROOT / source).exists() for source in sources)
    ignore = (ROOT / "launch/xpk/Dockerfile.dockerignore").read_text().splitlines()
    assert "*" in ignore
    assert {line[1:] for line in ignore if line.startswith("!")} == sources
