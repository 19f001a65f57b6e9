"""tpu_vm.sh: the commands of each action, and `watch` with a stand-in for gcloud."""

import shlex
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = "tpu_vm/tpu_vm.sh"
TPU = ("--name", "glpi", "--project", "my-project", "--zone", "us-east5-b")
KIND = ("--accelerator-type", "v6e-16", "--runtime-version", "v2-alpha-tpuv6e")
WHERE = "--project=my-project --zone=us-east5-b"
NFS = ("--nfs", "10.0.0.2:/share")
JOB = ("--", "train", "--config", "my config.py", "--workdir", "/mnt/glpi/run")


def remote(line: str) -> list[str]:
    """The steps that a host is told to do, after a check that its shell can read them."""
    (command,) = [word for word in shlex.split(line) if word.startswith("--command=")]
    steps = command.removeprefix("--command=")
    subprocess.run(["bash", "-n", "-c", steps], check=True)
    return steps.split("; ")


def test_create(dry):
    assert dry(SCRIPT, "create", *TPU, *KIND) == [
        f"gcloud compute tpus tpu-vm create glpi {WHERE} --accelerator-type=v6e-16"
        " --version=v2-alpha-tpuv6e"
    ]
    assert dry(SCRIPT, "create", *TPU, *KIND, "--spot", "--network", "my net") == [
        f"gcloud compute tpus tpu-vm create glpi {WHERE} --accelerator-type=v6e-16"
        " '--network=my net' --spot --version=v2-alpha-tpuv6e"
    ]


def test_create_queued(dry):
    queued = ("--queued", "--spot", "--valid-until-duration=6h")
    assert dry(SCRIPT, "create", *TPU, *KIND, *queued) == [
        f"gcloud compute tpus queued-resources create glpi --node-id=glpi {WHERE}"
        " --accelerator-type=v6e-16 --spot --valid-until-duration=6h"
        " --runtime-version=v2-alpha-tpuv6e"
    ]


def test_setup(dry, tmp_path):
    archive = f"{tmp_path}/glpi_jax-glpi.tar.gz"
    lines = dry(SCRIPT, "setup", *TPU, "--revision=v0.1.0", "--nfs", "10.0.0.2:/my share")
    assert lines[:2] == [
        f"git -C {ROOT} archive --format=tar.gz --prefix=glpi_jax/ --output={archive} v0.1.0",
        f"gcloud compute tpus tpu-vm scp {archive} glpi:glpi_jax.tar.gz {WHERE} --worker=all",
    ]
    assert lines[2].startswith(
        f"gcloud compute tpus tpu-vm ssh glpi {WHERE} --worker=all '--command="
    )
    assert remote(lines[2]) == [
        "sudo systemctl stop glpi 2>/dev/null",
        "sudo systemctl reset-failed glpi 2>/dev/null",
        "set -e",
        "sudo apt-get -qq -o DPkg::Lock::Timeout=300 update",
        "sudo apt-get -qq -o DPkg::Lock::Timeout=300 install -y nfs-common",
        "sudo mkdir -p /mnt/glpi",
        "mountpoint -q /mnt/glpi || sudo mount -t nfs '10.0.0.2:/my share' /mnt/glpi",
        "rm -rf glpi_jax",
        "tar -xzf glpi_jax.tar.gz",
        "python3 -m pip install --quiet --user 'uv>=0.8,<1'",
        "[ -x glpi_venv/bin/python ] || ~/.local/bin/uv venv --quiet --python 3.12 glpi_venv",
        "~/.local/bin/uv pip install --quiet --python glpi_venv/bin/python"
        " --editable ./glpi_jax 'jax[tpu]'",
        "glpi_venv/bin/glpi --version",
    ]
    assert len(lines) == 3


def test_setup_without_shared_folder_mounts_nothing(dry):
    steps = remote(dry(SCRIPT, "setup", *TPU)[-1])
    assert steps[2:4] == ["set -e", "rm -rf glpi_jax"]


def test_run(dry):
    (line,) = dry(SCRIPT, "run", *TPU, *JOB)
    assert line.startswith(f"gcloud compute tpus tpu-vm ssh glpi {WHERE} --worker=all '--command=")
    assert remote(line) == [
        "sudo systemctl stop glpi 2>/dev/null",
        "sudo systemctl reset-failed glpi 2>/dev/null",
        'sudo systemd-run --unit=glpi --remain-after-exit --uid="$USER"'
        ' --working-directory="$HOME/glpi_jax" --property=Restart=on-failure'
        " --property=RestartPreventExitStatus=2 --property=RestartSec=10"
        " --property=StartLimitBurst=5 --property=StartLimitIntervalSec=1h"
        " --property=KillMode=mixed --property=TimeoutStopSec=120"
        ' --property=StandardOutput="append:$HOME/glpi.log" --property=StandardError=inherit'
        " \"$HOME/glpi_venv/bin/glpi\" train --config 'my config.py' --workdir /mnt/glpi/run"
        " --distributed auto",
    ]


def test_the_rest(dry):
    ssh = f"gcloud compute tpus tpu-vm ssh glpi {WHERE}"
    show = "systemctl show glpi --property=SubState --property=ExecMainStatus"
    assert dry(SCRIPT, "status", *TPU) == [
        f"gcloud compute tpus tpu-vm describe glpi {WHERE} '--format=value(state)'",
        f"{ssh} --worker=all '--command={show}; tail -n 3 glpi.log'",
    ]
    assert dry(SCRIPT, "logs", *TPU) == [f"{ssh} --worker=0 '--command=tail -n 50 -F glpi.log'"]
    assert remote(dry(SCRIPT, "stop", *TPU)[0])[0] == "sudo systemctl stop glpi 2>/dev/null"
    assert dry(SCRIPT, "fetch", *TPU, "--from", "/mnt/glpi/a b", "--to=runs") == [
        f"gcloud compute tpus tpu-vm scp --recurse 'glpi:/mnt/glpi/a b' runs {WHERE} --worker=0"
    ]
    assert dry(SCRIPT, "delete", *TPU) == [
        f"gcloud compute tpus tpu-vm delete glpi {WHERE} --quiet"
    ]
    assert dry(SCRIPT, "delete", *TPU, "--queued") == [
        f"gcloud compute tpus queued-resources delete glpi {WHERE} --force --quiet"
    ]


def test_watch_prints_all_that_it_may_do(dry):
    queued = ("--queued", "--spot", "--interval=30")
    lines = dry(SCRIPT, "watch", *TPU, *KIND, *NFS, *queued, *JOB)
    describe = f"queued-resources describe glpi {WHERE} '--format=value(state.state)'"
    assert lines[:2] == ["# every 30 s", f"gcloud compute tpus {describe}"]
    again = lines.index("# if the TPU is missing or was preempted, up to 20 times")
    assert lines[again + 1 : again + 3] == [
        *dry(SCRIPT, "delete", *TPU, "--queued"),
        *dry(SCRIPT, "create", *TPU, *KIND, *queued),
    ]
    start = lines.index("# if no job is on it")
    assert lines[start + 1 :] == [
        *dry(SCRIPT, "setup", *TPU, *NFS),
        *dry(SCRIPT, "run", *TPU, *JOB),
    ]


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["destroy"], "the first word is one of create setup run"),
        (["create", *TPU[2:], *KIND], "--name is missing"),
        (["create", *TPU[:4], *KIND], "--zone is missing"),
        (["create", *TPU, *KIND[2:]], "--accelerator-type is missing"),
        (["create", *TPU, *KIND, "--spot=yes"], "unknown option: --spot=yes"),
        (["run", *TPU], "what glpi is to do is missing"),
        (["watch", *TPU, *KIND, *NFS, "--interval=soon", *JOB], "--interval soon: must be"),
        (["watch", *TPU, *KIND, *JOB], "--nfs is missing"),
        (["fetch", *TPU, "--from", "x"], "--to is missing"),
    ],
)
def test_bad_arguments(words, problem, launch, tmp_path):
    done = launch(SCRIPT, *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert problem in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "calls").exists()


@pytest.fixture
def watch(launch, write_tool, tmp_path):
    """Run `watch` with a gcloud that answers looks at the TPU and its job one after the other.

    Returns the exit code and what was called, a word for each, looks left out.
    """
    write_tool("git", "exit 0")
    write_tool(
        "gcloud",
        f"""
        [[ "$*" == *" describe "* || "$*" == *"systemctl show"* ]] || exit 0
        read -r answer <"{tmp_path}/answers"
        sed -i 1d "{tmp_path}/answers"
        [[ $answer == *ERROR* ]] && {{ echo "$answer" >&2; exit 1; }}
        echo "Updates are available" >&2
        echo "${{answer//,/$'\\n'}}"
        """,
    )

    def run(answers: list[str], *words: str) -> tuple[int, list[str]]:
        (tmp_path / "answers").write_text("".join(f"{answer}\n" for answer in answers))
        done = launch(SCRIPT, "watch", *TPU, *KIND, *NFS, "--interval=0", *words, *JOB)
        assert (tmp_path / "answers").read_text() == "", done.stderr
        told = {
            " scp ": "copy",
            "uv pip install": "install",
            "systemd-run": "run",
            " create ": "create",
            " delete ": "delete",
        }
        calls = (tmp_path / "calls").read_text().splitlines()
        return done.returncode, [
            next(word for part, word in told.items() if part in call)
            for call in calls
            if any(part in call for part in told)
        ]

    return run


NOTHING, RUNS = "SubState=dead,ExecMainStatus=0", "SubState=running,ExecMainStatus=0"
FINISHED = "SubState=exited,ExecMainStatus=0"
START = ["copy", "install", "run"]


def test_watch_resumes_after_preemption(watch):
    answers = ["ERROR: NOT_FOUND: no such TPU", "CREATING", "READY", NOTHING, "READY", RUNS]
    answers += ["PREEMPTED", "READY", NOTHING, "READY", FINISHED]
    assert watch(answers) == (0, ["create", *START, "delete", "create", *START])


def test_watch_of_a_queued_resource(watch):
    answers = ["WAITING_FOR_RESOURCES", "ACTIVE", NOTHING, "SUSPENDED", "ACTIVE", FINISHED]
    assert watch(answers, "--queued", "--spot") == (0, [*START, "delete", "create"])


def test_watch_leaves_the_tpu_alone_when_gcloud_fails(watch):
    answers = ["ERROR: no network", "READY", "ERROR: no route to host", "READY", FINISHED]
    assert watch(answers) == (0, [])


@pytest.mark.parametrize(("status", "code"), [(2, 2), (1, 1), (25, 1)])
def test_watch_ends_with_a_failed_job(status, code, watch):
    assert watch(["READY", f"SubState=failed,ExecMainStatus={status}"]) == (code, [])
    assert watch(["READY", f"ExecMainStatus={status},SubState=failed"]) == (code, [])


def test_watch_makes_only_so_many_tpus(watch):
    answers = ["PREEMPTED", "PREEMPTED", "PREEMPTED"]
    assert watch(answers, "--recreations", "2") == (1, ["delete", "create"] * 2)
