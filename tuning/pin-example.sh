#!/usr/bin/env bash
# An example of pinning: which CPUs run the broker, and which take the network card's interrupts.
#
# Two layouts are worth trying; measure both.
#   the same CPUs: a packet is read by the shard on the CPU that received it, out of a warm cache. Best with as many
#       queues as shards, and when the CPUs have time left.
#   different CPUs: shards are not interrupted. Best when a few CPUs are kept free for the network.
set -euo pipefail
export LC_ALL=C

usage() {
    cat <<'TEXT'
Usage: pin-example.sh --nic NAME --broker CPUS --interrupts CPUS [--apply | --dry-run]

  --nic NAME         The network card, such as eth0
  --broker CPUS      CPUs of the shards, such as 0-3 or 0,2,4
  --interrupts CPUS  CPUs for the card's interrupts; the same as the broker's, or others
  --dry-run          Print the commands (this is the default)
  --apply            Set the interrupts, and print the commands that undo it. Needs root; the broker is not touched

Examples:
  pin-example.sh --nic eth0 --broker 0-3 --interrupts 0-3   # the same CPUs
  pin-example.sh --nic eth0 --broker 2-7 --interrupts 0-1   # two CPUs for the network
TEXT
}

fail() { # exit code, message
    echo "pin-example: $2" >&2
    exit "$1"
}

# 0-2,5 -> 0 1 2 5, each of them online
expand() { # option, list
    local range cpu
    [[ $2 =~ ^[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*$ ]] || fail 2 "$1 takes CPUs such as 0-3 or 0,2,4, not $2"
    for range in ${2//,/ }; do
        for ((cpu = 10#${range%-*}; cpu <= 10#${range#*-}; cpu++)); do
            [[ -d /sys/devices/system/cpu/cpu$cpu ]] || fail 1 "this machine has no CPU $cpu"
            echo "$cpu"
        done
    done
}

nic="" broker="" interrupts="" apply=0
while (($#)); do
    case $1 in
    --nic | --broker | --interrupts)
        (($# > 1)) || fail 2 "$1 takes a value"
        printf -v "${1#--}" %s "$2"
        shift
        ;;
    --apply) apply=1 ;;
    --dry-run) apply=0 ;;
    -h | --help)
        usage
        exit 0
        ;;
    *) fail 2 "unknown option $1; see pin-example.sh --help" ;;
    esac
    shift
done
[[ -n $nic && -n $broker && -n $interrupts ]] || fail 2 "--nic, --broker and --interrupts are needed; see pin-example.sh --help"
[[ -e /sys/class/net/$nic/device ]] || fail 1 "$nic is no network card of this machine"
text=$(expand --broker "$broker")
mapfile -t broker_cpus <<<"$text"
text=$(expand --interrupts "$interrupts")
mapfile -t interrupt_cpus <<<"$text"

# A virtio card has its interrupts one folder up.
folder=$(readlink -f "/sys/class/net/$nic/device")
[[ -d $folder/msi_irqs ]] || folder=${folder%/*}
[[ -d $folder/msi_irqs ]] || fail 1 "$nic has no interrupts of its own"
mapfile -t irqs < <(find "$folder/msi_irqs" -mindepth 1 -printf '%f\n' | sort -n)

echo "# 1. The interrupts of $nic. irqbalance would move them back: systemctl stop irqbalance"
undo=() position=0
for irq in "${irqs[@]}"; do
    file=/proc/irq/$irq/smp_affinity_list
    [[ -e $file ]] || continue
    cpu=${interrupt_cpus[position++ % ${#interrupt_cpus[@]}]}
    before=$(cat "$file")
    echo "echo $cpu >$file  # was $before"
    if ((apply)); then
        if { echo "$cpu" >"$file"; } 2>/dev/null; then
            undo+=("echo $before >$file")
        else
            echo "# refused: interrupt $irq belongs to its driver, or this needs root"
        fi
    fi
done

cat <<TEXT
# 2. The broker, on ${#broker_cpus[@]} CPUs: it starts one shard for each and pins it. By hand:
taskset -c $broker ringmq start --shards ${#broker_cpus[@]}
#    Under systemd: systemctl edit ringmq, and there
#    [Service]
#    CPUAffinity=$broker
TEXT

if ((${#undo[@]})); then
    echo "# To undo:"
    printf '%s\n' "${undo[@]}"
fi
