/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Copyright: (c) 2026, Packetwatch authors */
/* Scan detection: which packets count, when a source has scanned, and what follows. */
#ifndef PACKETWATCH_DETECT_H
#define PACKETWATCH_DETECT_H

#include "bans.h"
#include "closed_ports.h"
#include "events.h"
#include "known.h"
#include "tracks.h"

/* Whether the packet counts towards a scan. With `closed`, only a stealth packet does within
 * scan_grace after boot, because services may still start. */
static __always_inline int pw_counts_for_scan(struct xdp_md *context, struct pw_header *header,
					      struct pw_policy *policy, struct pw_shared *shared,
					      struct pw_scratch *scratch)
{
	struct pw_packet *packet = &scratch->packet;
	if (!(policy->kinds >> pw_kind_of(packet) & 1))
		return 0;
	if (policy->counts == PW_COUNTS_ANY)
		return packet->upper < PW_UPPER_ACK;
	if (packet->upper == PW_UPPER_STEALTH)
		return pw_is_local(shared, &packet->daddr);
	if (scratch->now < policy->grace_ns)
		return 0;
	if (packet->upper >= PW_UPPER_ACK && !pw_is_unexpected(shared, packet))
		return 0;
	return pw_hits_closed_port(context, header, policy, shared, scratch);
}

/* Drop a packet that counts, if its port is known to be closed and its source is not protected. */
static __always_inline void pw_close(struct pw_header *header, struct pw_policy *policy,
				     struct pw_shared *shared, struct pw_counters *counters,
				     struct pw_scratch *scratch)
{
	struct pw_packet *packet = &scratch->packet;
	if (!packet->ports_known ||
	    (packet->reason != PW_PASS_UNLISTED && packet->reason != PW_PASS_OPAQUE))
		return;
	if (pw_is_protected(&packet->saddr, scratch->now)) {
		packet->reason = PW_PASS_PROTECTED;
	} else if (policy->action == PW_ACTION_MONITOR) {
		packet->reason = PW_PASS_MONITOR_DENY;
		pw_log_would_drop(header, shared, counters, packet, scratch->now, PW_DROP_CLOSED);
	} else {
		packet->reason = PW_DROP_CLOSED;
	}
}

/* Handle a source that has reached the threshold: ban it, unless it is protected or the policy only
 * monitors, and log the scan. */
static __always_inline void pw_handle_scan(struct pw_header *header, struct pw_policy *policy,
					   struct pw_shared *shared, struct pw_counters *counters,
					   struct pw_scratch *scratch, struct pw_firsts *set,
					   struct pw_track *track)
{
	struct pw_packet *packet = &scratch->packet;
	struct pw_source *source = &scratch->source;
	__u64 now = scratch->now;
	__u32 kind = pw_kind_of(packet);
	struct pw_ban ban = {
		.since = now,
		.expires = now + policy->ban_ns,
		.ifindex = packet->ifindex,
		.ports = scratch->distinct,
		.origin = PW_ORIGIN_SCAN,
		.flags = kind << PW_KIND_SHIFT,
	};

	packet->reason = PW_DROP_SCAN;
	if (pw_is_protected(&packet->saddr, now)) {
		packet->reason = PW_PASS_PROTECTED;
		packet->event_flags = PW_EVENT_PROTECTED;
		ban.expires = 0;
	} else if (policy->action == PW_ACTION_MONITOR) {
		packet->reason = PW_PASS_MONITOR_SCAN;
		packet->event_flags = PW_EVENT_MONITOR;
		ban.expires = 0;
	} else if (pw_unexpired(scan_bans_get(source), now)) {
		return; /* another CPU has banned it meanwhile */
	}
	if (!pw_track_claim(track, now))
		return;
	counters->scans[kind]++;
	if (packet->reason == PW_DROP_SCAN)
		packet->event_flags = pw_ban_add(header, shared, counters, source, &ban);
	pw_log_scan(header, shared, counters, scratch, now, ban.expires);
	tracks_delete(source);
	pw_first_remove(set, scratch->hash);
}

/* Count the packet, and handle the scan if the source has reached the threshold. */
static __always_inline void pw_detect(struct pw_header *header, struct pw_policy *policy,
				      struct pw_shared *shared, struct pw_counters *counters,
				      struct pw_scratch *scratch)
{
	struct pw_packet *packet = &scratch->packet;
	pw_source_of(packet, &scratch->source);
	__u64 seed = pw_hash_seed(shared);
	/* A port of another protocol is another probe. */
	__u64 protocol = packet->upper > PW_UPPER_ACK ? packet->upper : 0;
	scratch->probe = pw_probe_of(packet, seed ^ protocol);
	struct pw_firsts *set = pw_first_set(scratch, seed);
	if (!set)
		return;
	/* Start the fetch of the set, which takes long, before the look-up of the track. */
	scratch->index = pw_read_once(set->way[0].stamp);
	struct pw_track *track = tracks_get(&scratch->source);
	scratch->is_new = 0;
	if (!track)
		track = pw_track_begin(set, scratch, policy, counters);
	if (track)
		pw_track_probe(track, scratch, policy->window_ns);
	if (scratch->is_new && packet->ports_known && policy->counts == PW_COUNTS_CLOSED)
		pw_report_probe(shared, counters, scratch);
	if (!track)
		return;
	if (pw_track_count(track, scratch, policy->window_ns, policy->scan_ports) >=
	    policy->scan_ports)
		pw_handle_scan(header, policy, shared, counters, scratch, set, track);
}

#endif
