#!/usr/bin/env bash
# Run a job in several processes on this machine, as if each were a host of its own.
#
#     launch/local.sh --processes 2 --gpus 0,1,2,3 -- train --config F --workdir W
#     launch/local.sh --processes 2 --cpu-devices 2 -- train --config F --workdir W
#
# The words after -- go to glpi, and to each process where it finds the others. Its output goes to
# stdout, after its number, and to LOGS/process_I.log. When a process fails, the others are ended,
# and the exit code is that of the first failure. Code 75 (stopped by SIGTERM, saved) starts all of
# them again, and they resume; code 2 (bad input) never does. SIGTERM, SIGINT and SIGHUP are
# passed on as SIGTERM, and nothing is started again.
#
#   --processes N      how many (1; without the options below one process uses all devices)
#   --gpus LIST        GPUs, such as 0,1,2,3, that the processes share out evenly
#   --cpu-devices K    no GPUs but K virtual CPU devices for each process, to try things out
#   --port PORT        where process 0 coordinates, on 127.0.0.1 (12321)
#   --logs FOLDER      of the log files, which are appended to (runs/logs)
#   --restarts N       starts after other failures, crashes for example (0)
#   --grace SECONDS    from SIGTERM to SIGKILL (120)
#   --command PROGRAM  run instead of glpi
#   --dry-run          print the commands

set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

processes=1 gpus='' cpu_devices='' port=12321 logs=runs/logs restarts=0 grace=120 command=glpi
read_options "processes gpus cpu-devices port logs restarts grace command" "" "$@"
require_arguments
require logs command
require_whole 1 processes port
require_whole 0 restarts grace
[[ -z $gpus || -z $cpu_devices ]] || bad_arguments "--gpus and --cpu-devices exclude each other"
[[ -z $cpu_devices ]] || require_whole 1 cpu_devices
((processes == 1)) || [[ $gpus$cpu_devices ]] ||
    bad_arguments "--processes $processes: --gpus or --cpu-devices has to say what they share"
[[ $gpus =~ ^([^,]+(,[^,]+)*)?$ ]] || bad_arguments "--gpus $gpus: must be like 0,1,2,3"
IFS=, read -r -a devices <<<"$gpus"
((${#devices[@]} % processes == 0)) ||
    bad_arguments "--gpus $gpus: ${#devices[@]} do not share out evenly over $processes processes"

# Sets `line` to the command line of a process.
command_line() {
    local index=$1 each=$((${#devices[@]} / processes)) share
    line=()
    if [[ $gpus ]]; then
        share=$(IFS=,; echo "${devices[*]:index * each:each}")
        line+=(env "CUDA_VISIBLE_DEVICES=$share")
    elif [[ $cpu_devices ]]; then
        local flag=--xla_force_host_platform_device_count=$cpu_devices
        line+=(env JAX_PLATFORMS=cpu "XLA_FLAGS=${XLA_FLAGS:+$XLA_FLAGS }$flag")
    fi
    line+=("$command" "${arguments[@]}")
    ((processes == 1)) ||
        line+=(--coordinator "127.0.0.1:$port" --processes "$processes" --process "$index")
}

if [[ $dry_run == yes ]]; then
    run mkdir -p "$logs"
    for ((index = 0; index < processes; index++)); do
        command_line "$index"
        echo "$(quoted "${line[@]}") >>$(quoted "$logs/process_$index.log") 2>&1 &"
    done
    echo wait
    exit 0
fi

copy_lines() {
    local index=$1 text
    trap '' INT TERM HUP # the last lines come after the signal
    while IFS= read -r text || [[ $text ]]; do
        printf '%s\n' "$text" >&3
        printf '[%s] %s\n' "$index" "$text"
    done 3>>"$logs/process_$index.log"
}

start() {
    local index=$1 output
    command_line "$index"
    exec {output}> >(copy_lines "$index")
    copiers+=($!)
    # In a process group of its own, so that Ctrl-C reaches it as SIGTERM, once, from here.
    set -m
    "${line[@]}" </dev/null >&"$output" 2>&1 &
    set +m
    running[index]=$!
    [[ $stopping == no ]] || end_all # the signal came meanwhile
    exec {output}>&-
}

end_all() {
    ((${#running[@]})) || return 0
    kill -TERM "${running[@]}" 2>/dev/null || true
    deadline=$((SECONDS + grace))
}

# Runs all processes to their end; sets `failure` to the code of the first that failed, or 0.
run_all() {
    local index code pid
    running=() copiers=() failure=0 deadline=
    for ((index = 0; index < processes; index++)); do
        [[ $stopping == yes ]] || start "$index"
    done
    while ((${#running[@]})); do
        for index in "${!running[@]}"; do
            pid=${running[index]}
            ! kill -0 "$pid" 2>/dev/null || continue
            code=0
            wait "$pid" || code=$?
            unset "running[index]"
            say "process $index ended with code $code"
            if ((code != 0 && failure == 0)); then
                failure=$code
                end_all
            fi
        done
        if [[ $deadline ]] && ((SECONDS >= deadline)); then
            for pid in "${running[@]}"; do kill -KILL -- "-$pid" 2>/dev/null || true; done
        fi
        sleep 0.1 || true
    done
    wait "${copiers[@]}" 2>/dev/null || true
}

mkdir -p "$logs"
stopping=no running=()
trap 'stopping=yes; end_all' TERM INT HUP
while run_all; [[ $stopping == no ]]; do
    case $failure in
        0 | 2) break ;;
        75) say "stopped and saved: starting again" ;;
        *)
            ((restarts > 0)) || break
            say "code $failure: starting again, $((--restarts)) such starts are left"
            ;;
    esac
done
exit "$failure"
