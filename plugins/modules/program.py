#!/usr/bin/python
# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: program
short_description: Attach the XDP filter to a network interface, or detach it
version_added: 1.0.0
author:
  - Packetwatch authors (@packetwatch)
description:
  - Loads the XDP program, attaches it to an interface and records the interface. If the role
    P(packetwatch.xdp.packetwatch#role) is installed, the program is attached again at boot.
  - An attached program is replaced in one step when its source has changed. No packet passes unfiltered meanwhile.
  - The filter needs no process. It stays attached until it is detached or the host is shut down.
  - A foreign program on the interface is named and left alone.
extends_documentation_fragment:
  - packetwatch.xdp._attributes
  - packetwatch.xdp._attributes.public
  - packetwatch.xdp._attributes.host
  - packetwatch.xdp._attributes.kernel
  - packetwatch.xdp._attributes.action
  - packetwatch.xdp._confirmation
requirements:
  - the Debian packages C(python3-bpfcc) and the headers of the running kernel on the managed host, unless the cache there has
    the bytecode of this source
options:
  interface:
    description:
      - Name of an Ethernet device, or of the loopback device.
      - Other devices have no Ethernet header, so that the program could not read their packets. They are refused.
      - The name must be printable UTF-8, without quotes and backslashes.
      - If the device is filtered under a former name, and no other device has that name, then what is declared under that name
        moves to this one.
    type: str
    required: true
  state:
    description:
      - V(attached) attaches the program, or replaces it.
      - V(detached) detaches it and removes the record of the interface. Its packets are not filtered any more.
    type: str
    choices: [attached, detached]
    default: attached
  mode:
    description:
      - V(native) runs the program in the device's driver, which is fastest. Some drivers reset the link for seconds when it is
        attached.
      - V(generic) runs it in the kernel's network stack, on any device.
      - V(auto) tries V(native) and falls back to V(generic). RV(reason) then says why.
      - V(dispatcher) makes the program a member of libxdp's dispatcher, beside XDP programs of other tools, see
        C(docs/neighbours.md). It needs the Debian package C(libxdp1). If the interface has no program yet, a dispatcher is
        made, in native mode if the driver has it. V(auto) never joins a dispatcher.
    type: str
    choices: [auto, native, generic, dispatcher]
    default: auto
  priority:
    description:
      - With O(mode=dispatcher), the place among the programs of the dispatcher. The program with the lowest number runs first. If
        omitted, it is V(10), and most other tools use V(50).
    type: int
  chain_call_actions:
    description:
      - With O(mode=dispatcher), the verdicts of this program after which the next program runs. If omitted, it is V(pass).
      - An empty list lets no program run after this one.
      - Packets that are dropped never reach the next program.
    type: list
    elements: str
    choices: [aborted, pass, tx, redirect]
  src:
    description:
      - A C file to load instead of the collection's own program, on the controller unless O(remote_src=true).
      - It must define C(packetwatch) and use the maps of the collection's C(maps_bcc.h), which is prepended to it. Headers that it
        includes in double quotes are read from its own folder if C(maps_bcc.h) is there too, else from the collection.
      - With O(remote_src=true) the file is used unchanged, without C(maps_bcc.h). It must not include headers in double quotes.
    type: path
  next:
    description:
      - The pin of an XDP program on the managed host, such as V(/sys/fs/bpf/balancer). Packets that the filter lets pass on this
        interface meet this program next, also those of allowed sources. Its verdict then holds.
      - It must have been loaded with C(BPF_F_XDP_HAS_FRAGS), as libbpf does for the section C(xdp.frags).
      - If the program is missing or unsuitable, the task warns and the interface is filtered without it. The program is put in its
        place by the next change, or within ten minutes of its appearance.
      - The name of another pin replaces the program in one step. Without O(next) and O(next_src) the interface has no next program.
    type: path
  next_src:
    description:
      - A C file, on the controller unless O(remote_src=true), whose function C(int next(struct xdp_md *context)) is the next program.
        It is compiled with bcc like O(src), and loaded again at boot. It is not given C(maps_bcc.h), and may declare maps of its own.
      - A file that does not compile, or that the kernel refuses, fails the task and changes nothing.
      - Headers that it includes in double quotes are read from its folder.
      - Interfaces with the same source share the program and its maps.
    type: path
  remote_src:
    description: Whether O(src) and O(next_src) are on the managed host.
    type: bool
    default: false
seealso:
  - module: packetwatch.xdp.change
  - module: packetwatch.xdp.access_lists
  - module: packetwatch.xdp.policy
  - module: packetwatch.xdp.host_info
"""

EXAMPLES = r"""
# Set the lists first: the program applies them as soon as it is attached.
- name: Filter packets that arrive on the uplink
  packetwatch.xdp.program:
    interface: eth0

# With ixgbe, i40e, ena and mlx5 this resets the link: seconds without network.
- name: Require the driver's mode
  packetwatch.xdp.program:
    interface: eth0
    mode: native

# A load balancer, loaded by xdp-loader, gets what Packetwatch lets through.
- name: Filter packets before the other XDP programs of this interface
  packetwatch.xdp.program:
    interface: eth0
    mode: dispatcher
    priority: 5

- name: Load a program of our own
  packetwatch.xdp.program:
    interface: eth0
    src: files/our_filter.bpf.c

- name: Hand what passes to the load balancer that has pinned its program
  packetwatch.xdp.program:
    interface: eth0
    next: /sys/fs/bpf/balancer

# Nothing is filtered on this interface afterwards.
- name: Stop filtering
  packetwatch.xdp.program:
    interface: eth0
    state: detached
"""

RETURN = r"""
interface:
  description: The interface.
  returned: success
  type: str
  sample: eth0
mode:
  description:
    - How the program is attached, V(native) or V(generic). V(none) if it is not attached.
    - V(dispatcher:PRIORITY:ACTIONS) if it is a member of a dispatcher, such as V(dispatcher:10:pass).
    - V(unknown until attached) in check mode if O(mode=auto) and the program is not attached yet, because only attaching shows it.
  returned: success
  type: str
  sample: native
reason:
  description: Why O(mode=auto) resulted in V(generic), in the words of the kernel or the driver. Else empty.
  returned: success
  type: str
  sample: "the driver has no native XDP (Operation not supported)"
program_id:
  description: The kernel's number of the attached program, as in C(bpftool prog). V(0) if no program is attached.
  returned: success
  type: int
  sample: 42
confirmed:
  description:
    - Whether the change is confirmed, so that boot reads it. Always V(true) for a task that has succeeded.
    - Not returned in check mode.
  returned: success
  type: bool
  sample: true
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.packetwatch.xdp.plugins.module_utils._declared.nexts import declared_next
from ansible_collections.packetwatch.xdp.plugins.module_utils._dispatcher.place import (
    mode_from_options,
)
from ansible_collections.packetwatch.xdp.plugins.module_utils._kernel.source import read_source
from ansible_collections.packetwatch.xdp.plugins.module_utils._module import (
    CONFIRMATION,
    confirmation,
    read_terms,
    run_module,
)

if t.TYPE_CHECKING:
    from ansible_collections.packetwatch.xdp.plugins.module_utils._base.types import Result
    from ansible_collections.packetwatch.xdp.plugins.module_utils._host.host import Host


def apply(module: AnsibleModule, host: Host) -> Result:
    """Attach or detach as the options say."""
    interface = module.params["interface"]
    terms = read_terms(module)
    if module.params["state"] == "detached":
        attachment = host.detach(interface, check=module.check_mode, terms=terms)
    else:
        path = module.params["src"]
        source = None if path is None else read_source(path)
        mode = mode_from_options(module.params)
        attachment = host.attach(
            interface,
            mode,
            source,
            following=declared_next(module.params["next"], module.params["next_src"]),
            check=module.check_mode,
            terms=terms,
        )
    result = {
        "changed": attachment.changed,
        "interface": attachment.interface,
        "mode": attachment.mode,
        "reason": attachment.reason,
        "program_id": attachment.program_id,
        "diff": {"before": attachment.before, "after": attachment.after},
    }
    for text in attachment.problems:
        module.warn(text)
    return result | confirmation(module, host, attachment.pending)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "interface": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["attached", "detached"], "default": "attached"},
            "mode": {
                "type": "str",
                "choices": ["auto", "native", "generic", "dispatcher"],
                "default": "auto",
            },
            "priority": {"type": "int"},
            "chain_call_actions": {
                "type": "list",
                "elements": "str",
                "choices": ["aborted", "pass", "tx", "redirect"],
            },
            "src": {"type": "path"},
            "next": {"type": "path"},
            "next_src": {"type": "path"},
            "remote_src": {"type": "bool", "default": False},
            **CONFIRMATION,
        },
        mutually_exclusive=[("next", "next_src")],
        supports_check_mode=True,
    )
    run_module(module, lambda host: apply(module, host))


if __name__ == "__main__":
    main()
