# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A stand-in for systemd on simulated hosts, with only the commands that the collection and Ansible use.

It keeps the timer of pending changes, and runs the real one-shots that revert a change and attach.
"""

from __future__ import annotations

from pathlib import Path

FOLDERS = ("/run/systemd/system", "/run/systemd/transient", "/run/units")

RUN = """#!/bin/sh
while [ $# -gt 0 ]; do
    case "$1" in
        --on-active=*) seconds=${1#--on-active=} ;;
        --setenv=*) export "${1#--setenv=}" ;;
        --*) ;;
        *) break ;;
    esac
    shift
done
[ $# -gt 0 ] || {
    export PYTHONPATH=%s
    set -- /usr/bin/python3 -Ps -m packetwatch_agent rollback
}
timer=/run/systemd/transient/packetwatch-rollback.timer
# A timer that was stopped must not remove the next one.
is_ours() {
    [ "$(cat "$timer" 2>/dev/null)" = $$ ]
}
echo $$ >"$timer"
(
    sleep "${seconds%%s}"
    is_ours || exit
    "$@"
    ! is_ours || rm "$timer"
) >/run/rollback.log 2>&1 </dev/null &
"""
CONTROL = """#!/bin/sh
active=/run/units
wants=/etc/systemd/system/multi-user.target.wants
start() {
    case "$1" in
        packetwatch-xdp@*)
            name=${1#*@}
            export PYTHONPATH=%s
            /usr/bin/python3 -Ps -m packetwatch_agent attach "${name%%.service}" || exit ;;
    esac
    touch "$active/$1"
}
verb=$1
shift
case "$verb $*" in
    "stop packetwatch-rollback.timer")
        rm -f /run/systemd/transient/packetwatch-rollback.timer
        exit ;;
esac
for unit in "$@"; do
    case "$unit" in
        --now) now=1; continue ;;
        -*) continue ;;
    esac
    case "$verb" in
        show)
            [ -e "$active/$unit" ] && state=active || state=inactive
            [ -e "$wants/$unit" ] && file=enabled || file=disabled
            printf 'Id=%%s\nActiveState=%%s\nUnitFileState=%%s\n\n' "$unit" "$state" "$file" ;;
        enable) mkdir -p "$wants" && ln -sf /dev/null "$wants/$unit" ;;
        disable)
            rm -f "$wants/$unit"
            [ -z "$now" ] || rm -f "$active/$unit" ;;
        start|restart) start "$unit" ;;
        stop) rm -f "$active/$unit" ;;
    esac
done
"""


def write(folder: Path, software: str) -> str:
    """Write the commands, which run the software in a folder; return their folder, for PATH."""
    tools = folder / "tools"
    tools.mkdir()
    for name, text in (("systemd-run", RUN), ("systemctl", CONTROL)):
        (tools / name).write_text(text % software)
        (tools / name).chmod(0o755)
    return str(tools)
