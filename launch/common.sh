# shellcheck shell=bash
# Sourced by the other scripts: their help, options and --dry-run. Bash 4.4 or newer.

dry_run=no
arguments=() # the words after --

# The comment at the head of a script is its help.
show_help() {
    sed -n '2,/^$/s/^# \{0,1\}//p' "$0"
}

bad_arguments() {
    echo "${0##*/}: $*; --help says more" >&2
    exit 2
}

say() {
    echo "${0##*/}: $*" >&2
}

# read_options OPTIONS SWITCHES WORD...: of the words, `--some-name X` and `--some-name=X` set the
# variable some_name to X if OPTIONS lists the name, `--switch` sets switch=yes if SWITCHES does.
read_options() {
    # Underscores, for these must not hide the variables that are set.
    local _options=" ${1//$'\n'/ } " _switches=" $2 dry-run " _name _value
    shift 2
    while (($#)); do
        [[ $1 != --help ]] || { show_help; exit 0; }
        [[ $1 != -- ]] || { arguments=("${@:2}"); return 0; }
        [[ $1 == --?* ]] || bad_arguments "unknown argument: $1"
        _name=${1%%=*} _name=${_name#--}
        if [[ $_switches == *" $_name "* && $1 != *=* ]]; then
            _value=yes
        elif [[ $_options != *" $_name "* ]]; then
            bad_arguments "unknown option: $1"
        elif [[ $1 == *=* ]]; then
            _value=${1#*=}
        else
            (($# > 1)) || bad_arguments "$1 needs a value"
            _value=$2
            shift
        fi
        shift
        printf -v "${_name//-/_}" %s "$_value"
    done
}

# require NAME...: options that have no default.
require() {
    local _name
    for _name; do
        [[ ${!_name} ]] || bad_arguments "--${_name//_/-} is missing"
    done
}

# require_whole LEAST NAME...: options that are whole numbers, LEAST or more.
require_whole() {
    local _least=$1 _name
    for _name in "${@:2}"; do
        if ! [[ ${!_name} =~ ^(0|[1-9][0-9]{0,8})$ ]] || ((${!_name} < _least)); then
            bad_arguments "--${_name//_/-} ${!_name}: must be a whole number, $_least or more"
        fi
    done
}

require_arguments() {
    ((${#arguments[@]})) || bad_arguments "what glpi is to do is missing: -- train --config …"
}

# The words as a shell reads them, on one line.
quoted() {
    local word line=
    for word; do
        [[ $word =~ ^[A-Za-z0-9_./:,=@%+-]+$ ]] || word="'${word//\'/\'\\\'\'}'"
        line+="${line:+ }$word"
    done
    printf '%s\n' "$line"
}

# Runs a command, or prints it with --dry-run.
run() {
    if [[ $dry_run == yes ]]; then quoted "$@"; else "$@"; fi
}

# Under Slurm: runs a job step with the job's CPUs, and puts the job back into the queue if it was
# stopped and saved. A job that was cancelled does not come here: scancel ends its script as well.
run_step() {
    local code=0
    # srun does not take this over from sbatch.
    set -- "--cpus-per-task=${SLURM_CPUS_PER_TASK:-8}" "$@"
    if [[ $dry_run == yes ]]; then
        run srun "$@"
        echo '# if that exits with code 75'
        # shellcheck disable=SC2016
        echo 'scontrol requeue "$SLURM_JOB_ID"'
        return 0
    fi
    [[ ${SLURM_JOB_ID:-} ]] || bad_arguments "is submitted with sbatch; only --dry-run works without"
    srun "$@" || code=$?
    if ((code == 75)); then
        say "stopped and saved: back into the queue"
        scontrol requeue "$SLURM_JOB_ID"
    fi
    return "$code"
}
