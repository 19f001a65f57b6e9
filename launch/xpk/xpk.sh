#!/usr/bin/env bash
# Train on Google Kubernetes Engine with xpk, on TPU slices or GPU nodes.
#
#     launch/xpk/xpk.sh ACTION [options] [-- words]
#
# ACTION is one of
#   image           build the image of this checkout and push it
#   cluster         make a cluster with room for one job
#   storage         make a Filestore folder that all hosts of a job share, for data and workdirs
#   submit          start `glpi WORDS` on all hosts of a job; xpk starts it again after preemptions
#                   and crashes, and never after bad input
#   list            jobs of the cluster
#   stop            delete a job; it gets SIGTERM and saves
#   delete-storage  delete the folder with all that is in it
#   delete          delete the cluster
#
#   --image IMAGE          REGION-docker.pkg.dev/PROJECT/REPOSITORY/NAME:TAG; for image, submit
#   --jax-extra EXTRA      tpu, cuda12 or cuda13; for image
#   --run-as USER          glpi, or root where only root may open the devices; for image (glpi)
#   --project, --zone, --cluster    for all others
#   --tpu-type TYPE        such as v5litepod-16; for cluster, submit
#   --device-type TYPE     such as h100-mega-80gb-8, instead of --tpu-type
#   --num-nodes N          of GPUs (1)
#   --spot, --reservation NAME    capacity of the cluster; on demand without them
#   --storage NAME         for storage, submit
#   --mount FOLDER         where the hosts see the storage (/mnt/glpi)
#   --size GB, --tier TIER of the storage (1024, BASIC_HDD)
#   --workload NAME        of the job; for submit, stop
#   --max-restarts N       for submit (50)
#   --dry-run              print the commands

set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

actions=" image cluster storage submit list stop delete-storage delete "
action=${1:-}
[[ $action != --help ]] || { show_help; exit 0; }
[[ $action && $actions == *" $action "* ]] || bad_arguments "the first word is one of$actions"
shift
image='' jax_extra='' run_as=glpi project='' zone='' cluster='' tpu_type='' device_type='' num_nodes=1
spot=no reservation='' storage='' mount=/mnt/glpi size=1024 tier=BASIC_HDD workload='' max_restarts=50
read_options "image jax-extra run-as project zone cluster tpu-type device-type num-nodes reservation
    storage mount size tier workload max-restarts" "spot" "$@"

if [[ $action == image ]]; then
    require image jax_extra run_as
    [[ $jax_extra =~ ^(tpu|cuda12|cuda13)$ ]] ||
        bad_arguments "--jax-extra $jax_extra: must be tpu, cuda12 or cuda13"
    checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
    run docker build --file "$checkout/launch/xpk/Dockerfile" --build-arg "JAX_EXTRA=$jax_extra" \
        --build-arg "RUN_AS=$run_as" --tag "$image" "$checkout"
    run docker push "$image"
    exit 0
fi

require project zone cluster
require_whole 1 num_nodes size
require_whole 0 max_restarts
where=("--project=$project" "--zone=$zone" "--cluster=$cluster")

# Sets `device` to the flags for the accelerators.
choose_device() {
    [[ $tpu_type || $device_type ]] || bad_arguments "--tpu-type or --device-type is missing"
    [[ -z $tpu_type || -z $device_type ]] ||
        bad_arguments "--tpu-type and --device-type exclude each other"
    if [[ $tpu_type ]]; then
        device=("--tpu-type=$tpu_type")
    else
        device=("--device-type=$device_type" "--num-nodes=$num_nodes")
    fi
}

submit() {
    local command
    # `exec` lets xpk's SIGTERM reach glpi. JAX finds the other hosts of a TPU slice by itself; for
    # GPU nodes xpk sets the variables. No double quotes: xpk puts the command between such.
    command="exec $(quoted glpi "${arguments[@]}")"
    [[ $command != *['"'\\$'\n']* ]] ||
        bad_arguments "xpk cannot pass on quotes, backslashes and newlines in the words after --"
    if [[ $tpu_type ]]; then
        command+=' --distributed auto'
    else
        # shellcheck disable=SC2016
        command+=' --coordinator $JAX_COORDINATOR_ADDRESS:$JAX_COORDINATOR_PORT --processes $NNODES'
        # shellcheck disable=SC2016
        command+=' --process $NODE_RANK'
    fi
    # 75 is a saved job that wants to go on, 1 one that lost a host; xpk adds 42 and 127 to 255.
    run xpk workload create "${where[@]}" "--workload=$workload" "${device[@]}" \
        "--docker-image=$image" "--storage=$storage" "--max-restarts=$max_restarts" \
        --restart-on-exit-codes=75,1 --termination-grace-period-seconds=120 "--command=$command"
}

case $action in
    cluster)
        choose_device
        capacity=(--on-demand)
        [[ $spot == no || -z $reservation ]] ||
            bad_arguments "--spot and --reservation exclude each other"
        [[ $spot == no ]] || capacity=(--spot)
        [[ -z $reservation ]] || capacity=("--reservation=$reservation")
        run xpk cluster create "${where[@]}" "${device[@]}" "${capacity[@]}" \
            --enable-gcpfilestore-csi-driver
        ;;
    storage)
        require storage mount tier
        run xpk storage create "$storage" "${where[@]}" --type=gcpfilestore --auto-mount=false \
            "--mount-point=$mount" --readonly=false "--size=$size" "--tier=$tier" \
            --access-mode=ReadWriteMany --vol=default
        ;;
    submit)
        require workload image storage
        require_arguments
        choose_device
        submit
        ;;
    list) run xpk workload list "${where[@]}" ;;
    stop)
        require workload
        run xpk workload delete "${where[@]}" "--workload=$workload"
        ;;
    delete-storage)
        require storage
        run xpk storage delete "$storage" "${where[@]}"
        ;;
    delete) run xpk cluster delete "${where[@]}" ;;
esac
