/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Copyright: (c) 2026, Packetwatch authors */
/* Bans: find the ban of a packet's source, and add a scan ban without evicting an unexpired one. */
#ifndef PACKETWATCH_BANS_H
#define PACKETWATCH_BANS_H

#include "protect.h"
#include "rate.h"

#define PW_OVERFLOW_NS (60ULL * 1000000000ULL)

static __always_inline void pw_source_widen(struct pw_source *source)
{
	source->plen = 64;
	source->addr.word[2] = 0;
	source->addr.word[3] = 0;
}

/* The source that tracks and bans know: an IPv4 address, or an IPv6 /64. It is the IPv6 address
 * alone if the /64 holds addresses that a ban must not affect. */
static __always_inline void pw_source_of(struct pw_packet *packet, struct pw_source *source)
{
	source->plen = 128;
	source->addr = packet->saddr;
	if (packet->family == PW_IPV6 &&
	    !(pw_net_flags(&packet->saddr) & (PW_NET_SINGLE | PW_NET_PROTECTED)))
		pw_source_widen(source);
}

/* The ban itself, or NULL if it has expired. */
static __always_inline struct pw_ban *pw_unexpired(struct pw_ban *ban, __u64 now)
{
	return ban && (!ban->expires || ban->expires > now) ? ban : 0;
}

/* The ban itself, or NULL if it leaves this packet alone. is_new: as in pw_ban_of. With a call of
 * pw_unexpired in here, Linux 6.1 does not know any more that the result is a pointer. */
static __always_inline struct pw_ban *pw_applies(struct pw_ban *ban, __u64 now, int is_new)
{
	if (!ban || (ban->expires && ban->expires <= now))
		return 0;
	return !is_new && ban->flags & PW_BAN_CONNECTIONS ? 0 : ban;
}

static __always_inline struct pw_ban *pw_ban_of_source(struct pw_shared *shared,
						       struct pw_source *source, __u64 now,
						       int is_new)
{
	struct pw_ban *ban = 0;
	if (shared->has_bans)
		ban = pw_applies(bans_get(source), now, is_new);
	if (!ban && shared->has_scan_bans) {
		ban = pw_unexpired(scan_bans_get(source), now);
		if (!ban)
			ban = pw_unexpired(overflow_get(source), now);
	}
	return ban;
}

/* The unexpired ban that covers the packet's source, or NULL. is_new: whether the packet may begin a
 * connection. */
static __always_inline struct pw_ban *pw_ban_of(struct pw_shared *shared, struct pw_packet *packet,
						__u64 now, int is_new)
{
	if (!pw_read_once(shared->has_bans) && !pw_read_once(shared->has_scan_bans))
		return 0;
	struct pw_source source = {.plen = 128, .addr = packet->saddr};
	struct pw_ban *ban = pw_ban_of_source(shared, &source, now, is_new);
	if (ban || packet->family != PW_IPV6)
		return ban;
	pw_source_widen(&source);
	return pw_ban_of_source(shared, &source, now, is_new);
}

/* Remove the source of a ring entry from scan_bans, to reuse the entry for the ban `next`. False if
 * the source's ban has not expired. */
static __always_inline int pw_ring_vacate(struct pw_source *entry, struct pw_ban *next)
{
	if (!entry->plen)
		return 1;
	struct pw_source former = *entry;
	struct pw_ban *old = scan_bans_get(&former);
	/* A source that was banned again has a newer entry, which owns its ban. */
	if (!old || old->slot != next->slot)
		return 1;
	if (pw_unexpired(old, next->since))
		return 0;
	scan_bans_delete(&former);
	return 1;
}

/*
 * Write the ban to scan_bans and its key to the next entry of the ring; false if that is
 * impossible. At the rate limit, the key that the entry holds has expired before the entry is
 * reused, even without the agent. It has not expired if ban_time was shortened in the meantime.
 */
static __always_inline int pw_ban_add_to_ring(struct pw_header *header, struct pw_shared *shared,
					      struct pw_source *source, struct pw_ban *ban)
{
	if (!header->ring_capacity ||
	    !pw_rate_allows(&shared->ban_tat, ban->since, header->ban_interval_ns,
			    header->ban_burst_ns))
		return 0;
	__u64 turn = __sync_fetch_and_add(&shared->ring_head, 1);
	ban->slot = turn % header->ring_capacity;
	struct pw_source *entry = scan_ring_get(ban->slot);
	if (!entry || !pw_ring_vacate(entry, ban) || scan_bans_set(source, ban))
		return 0;
	*entry = *source;
	return 1;
}

/* Write a scan ban, and return the flags of its event. Bans for which the ring has no entry are
 * short, and go to an LRU map of their own. */
static __always_inline __u32 pw_ban_add(struct pw_header *header, struct pw_shared *shared,
					struct pw_counters *counters, struct pw_source *source,
					struct pw_ban *ban)
{
	shared->has_scan_bans = 1;
	if (pw_ban_add_to_ring(header, shared, source, ban)) {
		counters->bans++;
		return 0;
	}
	ban->flags |= PW_BAN_OVERFLOW;
	if (!ban->expires || ban->expires - ban->since > PW_OVERFLOW_NS)
		ban->expires = ban->since + PW_OVERFLOW_NS;
	if (overflow_set(source, ban))
		counters->bans_failed++;
	else
		counters->bans_overflow++;
	return PW_EVENT_OVERFLOW;
}

#endif
