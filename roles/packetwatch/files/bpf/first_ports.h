/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Copyright: (c) 2026, Packetwatch authors */
/*
 * The first port of a source, in sets of four ways that fill a cache line. The source's hash
 * selects the set, and a new source evicts the oldest one there. The program writes by
 * compare-and-swap, first `stamp`, then `key`: if they hold parts of different hashes, a source is
 * just being replaced.
 */
#ifndef PACKETWATCH_FIRST_PORTS_H
#define PACKETWATCH_FIRST_PORTS_H

#include "window.h"

enum pw_first_result {
	PW_FIRST_KEPT = 0,  /* the set has the port */
	PW_FIRST_AGAIN = 1, /* another CPU was faster */
	PW_FIRST_MORE = 2,  /* the source has other ports: they are in scratch->new_track */
};

/* One round as in splitmix64 (Steele, Lea, Flood, OOPSLA 2014). */
static __always_inline __u64 pw_mix(__u64 hash, __u64 word)
{
	hash = (hash ^ word) * 0xbf58476d1ce4e5b9ULL;
	return hash ^ hash >> 32;
}

static __always_inline __u64 pw_source_hash(struct pw_source *source, struct pw_shared *shared)
{
	__u64 seed = pw_read_once(shared->seed);
	if (pw_unlikely(!seed)) {
		seed = (__u64)bpf_get_prandom_u32() << 32 | bpf_get_prandom_u32() | 1;
		__sync_val_compare_and_swap(&shared->seed, 0, seed);
		seed = pw_read_once(shared->seed);
	}
	__u64 hash = pw_mix(seed, (__u64)source->addr.word[0] << 32 | source->addr.word[1]);
	hash = pw_mix(hash, (__u64)source->addr.word[2] << 32 | source->addr.word[3]);
	return pw_mix(pw_mix(hash, source->plen), seed);
}

/* The set of the source; its hash goes to scratch->hash. */
static __always_inline struct pw_firsts *pw_first_set(struct pw_shared *shared,
						      struct pw_scratch *scratch)
{
	scratch->hash = pw_source_hash(&scratch->source, shared);
	return firsts_get(scratch->hash % PW_FIRST_SETS);
}

static __always_inline int pw_first_is_own(__u64 key, __u64 hash)
{
	return !((key ^ hash) >> 16);
}

/* A source and its port, what its set holds of them, and the oldest way of the set. */
struct pw_first_search {
	__u64 hash;
	__u64 port;
	__u64 own;     /* the source's stamp for now */
	__u64 old_key; /* of the oldest way, to replace it only if it has not changed since */
	__u64 old_stamp;
	int same; /* the port is in the set */
};

/* Search the set. The source's other ports go to scratch->new_track, their number to
 * scratch->fresh, the oldest way to scratch->index. */
static __always_inline void pw_first_find(struct pw_firsts *set, struct pw_scratch *scratch,
					  __u64 window, struct pw_first_search *found)
{
	__u64 hash = found->hash = scratch->hash;
	__u64 port = found->port = scratch->port;
	__u64 time = scratch->now >> 10 << 16;
	__u64 own = found->own = time | hash >> 48;
	__u64 oldest = ~0ULL >> 1;
	__u64 index = 0;
	scratch->fresh = 0;
	scratch->new_track.slot[PW_FIRST_WAYS] = time | port;
	for (int i = 0; i < PW_FIRST_WAYS; i++) {
		struct pw_first *way = &set->way[i];
		__u64 key = pw_read_once(way->key);
		__u64 stamp = pw_read_once(way->stamp);
		scratch->new_track.slot[i] = 0;
		if (pw_first_is_own(key, hash) && (stamp & 0xffff) == hash >> 48 &&
		    pw_in_window(stamp, scratch->now, window)) {
			if ((key & 0xffff) != port) {
				scratch->new_track.slot[i] = (stamp & ~0xffffULL) | (key & 0xffff);
				scratch->fresh++;
			} else {
				if ((__s64)(own - stamp) > 0)
					__sync_val_compare_and_swap(&way->stamp, stamp, own);
				found->same = 1;
			}
		}
		/* Without a branch, because the CPU cannot predict which way is the oldest. */
		__u64 age = key && !pw_first_is_own(key, hash) ? stamp >> 1 : 0;
		__u64 older = (__u64)((__s64)(age - oldest) >> 63);
		oldest ^= (oldest ^ age) & older;
		found->old_key ^= (found->old_key ^ key) & older;
		found->old_stamp ^= (found->old_stamp ^ stamp) & older;
		index ^= (index ^ i) & older;
	}
	/* From memory, so that the compiler keeps the mask that the verifier needs. */
	scratch->index = index;
}

/* Write the source and its port to the oldest way, unless another CPU has changed it since. */
static __always_inline int pw_first_replace(struct pw_firsts *set, struct pw_scratch *scratch,
					    struct pw_counters *counters, __u64 window,
					    struct pw_first_search *found)
{
	__u64 hash = found->hash;
	__u64 own = found->own;
	__u64 old_key = found->old_key;
	__u64 old_stamp = found->old_stamp;
	struct pw_first *way = &set->way[scratch->index % PW_FIRST_WAYS];
	if (old_key && pw_first_is_own(old_key, hash)) {
		/* Free the way first: the new stamp must not make the source's former port current
		 * again. */
		if (__sync_val_compare_and_swap(&way->key, old_key, 0) != old_key)
			return PW_FIRST_AGAIN;
		old_key = 0;
	}
	if (__sync_val_compare_and_swap(&way->stamp, old_stamp, own) != old_stamp)
		return PW_FIRST_AGAIN;
	if (__sync_val_compare_and_swap(&way->key, old_key, (hash & ~0xffffULL) | found->port) !=
	    old_key)
		return PW_FIRST_AGAIN;
	if (old_key && pw_in_window(old_stamp, scratch->now, window))
		counters->firsts_evicted++;
	return PW_FIRST_KEPT;
}

/* Keep the port if it is the source's first one within the window. */
static __always_inline int pw_first_try(struct pw_firsts *set, struct pw_scratch *scratch,
					struct pw_counters *counters, __u64 window)
{
	struct pw_first_search found = {};
	pw_first_find(set, scratch, window, &found);
	if (scratch->fresh)
		return PW_FIRST_MORE;
	if (found.same)
		return PW_FIRST_KEPT;
	return pw_first_replace(set, scratch, counters, window, &found);
}

/* Three attempts, but not as a loop; pw_track_port says why. */
static __always_inline int pw_first_port(struct pw_firsts *set, struct pw_scratch *scratch,
					 struct pw_counters *counters, __u64 window)
{
	int result = pw_first_try(set, scratch, counters, window);
	if (result == PW_FIRST_AGAIN)
		result = pw_first_try(set, scratch, counters, window);
	if (result == PW_FIRST_AGAIN)
		result = pw_first_try(set, scratch, counters, window);
	if (result == PW_FIRST_AGAIN)
		counters->tracks_failed++;
	return result;
}

static __always_inline void pw_first_remove(struct pw_firsts *set, __u64 hash)
{
	for (int i = 0; i < PW_FIRST_WAYS; i++) {
		struct pw_first *way = &set->way[i];
		__u64 key = pw_read_once(way->key);
		__u64 stamp = pw_read_once(way->stamp);
		if (pw_first_is_own(key, hash) && __sync_val_compare_and_swap(&way->key, key, 0) == key)
			__sync_val_compare_and_swap(&way->stamp, stamp, 0);
	}
}

#endif
