/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Copyright: (c) 2026, Packetwatch authors */
/* Closed ports: whether a packet is for a local port that no service has. */
#ifndef PACKETWATCH_CLOSED_PORTS_H
#define PACKETWATCH_CLOSED_PORTS_H

#include "protect.h"

/* Below, a port of another host may be that of a service: answers come from there. */
#define PW_CLIENT_PORTS 32768

/* The protocols that have published ports, as in pw_header. */
static __always_inline __u32 pw_published_index(__u32 upper)
{
	if (upper == PW_UPPER_UDP)
		return 1;
	return upper == PW_UPPER_SCTP ? 2 : 0;
}

/* Whether a socket of this host has the packet's connection or port. */
static __always_inline int pw_has_socket(struct xdp_md *context, struct pw_packet *packet)
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
	if (packet->upper == PW_UPPER_UDP) {
		struct bpf_sock *udp =
			bpf_sk_lookup_udp(context, &tuple, size, BPF_F_CURRENT_NETNS, 0);
		if (!udp)
			return 0;
		bpf_sk_release(udp);
		return 1;
	}
	struct bpf_sock *tcp = bpf_skc_lookup_tcp(context, &tuple, size, BPF_F_CURRENT_NETNS, 0);
	if (!tcp)
		return 0;
	bpf_sk_release(tcp);
	return 1;
}

/* Whether the port had a service when the agent last read the listeners, or after that. The end of
 * this service is unknown, perhaps because the agent has died. */
static __always_inline int pw_end_is_unknown(struct pw_shared *shared, __u64 last)
{
	__u64 read = pw_read_once(shared->listeners_read);
	return read && (__s64)(last - read) >= 0;
}

static __always_inline int pw_is_published(struct pw_header *header, struct pw_packet *packet)
{
	__u64 *ports = header->published[pw_published_index(packet->upper)];
	return ports[packet->dport >> 6] >> (packet->dport & 63) & 1;
}

/*
 * Of the kinds from PW_KIND_ACK on: whether the packet is neither an answer to this host, nor one to a
 * host for which it translates addresses, as far as that is known without a look-up. Segments and
 * datagrams count as answers if they come from the port of a service, or go to the port of a client.
 */
static __always_inline int pw_is_unexpected(struct pw_shared *shared, struct pw_packet *packet)
{
	__u64 stack = pw_read_once(shared->stack);
	if (packet->upper == PW_UPPER_SCTP)
		return stack && !(stack & PW_STACK_SCTP);
	if (packet->upper == PW_UPPER_PROTO)
		return stack && !(stack & PW_STACK_PROTOCOLS);
	return packet->sport >= PW_CLIENT_PORTS && packet->dport < (stack & PW_STACK_PORTS);
}

/* Whether a service has the port, or had it within the last scan_grace. */
static __always_inline int pw_is_served(struct xdp_md *context, struct pw_policy *policy,
					struct pw_shared *shared, struct pw_packet *packet,
					__u64 now)
{
	__u64 *seen = open_ports_get(packet->dport);
	if (!seen)
		return 1;
	__u64 last = *seen;
	if (last == now && policy->grace_ns)
		return 1; /* another packet found it open within this tick of the clock */
	if (pw_has_socket(context, packet)) {
		*seen = now;
		return 1;
	}
	if (!last || !policy->grace_ns)
		return 0;
	return (__s64)(now - last) < (__s64)policy->grace_ns || pw_end_is_unknown(shared, last);
}

/* The cache of closed ports, valid within one tick of the clock (usually 4 ms): in a flood, few SYNs
 * need the socket look-up. Other packets may belong to a socket that a SYN would not find. */
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
	int begins = packet->upper < PW_UPPER_ACK;
	if (begins && packet->ports_known && pw_closed_matches(known, scratch))
		return 1;
	if (!pw_is_local(shared, &packet->daddr))
		return 0;
	if (!packet->ports_known || packet->upper == PW_UPPER_PROTO)
		return 1;
	if (pw_is_published(header, packet))
		return 0;
	if (packet->upper == PW_UPPER_SCTP)
		return 1;
	if (pw_is_served(context, policy, shared, packet, scratch->now))
		return 0;
	if (begins)
		pw_closed_store(known, scratch);
	return 1;
}

#endif
