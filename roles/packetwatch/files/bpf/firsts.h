/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Copyright: (c) 2026, Packetwatch authors */
/*
 * The first port of a source. A set of four ways fills a line of the cache; a source lies in the set
 * that its hash tells, and pushes out the oldest one there. All is written by compare-and-swap, `when`
 * before `who`: who finds a source in `who` and another one in `when` sees it being pushed out.
 */
#ifndef PACKETWATCH_FIRSTS_H
#define PACKETWATCH_FIRSTS_H

/* Signed: another CPU's stamp may be newer than our `now`. */
static __always_inline int pw_fresh(__u64 slot, __u64 now, __u64 window)
{
	return slot && (__s64)((now >> 10) - (slot >> 16)) < (__s64)(window >> 10);
}

enum pw_first_result {
	PW_FIRST_KEPT = 0,  /* that is all there is to do */
	PW_FIRST_AGAIN = 1, /* another CPU was faster */
	PW_FIRST_MORE = 2,  /* it is not the first one: the others are in scratch->first */
};

/* Rounds of multiply and shift as in splitmix64 (Steele, Lea, Flood, OOPSLA 2014), keyed by the seed. */
static __always_inline __u64 pw_mix(__u64 hash, __u64 word)
{
	hash = (hash ^ word) * 0xbf58476d1ce4e5b9ULL;
	return hash ^ hash >> 32;
}

static __always_inline __u64 pw_hash(struct pw_source *source, struct pw_shared *shared)
{
	__u64 seed = pw_read(shared->seed);
	if (pw_unlikely(!seed)) {
		seed = (__u64)bpf_get_prandom_u32() << 32 | bpf_get_prandom_u32() | 1;
		__sync_val_compare_and_swap(&shared->seed, 0, seed);
		seed = pw_read(shared->seed);
	}
	__u64 hash = pw_mix(seed, (__u64)source->addr.word[0] << 32 | source->addr.word[1]);
	hash = pw_mix(hash, (__u64)source->addr.word[2] << 32 | source->addr.word[3]);
	return pw_mix(pw_mix(hash, source->plen), seed);
}

/* The set in which a source lies; scratch->hash tells what it is called there. */
static __always_inline struct pw_firsts *pw_first_set(struct pw_shared *shared,
						      struct pw_scratch *scratch)
{
	scratch->hash = pw_hash(&scratch->source, shared);
	return firsts_get(scratch->hash % PW_FIRST_SETS);
}

static __always_inline int pw_first_is(__u64 who, __u64 hash)
{
	return !((who ^ hash) >> 16);
}

/* Remember the port if it is the source's first one within the window. */
static __always_inline int pw_first_try(struct pw_firsts *set, struct pw_scratch *scratch,
					struct pw_counters *counters, __u64 window)
{
	__u64 hash = scratch->hash;
	__u64 port = scratch->port;
	__u64 stamp = scratch->now >> 10 << 16;
	__u64 own = stamp | hash >> 48;
	__u64 oldest = ~0ULL >> 1;
	__u64 index = 0;
	__u64 old_who = 0; /* as they were seen: what has come since must not be overwritten */
	__u64 old_when = 0;
	int same = 0;
	scratch->fresh = 0;
	scratch->first.slot[PW_FIRST_WAYS] = stamp | port;
	for (int i = 0; i < PW_FIRST_WAYS; i++) {
		struct pw_first *way = &set->way[i];
		__u64 who = pw_read(way->who);
		__u64 when = pw_read(way->when);
		scratch->first.slot[i] = 0;
		if (pw_first_is(who, hash) && (when & 0xffff) == hash >> 48 &&
		    pw_fresh(when, scratch->now, window)) {
			if ((who & 0xffff) != port) {
				scratch->first.slot[i] = (when & ~0xffffULL) | (who & 0xffff);
				scratch->fresh++;
			} else {
				if ((__s64)(own - when) > 0)
					__sync_val_compare_and_swap(&way->when, when, own);
				same = 1;
			}
		}
		/* Which one is the oldest nobody foretells: a branch would cost more than all this. */
		__u64 age = who && !pw_first_is(who, hash) ? when >> 1 : 0;
		__u64 older = (__u64)((__s64)(age - oldest) >> 63);
		oldest ^= (oldest ^ age) & older;
		old_who ^= (old_who ^ who) & older;
		old_when ^= (old_when ^ when) & older;
		index ^= (index ^ i) & older;
	}
	scratch->index = index; /* or the compiler, which knows its bounds, leaves the mask out below */
	if (scratch->fresh)
		return PW_FIRST_MORE;
	if (same)
		return PW_FIRST_KEPT;

	struct pw_first *way = &set->way[scratch->index % PW_FIRST_WAYS];
	if (old_who && pw_first_is(old_who, hash)) {
		/* Its own port of long ago must not be taken for one of now. */
		if (__sync_val_compare_and_swap(&way->who, old_who, 0) != old_who)
			return PW_FIRST_AGAIN;
		old_who = 0;
	}
	if (__sync_val_compare_and_swap(&way->when, old_when, own) != old_when)
		return PW_FIRST_AGAIN;
	if (__sync_val_compare_and_swap(&way->who, old_who, (hash & ~0xffffULL) | port) != old_who)
		return PW_FIRST_AGAIN;
	if (old_who && pw_fresh(old_when, scratch->now, window))
		counters->firsts_evicted++;
	return PW_FIRST_KEPT;
}

/* Not a loop, as pw_track_port is none. */
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

static __always_inline void pw_first_forget(struct pw_firsts *set, __u64 hash)
{
	for (int i = 0; i < PW_FIRST_WAYS; i++) {
		struct pw_first *way = &set->way[i];
		__u64 who = pw_read(way->who);
		__u64 when = pw_read(way->when);
		if (pw_first_is(who, hash) && __sync_val_compare_and_swap(&way->who, who, 0) == who)
			__sync_val_compare_and_swap(&way->when, when, 0);
	}
}

#endif
