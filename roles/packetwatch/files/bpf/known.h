/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Copyright: (c) 2026, Packetwatch authors */
/*
 * Flows whose packets were not evidence a moment ago. An established connection that uses no
 * timestamps sends bare segments, and the look-up of its socket takes many times as long as all
 * else. So the answer is kept for 256 jiffies (1 s at 250 Hz): each CPU has an array of hashes, with
 * the time in the bits that are left over. The seed keeps attackers from choosing a hash.
 */
#ifndef PACKETWATCH_KNOWN_H
#define PACKETWATCH_KNOWN_H

#include "first_ports.h"

#define PW_KNOWN_SHIFT 8 /* jiffies */

/* The hash of a packet's addresses, ports and protocol. */
static __always_inline __u64 pw_flow_of(void *ip, void *ports, int family, __u32 protocol,
					__u64 seed)
{
	__u64 hash = seed ^ protocol;
	if (family == PW_IPV4) {
		struct iphdr *header = ip;
		hash = pw_mix(hash, (__u64)header->saddr << 32 | header->daddr);
	} else {
		struct ipv6hdr *header = ip;
		__u64 *source = (__u64 *)&header->saddr, *target = (__u64 *)&header->daddr;
		hash = pw_mix(pw_mix(hash, source[0]), source[1]);
		hash = pw_mix(pw_mix(hash, target[0]), target[1]);
	}
	return pw_mix(hash, *(__u32 *)ports);
}

static __always_inline __u64 pw_known_entry(__u64 flow)
{
	return flow >> 16 << 16 | (bpf_jiffies64() >> PW_KNOWN_SHIFT & 0xffff);
}

/* Whether the flow is known; otherwise keep its hash in `flow`, for pw_known_add. `ports` points to
 * the header after the one at `ip`. */
static __always_inline int pw_is_known(void *ip, void *ports, int family, __u32 protocol,
				       __u64 *flow)
{
	struct pw_scratch *scratch = scratch_get();
	struct pw_shared *shared = shared_get();
	if (!scratch || !shared)
		return 1;
	__u64 found = pw_flow_of(ip, ports, family, protocol, pw_hash_seed(shared));
	*flow = found;
	return scratch->known[found % PW_KNOWN_SLOTS] == pw_known_entry(found);
}

static __always_inline void pw_known_add(struct pw_scratch *scratch)
{
	__u64 flow = scratch->packet.flow;
	if (flow)
		scratch->known[flow % PW_KNOWN_SLOTS] = pw_known_entry(flow);
}

#endif
