#!/usr/bin/env bash
# Train on a Cloud TPU VM, one host or a slice of many, from your own machine with gcloud.
#
#     launch/tpu_vm/tpu_vm.sh ACTION --name NAME --project PROJECT --zone ZONE [options] [-- words]
#
# ACTION is one of
#   create   make the TPU
#   setup    install a revision of this checkout on all its hosts, and mount the shared folder; a
#            job that runs is stopped first
#   run      start `glpi WORDS --distributed auto` on all hosts, as a service that systemd restarts
#            after failures, five times an hour at most; a job that runs is stopped first
#   status   state of the TPU, and of the service on each host with its last lines
#   logs     follow the output of host 0
#   stop     end the service on all hosts; it saves
#   watch    create if there is no TPU, setup and run if no job runs, and again after each
#            preemption, until the job is finished; takes the options of all three
#   fetch    copy --from, a folder on the TPU, into --to
#   delete   delete the TPU, and the request for it; what is not in the shared folder is lost
#
#   --name, --project, --zone    of the TPU, for every action
#   --queued                     a queued resource of the same name; for create, status, watch and
#                                delete
# create:
#   --accelerator-type TYPE      such as v6e-8
#   --runtime-version VERSION    such as v2-alpha-tpuv6e
#   --spot                       cheaper, can be taken away at any time
#   --valid-until-duration TIME  give up a queued request after, say, 6h
#   --network NAME, --subnetwork NAME
# setup:
#   --revision REVISION          a tag, branch or commit (HEAD); what is not committed stays here
#   --nfs SERVER:/SHARE          mounted on all hosts, for instance of Filestore; needed with several
#                                hosts, and to resume on another TPU
#   --mount FOLDER               where (/mnt/glpi)
# watch:
#   --interval SECONDS           between looks (60)
#   --recreations N              TPUs made anew at most (20)
#
#   --dry-run                    print the commands

set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

actions=" create setup run status logs stop watch fetch delete "
action=${1:-}
[[ $action != --help ]] || { show_help; exit 0; }
[[ $action && $actions == *" $action "* ]] || bad_arguments "the first word is one of$actions"
shift
name='' project='' zone='' queued=no
accelerator_type='' runtime_version='' spot=no valid_until_duration='' network='' subnetwork=''
revision=HEAD nfs='' mount=/mnt/glpi interval=60 recreations=20 from='' to=''
read_options "name project zone accelerator-type runtime-version valid-until-duration network
    subnetwork revision nfs mount interval recreations from to" "queued spot" "$@"
require name project zone revision mount
where=("--project=$project" "--zone=$zone")

# on_hosts HOSTS COMMAND: HOSTS is all or a number.
on_hosts() {
    run gcloud compute tpus tpu-vm ssh "$name" "${where[@]}" "--worker=$1" "--command=$2"
}

create() {
    local flags=("${where[@]}" "--accelerator-type=$accelerator_type")
    [[ -z $network ]] || flags+=("--network=$network")
    [[ -z $subnetwork ]] || flags+=("--subnetwork=$subnetwork")
    [[ $spot == no ]] || flags+=(--spot)
    if [[ $queued == yes ]]; then
        [[ -z $valid_until_duration ]] || flags+=("--valid-until-duration=$valid_until_duration")
        run gcloud compute tpus queued-resources create "$name" "--node-id=$name" \
            "${flags[@]}" "--runtime-version=$runtime_version"
    else
        run gcloud compute tpus tpu-vm create "$name" "${flags[@]}" "--version=$runtime_version"
    fi
}

stop_command='sudo systemctl stop glpi 2>/dev/null; sudo systemctl reset-failed glpi 2>/dev/null'

# The images' own Python may be too old for glpi_jax: uv brings another.
setup() {
    local checkout archive=${TMPDIR:-/tmp}/glpi_jax-$name.tar.gz
    local steps="$stop_command; set -e"
    checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
    if [[ $nfs ]]; then
        local folder
        folder=$(quoted "$mount")
        steps+='; sudo apt-get -qq -o DPkg::Lock::Timeout=300 update'
        steps+='; sudo apt-get -qq -o DPkg::Lock::Timeout=300 install -y nfs-common'
        steps+="; sudo mkdir -p $folder"
        steps+="; mountpoint -q $folder || sudo mount -t nfs $(quoted "$nfs") $folder"
    fi
    steps+='; rm -rf glpi_jax; tar -xzf glpi_jax.tar.gz'
    steps+="; python3 -m pip install --quiet --user 'uv>=0.8,<1'"
    steps+='; [ -x glpi_venv/bin/python ] || ~/.local/bin/uv venv --quiet --python 3.12 glpi_venv'
    steps+='; ~/.local/bin/uv pip install --quiet --python glpi_venv/bin/python'
    steps+=" --editable ./glpi_jax 'jax[tpu]'; glpi_venv/bin/glpi --version"
    run git -C "$checkout" archive --format=tar.gz --prefix=glpi_jax/ "--output=$archive" "$revision" &&
        run gcloud compute tpus tpu-vm scp "$archive" "$name:glpi_jax.tar.gz" "${where[@]}" --worker=all &&
        on_hosts all "$steps"
}

# A service outlives the ssh connection, and at the shutdown of a preempted host systemd sends it
# SIGTERM and waits.
run_job() {
    local command="$stop_command; sudo systemd-run --unit=glpi --remain-after-exit"
    # $USER and $HOME are those of the host.
    # shellcheck disable=SC2016
    command+=' --uid="$USER" --working-directory="$HOME/glpi_jax"'
    command+=' --property=Restart=on-failure --property=RestartPreventExitStatus=2'
    command+=' --property=RestartSec=10 --property=StartLimitBurst=5'
    command+=' --property=StartLimitIntervalSec=1h --property=KillMode=mixed'
    # shellcheck disable=SC2016
    command+=' --property=TimeoutStopSec=120 --property=StandardOutput="append:$HOME/glpi.log"'
    # shellcheck disable=SC2016
    command+=' --property=StandardError=inherit "$HOME/glpi_venv/bin/glpi" '
    on_hosts all "$command$(quoted "${arguments[@]}" --distributed auto)"
}

show_state() {
    if [[ $queued == yes ]]; then
        run gcloud compute tpus queued-resources describe "$name" "${where[@]}" '--format=value(state.state)'
    else
        run gcloud compute tpus tpu-vm describe "$name" "${where[@]}" '--format=value(state)'
    fi
}

delete() {
    if [[ $queued == yes ]]; then
        run gcloud compute tpus queued-resources delete "$name" "${where[@]}" --force --quiet
    else
        run gcloud compute tpus tpu-vm delete "$name" "${where[@]}" --quiet
    fi
}

job_state='systemctl show glpi --property=SubState --property=ExecMainStatus'

# State of the TPU, MISSING if there is none, UNKNOWN if gcloud could not tell.
look() {
    if show_state 2>"$errors"; then
        return 0
    elif grep -q NOT_FOUND "$errors"; then
        echo MISSING
    else
        cat "$errors" >&2
        echo UNKNOWN
    fi
}

# Looks after the job on a TPU that is there; ends this script when the job has ended.
tend_job() {
    local answer
    answer=$(on_hosts 0 "$job_state") || { say "host 0 does not answer"; return 0; }
    case $answer in
        *SubState=exited*)
            say "the job is finished: fetch what you need, then delete the TPU"
            exit 0
            ;;
        *SubState=failed*)
            say "the job failed: 'logs' shows why; the TPU is still there and costs money"
            [[ $answer == *ExecMainStatus=2$'\n'* || $answer == *ExecMainStatus=2 ]] && exit 2
            exit 1
            ;;
        *SubState=dead*)
            say "no job on the TPU: starting it"
            { setup && run_job; } || say "that failed: trying again"
            ;;
    esac
}

watch_job() {
    local state
    errors=$(mktemp)
    trap 'rm -f "$errors"' EXIT
    while :; do
        state=$(look)
        case $state in
            READY | ACTIVE) tend_job ;;
            MISSING | PREEMPTED | TERMINATED | SUSPENDED | FAILED)
                ((recreations-- > 0)) || { say "the TPU is $state, and --recreations are used up"; exit 1; }
                say "the TPU is $state: making it anew"
                [[ $state == MISSING ]] || delete || true
                create || say "that failed: trying again"
                ;;
            *) say "the TPU is $state" ;;
        esac
        sleep "$interval"
    done
}

case $action in
    create)
        require accelerator_type runtime_version
        create
        ;;
    setup) setup ;;
    run)
        require_arguments
        run_job
        ;;
    status)
        show_state
        on_hosts all "$job_state; tail -n 3 glpi.log"
        ;;
    logs) on_hosts 0 'tail -n 50 -F glpi.log' ;;
    stop) on_hosts all "$stop_command" ;;
    watch)
        require accelerator_type runtime_version nfs
        require_arguments
        require_whole 0 interval recreations
        if [[ $dry_run == no ]]; then
            watch_job
        fi
        echo "# every $interval s"
        show_state
        on_hosts 0 "$job_state"
        echo "# if the TPU is missing or was preempted, up to $recreations times"
        delete
        create
        echo "# if no job is on it"
        setup
        run_job
        ;;
    fetch)
        require from to
        run gcloud compute tpus tpu-vm scp --recurse "$name:$from" "$to" "${where[@]}" --worker=0
        ;;
    delete) delete ;;
esac
