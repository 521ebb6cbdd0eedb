/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Copyright: (c) 2026, Packetwatch authors */
/*
 * The first probe of a source, in sets of four ways that fill a cache line. The source's hash
 * selects the set, and a new source evicts the oldest one there. The program writes by
 * compare-and-swap, first `stamp`, then `key`: if they hold parts of different hashes, a source is
 * just being replaced.
 */
#ifndef PACKETWATCH_FIRST_PORTS_H
#define PACKETWATCH_FIRST_PORTS_H

#include "window.h"

enum pw_first_result {
	PW_FIRST_KEPT = 0,  /* the set has the probe */
	PW_FIRST_AGAIN = 1, /* another CPU was faster */
	PW_FIRST_MORE = 2,  /* the source has made others: they are in scratch->new_track */
};

/* One round as in splitmix64 (Steele, Lea, Flood, OOPSLA 2014). */
static __always_inline __u64 pw_mix(__u64 hash, __u64 word)
{
	hash = (hash ^ word) * 0xbf58476d1ce4e5b9ULL;
	return hash ^ hash >> 32;
}

static __always_inline __u64 pw_hash_seed(struct pw_shared *shared)
{
	__u64 seed = pw_read_once(shared->seed);
	if (pw_unlikely(!seed)) {
		seed = (__u64)bpf_get_prandom_u32() << 32 | bpf_get_prandom_u32() | 1;
		__sync_val_compare_and_swap(&shared->seed, 0, seed);
		seed = pw_read_once(shared->seed);
	}
	return seed;
}

static __always_inline __u64 pw_address_hash(struct pw_addr *address, __u64 seed)
{
	__u64 hash = pw_mix(seed, (__u64)address->word[0] << 32 | address->word[1]);
	return pw_mix(hash, (__u64)address->word[2] << 32 | address->word[3]);
}

/* The packet as a probe: abi.h describes it. */
static __always_inline __u32 pw_probe_of(struct pw_packet *packet, __u64 seed)
{
	if (!packet->ports_known)
		return PW_PROBE_HIDDEN | bpf_get_prandom_u32();
	return (__u32)(pw_address_hash(&packet->daddr, seed) >> 49) << 16 | packet->dport;
}

/* The set of the source; its hash goes to scratch->hash. */
static __always_inline struct pw_firsts *pw_first_set(struct pw_scratch *scratch, __u64 seed)
{
	struct pw_source *source = &scratch->source;
	__u64 hash = pw_mix(pw_address_hash(&source->addr, seed), source->plen);
	scratch->hash = pw_mix(hash, seed);
	return firsts_get(scratch->hash % PW_FIRST_SETS);
}

static __always_inline int pw_first_is_own(__u64 key, __u64 hash)
{
	return !((key ^ hash) >> 32);
}

/* The part of a source's stamp that is not its time. */
static __always_inline __u32 pw_first_tag(__u64 hash)
{
	return hash >> 16;
}

/* A source and its probe, what its set holds of them, and the oldest way of the set. */
struct pw_first_search {
	__u64 hash;
	__u64 probe;
	__u64 own;     /* the source's stamp for now */
	__u64 old_key; /* of the oldest way, to replace it only if it has not changed since */
	__u64 old_stamp;
	int same; /* the probe is in the set */
};

/* Search the set. The source's other probes go to scratch->new_track, their number to
 * scratch->fresh, the oldest way to scratch->index. */
static __always_inline void pw_first_find(struct pw_firsts *set, struct pw_scratch *scratch,
					  __u64 window, struct pw_first_search *found)
{
	__u64 hash = found->hash = scratch->hash;
	__u64 probe = found->probe = scratch->probe;
	__u64 time = pw_stamp(scratch->now);
	__u64 own = found->own = time | pw_first_tag(hash);
	__u64 latest = time + ((PW_SKEW + 1ULL) << 32);
	__u64 oldest = ~0ULL >> 1;
	__u64 index = 0;
	scratch->fresh = 0;
	scratch->new_track.slot[PW_FIRST_WAYS] = time | probe;
	for (int i = 0; i < PW_FIRST_WAYS; i++) {
		struct pw_first *way = &set->way[i];
		__u64 key = pw_read_once(way->key);
		__u64 stamp = pw_read_once(way->stamp);
		scratch->new_track.slot[i] = 0;
		if (pw_first_is_own(key, hash) && (__u32)stamp == pw_first_tag(hash) &&
		    pw_in_window(stamp, scratch->now, window)) {
			if ((__u32)key != probe) {
				scratch->new_track.slot[i] = stamp >> 32 << 32 | (__u32)key;
				scratch->fresh++;
			} else {
				if ((__s64)(own - stamp) > 0)
					__sync_val_compare_and_swap(&way->stamp, stamp, own);
				found->same = 1;
			}
		}
		/* Without a branch, because the CPU cannot predict which way is the oldest. */
		__u64 age = key && !pw_first_is_own(key, hash) ? (stamp - latest) >> 1 : 0;
		__u64 older = (__u64)((__s64)(age - oldest) >> 63);
		oldest ^= (oldest ^ age) & older;
		found->old_key ^= (found->old_key ^ key) & older;
		found->old_stamp ^= (found->old_stamp ^ stamp) & older;
		index ^= (index ^ i) & older;
	}
	/* From memory, so that the compiler keeps the mask that the verifier needs. */
	scratch->index = index;
}

/* Write the source and its probe to the oldest way, unless another CPU has changed it since. */
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
		/* Free the way first: the new stamp must not make the source's former probe current
		 * again. */
		if (__sync_val_compare_and_swap(&way->key, old_key, 0) != old_key)
			return PW_FIRST_AGAIN;
		old_key = 0;
	}
	if (__sync_val_compare_and_swap(&way->stamp, old_stamp, own) != old_stamp)
		return PW_FIRST_AGAIN;
	if (__sync_val_compare_and_swap(&way->key, old_key, hash >> 32 << 32 | found->probe) !=
	    old_key)
		return PW_FIRST_AGAIN;
	if (old_key && pw_in_window(old_stamp, scratch->now, window))
		counters->firsts_evicted++;
	scratch->is_new = 1;
	return PW_FIRST_KEPT;
}

/* Keep the probe if it is the source's first one within the window. */
static __always_inline int pw_first_try(struct pw_firsts *set, struct pw_scratch *scratch,
					struct pw_counters *counters, __u64 window)
{
	struct pw_first_search found = {};
	pw_first_find(set, scratch, window, &found);
	if (found.same)
		return scratch->fresh ? PW_FIRST_MORE : PW_FIRST_KEPT;
	if (scratch->fresh) {
		scratch->is_new = 1;
		return PW_FIRST_MORE;
	}
	return pw_first_replace(set, scratch, counters, window, &found);
}

/* Three attempts, but not as a loop; pw_track_probe says why. */
static __always_inline int pw_first_probe(struct pw_firsts *set, struct pw_scratch *scratch,
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
		if (pw_first_is_own(key, hash) &&
		    __sync_val_compare_and_swap(&way->key, key, 0) == key)
			__sync_val_compare_and_swap(&way->stamp, stamp, 0);
	}
}

#endif
