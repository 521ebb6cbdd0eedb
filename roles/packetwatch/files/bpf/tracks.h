/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Copyright: (c) 2026, Packetwatch authors */
/*
 * Tracks: a sliding window of the distinct probes of a source. PW_TRACK_SLOTS slots are enough,
 * because an unbanned source has made fewer than scan_ports probes within the window.
 */
#ifndef PACKETWATCH_TRACKS_H
#define PACKETWATCH_TRACKS_H

#include "first_ports.h"
#include "window.h"

#define PW_CLAIM_NS 100000000ULL

/* Set scratch->index to the probe's own slot, or else to one that is free or stale; to
 * PW_TRACK_SLOTS if there is none. */
static __always_inline void pw_track_find(struct pw_track *track, struct pw_scratch *scratch,
					  __u64 window)
{
	__u64 now = scratch->now;
	scratch->index = PW_TRACK_SLOTS;
	for (int i = 0; i < PW_TRACK_SLOTS; i++) {
		__u64 slot = pw_read_once(track->slot[i]);
		if (slot && (__u32)slot == scratch->probe) {
			scratch->index = i;
			break;
		}
		if (scratch->index == PW_TRACK_SLOTS && !pw_in_window(slot, now, window))
			scratch->index = i;
	}
}

/* Write the probe to its slot. False if another CPU has taken the slot meanwhile. */
static __always_inline int pw_track_try(struct pw_track *track, struct pw_scratch *scratch,
					__u64 window)
{
	pw_track_find(track, scratch, window);
	__u64 index = scratch->index;
	if (index >= PW_TRACK_SLOTS)
		return 1;
	__u64 *place = &track->slot[index];
	__u64 old = pw_read_once(*place);
	__u64 now = scratch->now;
	__u64 probe = scratch->probe;
	__u64 new = pw_stamp(now) | probe;
	int is_new = !pw_in_window(old, now, window);
	if (!is_new) {
		if ((__u32)old != probe)
			return 0;
		if ((__s64)(old - new) >= 0)
			return 1; /* another CPU has written a newer time */
	}
	if (__sync_val_compare_and_swap(place, old, new) != old)
		return 0;
	if (is_new)
		scratch->is_new = 1;
	return 1;
}

/* Four attempts, but not as a loop: its body would fall through to its head, which Linux 6.1
 * refuses. */
static __always_inline void pw_track_probe(struct pw_track *track, struct pw_scratch *scratch,
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

/*
 * The number of distinct probes within the window, or 0 if fewer slots than the threshold hold one.
 * Two CPUs may have written one probe to two slots. Known probes are told apart by 16 bits. These
 * decide exactly between the ports of one address; of two ports of two addresses they are the same
 * once in 65,536.
 */
static __always_inline __u64 pw_track_count(struct pw_track *track, struct pw_scratch *scratch,
					    __u64 window, __u64 threshold)
{
	__u64 now = scratch->now;
	scratch->fresh = 0;
	for (int i = 0; i < PW_TRACK_SLOTS; i++)
		if (pw_in_window(pw_read_once(track->slot[i]), now, window))
			scratch->fresh++;
	if (scratch->fresh < threshold)
		return 0;

	scratch->distinct = 0;
	scratch->listed = 0;
	for (int i = 0; i < PW_TRACK_SLOTS; i++) {
		__u64 slot = pw_read_once(track->slot[i]);
		if (!pw_in_window(slot, now, window))
			continue;
		if (slot & PW_PROBE_HIDDEN) {
			scratch->distinct++;
			continue;
		}
		__u64 folded = (slot ^ slot >> 16) & 0xffff;
		__u64 bit = 1ULL << (folded & 63);
		__u64 *word = &scratch->seen[folded >> 6];
		if (*word & bit)
			continue;
		*word |= bit;
		scratch->folded[scratch->listed % PW_TRACK_SLOTS] = folded;
		scratch->ports[scratch->listed % PW_TRACK_SLOTS] = slot;
		scratch->listed++;
		scratch->distinct++;
	}
	/* From our own list, because another CPU may have changed the slots meanwhile. */
	for (int i = 0; i < PW_TRACK_SLOTS; i++)
		scratch->seen[scratch->folded[i] >> 6] = 0;
	return scratch->distinct;
}

/* The track of a source that has none. NULL if it does not need one yet, or if the map is full. */
static __always_inline struct pw_track *pw_track_begin(struct pw_firsts *set,
						       struct pw_scratch *scratch,
						       struct pw_policy *policy,
						       struct pw_counters *counters)
{
	if (pw_first_probe(set, scratch, counters, policy->window_ns) != PW_FIRST_MORE &&
	    policy->scan_ports > 1)
		return 0;
	if (!tracks_add(&scratch->source, &scratch->new_track)) {
		counters->tracks_inserted++;
		if (policy->scan_ports > scratch->fresh + 1)
			return 0;
	}
	/* Ours, or that of another CPU that was faster. */
	struct pw_track *track = tracks_get(&scratch->source);
	if (!track)
		counters->tracks_failed++;
	return track;
}

/*
 * True on one of the CPUs whose packets have reached the threshold at the same time: that CPU bans
 * and logs. A claim ends, because the kernel may give the track's memory to another source.
 */
static __always_inline int pw_track_claim(struct pw_track *track, __u64 now)
{
	__u64 claimed = pw_read_once(track->claimed);
	if (claimed && (__s64)(now - claimed) < (__s64)PW_CLAIM_NS)
		return 0;
	return __sync_val_compare_and_swap(&track->claimed, claimed, now) == claimed;
}

#endif
