# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

_packetwatchctl() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} options
    COMPREPLY=()
    if ((COMP_CWORD == 1)); then
        mapfile -t COMPREPLY < <(compgen -W 'status lists allow deny remove apply confirm rollback ban unban
            bans protect top watch why fleet hosts selftest replay --fleet --help --version' -- "$word")
        return
    fi
    if [[ ${COMP_WORDS[1]} == --fleet ]]; then
        if ((COMP_CWORD == 2)); then
            mapfile -t COMPREPLY < <(cd ~/.config/packetwatch/fleets 2>/dev/null && compgen -f -- "$word")
            return
        elif ((COMP_CWORD == 3)); then
            mapfile -t COMPREPLY < <(compgen -W 'bans ban unban why lists hosts' -- "$word")
            return
        fi
    fi
    case $before in
    --action) options='connection probe ban scan scan_end would_drop would_drop_end expiry lift drift repair next_program audit' ;;
    --list) options='allow deny' ;;
    --scan-counts) options='closed any' ;;
    --interface) options=$(cd /sys/class/net 2>/dev/null && echo *) ;;
    --comment | --expires | --for | --reason | --interval | --most | --source | --count) return ;;
    *)
        case ${COMP_WORDS[1]} in
        lists) options='--entries' ;;
        allow | deny) options='--comment --expires --check --force' ;;
        remove) options='--list --check --force' ;;
        apply) options='--check --force' ;;
        ban) options='--for --reason' ;;
        unban) options='--reason' ;;
        top) options='--once --interval --most' ;;
        watch) options='--action --source --count' ;;
        fleet) options='--release' ;;
        selftest) options='--interface -4 -6' ;;
        replay)
            options='--scan-ports --scan-window --scan-counts --scan-kinds --slow-scan-ports --slow-scan-window
                --ban-time --ban-time-max --recorded-window --spare'
            ;;
        esac
        options+=' --json --help'
        ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$options" -- "$word")
}

complete -o default -F _packetwatchctl packetwatchctl
