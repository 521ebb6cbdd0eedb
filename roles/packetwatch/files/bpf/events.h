/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Copyright: (c) 2026, Packetwatch authors */
/* Events for user space. They are limited: a flood costs look-ups, not log lines. */
#ifndef PACKETWATCH_EVENTS_H
#define PACKETWATCH_EVENTS_H

#include "rate.h"

#define PW_SAMPLE_NS 1000000000ULL             /* sampled: time between two events of a source */
#define PW_PROBE_NS 5000000ULL                 /* probes: 200 a second, */
#define PW_PROBE_BURST_NS (2000 * PW_PROBE_NS) /* with bursts of 2,000 */

/* The limit of one source. An IPv6 /64 has one limit. */
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

/* Fill in what all types have. */
static __always_inline void pw_event_fill(struct pw_event *event, struct pw_packet *packet,
					  __u64 now, __u64 sequence, __u32 type)
{
	event->time = now;
	event->sequence = sequence;
	event->expires = 0;
	event->ifindex = packet->ifindex;
	event->type = type;
	event->family = packet->family == PW_IPV4 ? 4 : 6;
	event->flags =
		packet->event_flags | (packet->upper == PW_UPPER_OPAQUE ? PW_EVENT_OPAQUE : 0);
	event->plen = 0;
	event->saddr = packet->saddr;
	event->daddr = packet->daddr;
	event->sport = packet->sport;
	event->dport = packet->dport;
	event->count = 0;
	event->listed = 0;
}

/* Reserve an event of `size` bytes and fill it. NULL if the ring buffer is full; the reader notices
 * by the gap in the sequence. */
static __always_inline struct pw_event *pw_event_begin(struct pw_shared *shared,
						       struct pw_counters *counters,
						       struct pw_packet *packet, __u64 now,
						       __u32 type, __u64 size)
{
	struct pw_event *event = events_reserve(size);
	if (!event) {
		pw_next_sequence(shared);
		counters->events_lost++;
		return 0;
	}
	pw_event_fill(event, packet, now, pw_next_sequence(shared), type);
	return event;
}

static __always_inline void pw_event_emit(struct pw_event *event, struct pw_counters *counters)
{
	counters->events++;
	events_submit(event);
}

static __always_inline void pw_log_connection(struct pw_header *header, struct pw_policy *policy,
					      struct pw_shared *shared,
					      struct pw_counters *counters,
					      struct pw_packet *packet, __u64 now)
{
	if (policy->log == PW_LOG_NONE)
		return;
	int sampled = policy->log == PW_LOG_SAMPLED;
	__u64 interval = sampled ? PW_SAMPLE_NS : header->source_interval_ns;
	__u64 burst = sampled ? 0 : header->source_burst_ns;
	/* The limit of all sources comes first: in a flood it stops most events without a look-up
	 * of their source. */
	if (pw_rate_is_full(&shared->event_tat, now, header->event_burst_ns) ||
	    !pw_source_rate_allows(packet, now, interval, burst) ||
	    !pw_rate_allows(&shared->event_tat, now, header->event_interval_ns,
			    header->event_burst_ns)) {
		counters->events_suppressed++;
		return;
	}
	struct pw_event *event =
		pw_event_begin(shared, counters, packet, now, PW_EVENT_CONNECTION, PW_EVENT_SHORT);
	if (event)
		pw_event_emit(event, counters);
}

/* Log a packet that only monitor mode lets pass, or one with too many tags, with its reason. It is
 * always a sample, unless its port is closed: the same packet may have taken its source's turn as a
 * connection. Other such packets do not count as suppressed: the packet counters have them all. */
static __always_inline void pw_log_would_drop(struct pw_header *header, struct pw_shared *shared,
					      struct pw_counters *counters,
					      struct pw_packet *packet, __u64 now, __u32 reason)
{
	int sampled = reason != PW_DROP_CLOSED;
	__u64 interval = sampled ? PW_SAMPLE_NS : header->source_interval_ns;
	__u64 burst = sampled ? 0 : header->source_burst_ns;
	if (!pw_source_rate_allows(packet, now, interval, burst) ||
	    !pw_rate_allows(&shared->event_tat, now, header->event_interval_ns,
			    header->event_burst_ns))
		return;
	struct pw_event *event =
		pw_event_begin(shared, counters, packet, now, PW_EVENT_WOULD_DROP, PW_EVENT_SHORT);
	if (!event)
		return;
	event->flags = PW_EVENT_MONITOR | pw_kind_of(packet) << PW_KIND_SHIFT;
	event->count = reason;
	pw_event_emit(event, counters);
}

/* The length of a source's prefix in its own family. */
static __always_inline __u8 pw_source_length(struct pw_scratch *scratch)
{
	return scratch->packet.family == PW_IPV4 ? 32 : scratch->source.plen;
}

/* Report a new probe to the agent, which counts those of hours. The limit is one of its own, so that
 * neither connections nor the policy's log take from it. */
static __always_inline void pw_report_probe(struct pw_shared *shared, struct pw_counters *counters,
					    struct pw_scratch *scratch)
{
	struct pw_event *event = 0;
	if (pw_rate_allows(&shared->probe_tat, scratch->now, PW_PROBE_NS, PW_PROBE_BURST_NS))
		event = events_reserve(PW_EVENT_SHORT);
	if (!event) {
		counters->probes_lost++;
		return;
	}
	pw_event_fill(event, &scratch->packet, scratch->now, 0, PW_EVENT_PROBE);
	event->flags |= pw_kind_of(&scratch->packet) << PW_KIND_SHIFT;
	event->plen = pw_source_length(scratch);
	counters->probes++;
	events_submit(event);
}

/* Log a scan with its ports. */
static __always_inline void pw_log_scan(struct pw_header *header, struct pw_shared *shared,
					struct pw_counters *counters, struct pw_scratch *scratch,
					__u64 now, __u64 expires)
{
	struct pw_packet *packet = &scratch->packet;
	/* Twice the burst: connections leave room for scans, which matter more. */
	if (!pw_rate_allows(&shared->event_tat, now, header->event_interval_ns,
			    2 * header->event_burst_ns)) {
		counters->events_suppressed++;
		return;
	}
	struct pw_event *event = pw_event_begin(shared, counters, packet, now, PW_EVENT_BAN,
						sizeof(struct pw_event));
	if (!event)
		return;
	event->flags |= pw_kind_of(packet) << PW_KIND_SHIFT;
	event->expires = expires;
	event->plen = pw_source_length(scratch);
	event->count = scratch->distinct;
	event->listed = scratch->listed;
	__builtin_memcpy(event->ports, scratch->ports, sizeof(event->ports));
	pw_event_emit(event, counters);
}

#endif
