/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Copyright: (c) 2026, Packetwatch authors */
/*
 * Scan detection: an exact sliding window over the distinct ports that a source has hit. A source
 * that is not banned has less than scan_ports live ports, so PW_TRACK_SLOTS slots are enough.
 */
#ifndef PACKETWATCH_DETECT_H
#define PACKETWATCH_DETECT_H

#include "firsts.h"

#define PW_OPEN_REFRESH_NS 1000000000ULL
#define PW_CLAIM_NS 100000000ULL

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

/* Does somebody serve the port, or did until scan_grace ago? */
static __always_inline int pw_served(struct xdp_md *context, struct pw_header *header,
				     struct pw_policy *policy, struct pw_packet *packet, __u64 now)
{
	if (header->published[packet->dport >> 6] >> (packet->dport & 63) & 1)
		return 1;
	__u64 *seen = open_ports_get(packet->dport);
	if (!seen)
		return 1;
	__u64 last = *seen;
	if (last && now - last < PW_OPEN_REFRESH_NS && PW_OPEN_REFRESH_NS <= policy->grace_ns)
		return 1;
	if (pw_listens(context, packet)) {
		*seen = now;
		return 1;
	}
	return last && (__s64)(now - last) < (__s64)policy->grace_ns;
}

/* What was found out about a port of ours within this tick of the clock, 4 ms as a rule: in a flood
 * nobody looks again for each packet. */
static __always_inline struct pw_closed *pw_closed_at(struct pw_scratch *scratch)
{
	return &scratch->closed[scratch->packet.dport % PW_CLOSED];
}

static __always_inline int pw_is_closed(struct pw_closed *known, struct pw_scratch *scratch)
{
	struct pw_packet *packet = &scratch->packet;
	return known->when == scratch->now && known->port == packet->dport &&
	       known->ifindex == packet->ifindex && known->family == packet->family &&
	       known->daddr.word[3] == packet->daddr.word[3] &&
	       known->daddr.word[2] == packet->daddr.word[2] &&
	       known->daddr.word[1] == packet->daddr.word[1] &&
	       known->daddr.word[0] == packet->daddr.word[0];
}

/* Does this packet count towards a scan? With `closed`, not while services may still start. */
static __always_inline int pw_counts(struct xdp_md *context, struct pw_header *header,
				     struct pw_policy *policy, struct pw_scratch *scratch)
{
	struct pw_packet *packet = &scratch->packet;
	if (policy->counts == PW_COUNTS_ANY)
		return 1;
	if (scratch->now < policy->grace_ns)
		return 0;
	struct pw_closed *known = pw_closed_at(scratch);
	if (packet->ports_known && pw_is_closed(known, scratch))
		return 1;
	if (!local_get(&packet->daddr))
		return 0;
	if (!packet->ports_known)
		return 1;
	if (pw_served(context, header, policy, packet, scratch->now))
		return 0;
	known->when = scratch->now;
	known->daddr = packet->daddr;
	known->ifindex = packet->ifindex;
	known->family = packet->family;
	known->port = packet->dport;
	return 1;
}

/* Put the port into the window: into its own slot, else into one that is free or stale. False if
 * another CPU took the slot meanwhile. */
static __always_inline int pw_track_try(struct pw_track *track, struct pw_scratch *scratch,
					__u64 window)
{
	scratch->index = PW_TRACK_SLOTS;
	for (int i = 0; i < PW_TRACK_SLOTS; i++) {
		__u64 slot = pw_read(track->slot[i]);
		if (slot && (slot & 0xffff) == scratch->port) {
			scratch->index = i;
			break;
		}
		if (scratch->index == PW_TRACK_SLOTS && !pw_fresh(slot, scratch->now, window))
			scratch->index = i;
	}
	__u64 index = scratch->index;
	if (index >= PW_TRACK_SLOTS)
		return 1;
	__u64 *place = &track->slot[index];
	__u64 old = pw_read(*place);
	__u64 now = scratch->now;
	__u64 port = scratch->port;
	__u64 stamp = (now >> 10) << 16 | port;
	if ((old & 0xffff) == port && (__s64)(old - stamp) >= 0)
		return 1; /* another CPU was later: its stamp is the newer one */
	if ((old & 0xffff) != port && pw_fresh(old, now, window))
		return 0;
	return __sync_val_compare_and_swap(place, old, stamp) == old;
}

/* Not a loop: Linux 6.1 refuses one whose body falls through to its head, as this one's would. */
static __always_inline void pw_track_port(struct pw_track *track, struct pw_scratch *scratch,
					  __u64 window)
{
	if (pw_track_try(track, scratch, window))
		return;
	if (pw_track_try(track, scratch, window))
		return;
	if (pw_track_try(track, scratch, window))
		return;
	pw_track_try(track, scratch, window);
}

/* How many distinct ports are in the window; two CPUs may have put one port into two slots. */
static __always_inline __u64 pw_track_count(struct pw_track *track, struct pw_scratch *scratch,
					    __u64 window, __u64 threshold)
{
	scratch->fresh = 0;
	for (int i = 0; i < PW_TRACK_SLOTS; i++)
		if (pw_fresh(pw_read(track->slot[i]), scratch->now, window))
			scratch->fresh++;
	if (scratch->fresh < threshold)
		return 0;

	scratch->distinct = 0;
	for (int i = 0; i < PW_TRACK_SLOTS; i++) {
		__u64 slot = pw_read(track->slot[i]);
		__u64 bit = 1ULL << (slot & 63);
		__u64 *word = &scratch->seen[slot >> 6 & 1023];
		if (pw_fresh(slot, scratch->now, window) && !(*word & bit)) {
			*word |= bit;
			scratch->ports[scratch->distinct % PW_TRACK_SLOTS] = slot;
			scratch->distinct++;
		}
	}
	/* By our list, not by the slots: another CPU may have changed those meanwhile. */
	for (int i = 0; i < PW_TRACK_SLOTS; i++)
		scratch->seen[scratch->ports[i] >> 6] = 0;
	return scratch->distinct;
}

/* The track of a source that has none; NULL if it needs none yet, or if there is no room. */
static __always_inline struct pw_track *pw_track_begin(struct pw_firsts *set,
						       struct pw_scratch *scratch,
						       struct pw_policy *policy,
						       struct pw_counters *counters)
{
	if (pw_first_port(set, scratch, counters, policy->window_ns) != PW_FIRST_MORE &&
	    policy->scan_ports > 1)
		return 0;
	if (!tracks_add(&scratch->source, &scratch->first)) {
		counters->tracks_inserted++;
		if (policy->scan_ports > scratch->fresh + 1)
			return 0;
	}
	struct pw_track *track = tracks_get(&scratch->source); /* or that of a CPU that was faster */
	if (!track)
		counters->tracks_failed++;
	return track;
}

/*
 * True on one of the CPUs whose packets have crossed the threshold at the same time: that one bans
 * and tells. Not for ever, as the kernel may meanwhile have given the track to another source.
 */
static __always_inline int pw_track_claim(struct pw_track *track, __u64 now)
{
	__u64 told = pw_read(track->told);
	if (told && (__s64)(now - told) < (__s64)PW_CLAIM_NS)
		return 0;
	return __sync_val_compare_and_swap(&track->told, told, now) == told;
}

#endif
