/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Copyright: (c) 2026, Packetwatch authors */
/* Closed ports: whether a packet is for a local port that no service has. */
#ifndef PACKETWATCH_CLOSED_PORTS_H
#define PACKETWATCH_CLOSED_PORTS_H

#include "protect.h"

static __always_inline int pw_listens(struct xdp_md *context, struct pw_packet *packet)
{
	struct bpf_sock_tuple tuple = {};
	__u32 size;
	if (packet->family == PW_IPV4) {
		tuple.ipv4.saddr = packet->saddr.word[3];
		tuple.ipv4.daddr = packet->daddr.word[3];
		tuple.ipv4.sport = bpf_htons(packet->sport);
		tuple.ipv4.dport = bpf_htons(packet->dport);
		size = sizeof(tuple.ipv4);
	} else {
		__builtin_memcpy(tuple.ipv6.saddr, &packet->saddr, sizeof(tuple.ipv6.saddr));
		__builtin_memcpy(tuple.ipv6.daddr, &packet->daddr, sizeof(tuple.ipv6.daddr));
		tuple.ipv6.sport = bpf_htons(packet->sport);
		tuple.ipv6.dport = bpf_htons(packet->dport);
		size = sizeof(tuple.ipv6);
	}
	struct bpf_sock *found = bpf_skc_lookup_tcp(context, &tuple, size, BPF_F_CURRENT_NETNS, 0);
	if (!found)
		return 0;
	bpf_sk_release(found);
	return 1;
}

/* Whether the port had a service when the agent last read the listeners, or after that. The end of
 * this service is unknown, perhaps because the agent has died. */
static __always_inline int pw_end_is_unknown(struct pw_shared *shared, __u64 last)
{
	__u64 read = pw_read_once(shared->listeners_read);
	return read && (__s64)(last - read) >= 0;
}

/* Whether a service has the port, or had it within the last scan_grace. */
static __always_inline int pw_is_served(struct xdp_md *context, struct pw_header *header,
					struct pw_policy *policy, struct pw_shared *shared,
					struct pw_packet *packet, __u64 now)
{
	if (header->published[packet->dport >> 6] >> (packet->dport & 63) & 1)
		return 1;
	__u64 *seen = open_ports_get(packet->dport);
	if (!seen)
		return 1;
	__u64 last = *seen;
	if (last == now && policy->grace_ns)
		return 1; /* another packet found it open within this tick of the clock */
	if (pw_listens(context, packet)) {
		*seen = now;
		return 1;
	}
	if (!last || !policy->grace_ns)
		return 0;
	return (__s64)(now - last) < (__s64)policy->grace_ns || pw_end_is_unknown(shared, last);
}

/* The cache of closed ports, valid within one tick of the clock (usually 4 ms): in a flood, few
 * packets need the socket look-up. */
static __always_inline struct pw_closed *pw_closed_slot(struct pw_scratch *scratch)
{
	return &scratch->closed[scratch->packet.dport % PW_CLOSED_SLOTS];
}

static __always_inline int pw_closed_matches(struct pw_closed *known, struct pw_scratch *scratch)
{
	struct pw_packet *packet = &scratch->packet;
	return known->when == scratch->now && known->port == packet->dport &&
	       known->ifindex == packet->ifindex && known->family == packet->family &&
	       known->daddr.word[3] == packet->daddr.word[3] &&
	       known->daddr.word[2] == packet->daddr.word[2] &&
	       known->daddr.word[1] == packet->daddr.word[1] &&
	       known->daddr.word[0] == packet->daddr.word[0];
}

static __always_inline void pw_closed_store(struct pw_closed *known, struct pw_scratch *scratch)
{
	struct pw_packet *packet = &scratch->packet;
	known->when = scratch->now;
	known->daddr = packet->daddr;
	known->ifindex = packet->ifindex;
	known->family = packet->family;
	known->port = packet->dport;
}

/* Whether the address is this host's own, by itself or by a route. */
static __always_inline int pw_is_local(struct pw_shared *shared, struct pw_addr *address)
{
	if (local_get(address))
		return 1;
	return pw_read_once(shared->has_local_nets) && pw_net_flags(address) & PW_NET_LOCAL;
}

/* Whether the packet is for a closed port of this host. One without known ports counts as such. */
static __always_inline int pw_hits_closed_port(struct xdp_md *context, struct pw_header *header,
					       struct pw_policy *policy, struct pw_shared *shared,
					       struct pw_scratch *scratch)
{
	struct pw_packet *packet = &scratch->packet;
	struct pw_closed *known = pw_closed_slot(scratch);
	if (packet->ports_known && pw_closed_matches(known, scratch))
		return 1;
	if (!pw_is_local(shared, &packet->daddr))
		return 0;
	if (!packet->ports_known)
		return 1;
	if (pw_is_served(context, header, policy, shared, packet, scratch->now))
		return 0;
	pw_closed_store(known, scratch);
	return 1;
}

#endif
