/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Copyright: (c) 2026, Packetwatch authors */
/* Bans: who is banned, and writing a scan ban that never pushes out an unexpired one. */
#ifndef PACKETWATCH_BANS_H
#define PACKETWATCH_BANS_H

#define PW_OVERFLOW_NS (60ULL * 1000000000ULL)

static __always_inline __u32 pw_net_flags(struct pw_addr *address)
{
	struct pw_net net = {.plen = 128, .addr = *address};
	__u32 *flags = nets_get(&net);
	return flags ? *flags : 0;
}

static __always_inline int pw_is_protected(struct pw_addr *address, __u64 now)
{
	struct pw_host *host = hosts_get(address);
	if (host && (!host->expires || host->expires > now))
		return 1;
	return pw_net_flags(address) & PW_NET_PROTECTED;
}

/* The source that a packet is tracked and banned as: IPv4 by address, IPv6 by /64 unless that
 * holds others whom a ban must not hit. */
static __always_inline void pw_source_of(struct pw_packet *packet, struct pw_source *source)
{
	source->plen = 128;
	source->addr = packet->saddr;
	if (packet->family == PW_IPV6 && !(pw_net_flags(&packet->saddr) & PW_NET_SINGLE)) {
		source->plen = 64;
		source->addr.word[2] = 0;
		source->addr.word[3] = 0;
	}
}

static __always_inline struct pw_ban *pw_live(struct pw_ban *ban, __u64 now)
{
	return ban && (!ban->expires || ban->expires > now) ? ban : 0;
}

static __always_inline struct pw_ban *pw_ban_of_source(struct pw_shared *shared,
						       struct pw_source *source, __u64 now)
{
	struct pw_ban *ban = 0;
	if (shared->has_bans)
		ban = pw_live(bans_get(source), now);
	if (!ban && shared->has_scan_bans) {
		ban = pw_live(scan_bans_get(source), now);
		if (!ban)
			ban = pw_live(overflow_get(source), now);
	}
	return ban;
}

/* The unexpired ban that covers the packet's source, NULL if there is none. */
static __always_inline struct pw_ban *pw_ban_of(struct pw_shared *shared, struct pw_packet *packet,
						__u64 now)
{
	if (!pw_read(shared->has_bans) && !pw_read(shared->has_scan_bans))
		return 0;
	struct pw_source source = {.plen = 128, .addr = packet->saddr};
	struct pw_ban *ban = pw_ban_of_source(shared, &source, now);
	if (ban || packet->family != PW_IPV6)
		return ban;
	source.plen = 64;
	source.addr.word[2] = 0;
	source.addr.word[3] = 0;
	return pw_ban_of_source(shared, &source, now);
}

/* Take the source that a ring entry holds out of scan_bans; false if its ban is not over. */
static __always_inline int pw_ring_vacate(struct pw_source *entry, struct pw_ban *next)
{
	if (!entry->plen)
		return 1;
	struct pw_source former = *entry;
	struct pw_ban *old = scan_bans_get(&former);
	/* A source banned anew has a newer entry: that one is its owner. */
	if (!old || old->slot != next->slot)
		return 1;
	if (pw_live(old, next->since))
		return 0;
	scan_bans_delete(&former);
	return 1;
}

/*
 * Write a scan ban and return its flags. The ring of keys takes one ban an entry; the rate limit
 * is such that the key which the next entry holds has expired before it is overwritten, whether
 * user space lives or not. It has not where ban_time was shortened since. Such bans, and those above
 * the rate, are short and go to an LRU map of their own.
 */
static __always_inline __u32 pw_ban_write(struct pw_header *header, struct pw_shared *shared,
					  struct pw_counters *counters, struct pw_source *source,
					  struct pw_ban *ban)
{
	shared->has_scan_bans = 1;
	if (header->ring_capacity && pw_rate_allows(&shared->ban_tat, ban->since,
						    header->ban_interval_ns, header->ban_burst_ns)) {
		__u64 turn = __sync_fetch_and_add(&shared->ring_head, 1);
		ban->slot = turn % header->ring_capacity;
		struct pw_source *entry = scan_ring_get(ban->slot);
		if (entry && pw_ring_vacate(entry, ban) && !scan_bans_set(source, ban)) {
			*entry = *source;
			counters->bans++;
			return 0;
		}
	}
	ban->flags = PW_BAN_OVERFLOW;
	if (!ban->expires || ban->expires - ban->since > PW_OVERFLOW_NS)
		ban->expires = ban->since + PW_OVERFLOW_NS;
	if (overflow_set(source, ban))
		counters->bans_failed++;
	else
		counters->bans_overflow++;
	return PW_EVENT_OVERFLOW;
}

#endif
