/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Copyright: (c) 2026, Packetwatch authors */
/* Events to user space, within limits: a flood costs lookups, not log lines. */
#ifndef PACKETWATCH_EVENTS_H
#define PACKETWATCH_EVENTS_H

/* Sampled: one event of a source in so long. */
#define PW_SAMPLE_NS 1000000000ULL

/*
 * Generic cell rate algorithm (ITU-T I.371): *tat is when the next one would be due at the exact
 * rate. True, and *tat moved on by `interval`, if that is not further ahead than `burst`.
 */
static __always_inline int pw_rate_allows(__u64 *tat, __u64 now, __u64 interval, __u64 burst)
{
	for (int i = 0; i < 4; i++) {
		__u64 old = pw_read(*tat);
		__u64 due = (__s64)(old - now) > 0 ? old : now;
		if (due - now > burst)
			return 0;
		if (__sync_val_compare_and_swap(tat, old, due + interval) == old)
			return 1;
	}
	return 0;
}

/* Whether that would be false, without moving on. */
static __always_inline int pw_rate_is_full(__u64 *tat, __u64 now, __u64 burst)
{
	return (__s64)(pw_read(*tat) - now) > (__s64)burst;
}

/* The limit of one source, an IPv6 /64 as a whole. */
static __always_inline int pw_source_rate_allows(struct pw_packet *packet, __u64 now,
						 __u64 interval, __u64 burst)
{
	struct pw_addr key = packet->saddr;
	if (packet->family == PW_IPV6)
		key.word[2] = key.word[3] = 0;
	__u64 *tat = rates_get(&key);
	if (tat)
		return pw_rate_allows(tat, now, interval, burst);
	__u64 first = now + interval;
	rates_set(&key, &first);
	return 1;
}

static __always_inline __u64 pw_next_sequence(struct pw_shared *shared)
{
	return __sync_fetch_and_add(&shared->sequence, 1) + 1;
}

/* No room in the ring: the gap in the sequence tells the reader. */
static __always_inline void pw_event_lost(struct pw_shared *shared, struct pw_counters *counters)
{
	pw_next_sequence(shared);
	counters->events_lost++;
}

static __always_inline void pw_event_fill(struct pw_event *event, struct pw_shared *shared,
					  struct pw_packet *packet, __u64 now, __u32 type)
{
	event->time = now;
	event->sequence = pw_next_sequence(shared);
	event->expires = 0;
	event->ifindex = packet->ifindex;
	event->type = type;
	event->family = packet->family == PW_IPV4 ? 4 : 6;
	event->flags = packet->flags | (packet->upper == PW_UPPER_OPAQUE ? PW_EVENT_OPAQUE : 0);
	event->plen = 0;
	event->saddr = packet->saddr;
	event->daddr = packet->daddr;
	event->sport = packet->sport;
	event->dport = packet->dport;
	event->count = 0;
	event->listed = 0;
}

/* One event for a new connection. */
static __always_inline void pw_log_connection(struct pw_header *header, struct pw_policy *policy,
					      struct pw_shared *shared, struct pw_counters *counters,
					      struct pw_packet *packet, __u64 now)
{
	if (policy->log == PW_LOG_NONE)
		return;
	int sampled = policy->log == PW_LOG_SAMPLED;
	__u64 interval = sampled ? PW_SAMPLE_NS : header->source_interval_ns;
	__u64 burst = sampled ? 0 : header->source_burst_ns;
	/* In a flood nearly all events end here: their sources need not be looked up, let alone kept. */
	if (pw_rate_is_full(&shared->event_tat, now, header->event_burst_ns) ||
	    !pw_source_rate_allows(packet, now, interval, burst) ||
	    !pw_rate_allows(&shared->event_tat, now, header->event_interval_ns,
			    header->event_burst_ns)) {
		counters->events_suppressed++;
		return;
	}
	struct pw_event *event = events_reserve(PW_EVENT_SHORT);
	if (!event) {
		pw_event_lost(shared, counters);
		return;
	}
	pw_event_fill(event, shared, packet, now, PW_EVENT_CONNECTION);
	counters->events++;
	events_submit(event);
}

/* A packet that passes only because we monitor, `reason` says what would have hit it. Always a sample,
 * whose rest does not count as suppressed: the packets' counters have them all. */
static __always_inline void pw_log_would_drop(struct pw_header *header, struct pw_shared *shared,
					      struct pw_counters *counters,
					      struct pw_packet *packet, __u64 now, __u32 reason)
{
	if (!pw_source_rate_allows(packet, now, PW_SAMPLE_NS, 0) ||
	    !pw_rate_allows(&shared->event_tat, now, header->event_interval_ns,
			    header->event_burst_ns))
		return;
	struct pw_event *event = events_reserve(PW_EVENT_SHORT);
	if (!event) {
		pw_event_lost(shared, counters);
		return;
	}
	pw_event_fill(event, shared, packet, now, PW_EVENT_WOULD_DROP);
	event->flags = PW_EVENT_MONITOR;
	event->count = reason;
	counters->events++;
	events_submit(event);
}

/* One event for a scan, with the ports that were counted. */
static __always_inline void pw_log_scan(struct pw_header *header, struct pw_shared *shared,
					struct pw_counters *counters, struct pw_scratch *scratch,
					struct pw_source *source, __u64 now, __u64 expires)
{
	struct pw_packet *packet = &scratch->packet;
	/* Twice the burst: connections leave room for what matters more. */
	if (!pw_rate_allows(&shared->event_tat, now, header->event_interval_ns,
			    2 * header->event_burst_ns)) {
		counters->events_suppressed++;
		return;
	}
	struct pw_event *event = events_reserve(sizeof(struct pw_event));
	if (!event) {
		pw_event_lost(shared, counters);
		return;
	}
	pw_event_fill(event, shared, packet, now, PW_EVENT_BAN);
	event->expires = expires;
	event->plen = packet->family == PW_IPV4 ? 32 : source->plen;
	event->count = scratch->distinct;
	event->listed = scratch->distinct;
	__builtin_memcpy(event->ports, scratch->ports, sizeof(event->ports));
	counters->events++;
	events_submit(event);
}

#endif
