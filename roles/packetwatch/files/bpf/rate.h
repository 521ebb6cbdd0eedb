/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Copyright: (c) 2026, Packetwatch authors */
/*
 * Rate limits: the generic cell rate algorithm (ITU-T I.371). A limit is one number, the
 * theoretical arrival time `tat`: when the next event is due at the exact rate.
 */
#ifndef PACKETWATCH_RATE_H
#define PACKETWATCH_RATE_H

/* Take one event. False if the limit has none left: then `tat` is more than `burst` ahead. */
static __always_inline int pw_rate_allows(__u64 *tat, __u64 now, __u64 interval, __u64 burst)
{
	for (int i = 0; i < 4; i++) {
		__u64 old = pw_read_once(*tat);
		__u64 due = (__s64)(old - now) > 0 ? old : now;
		if (due - now > burst)
			return 0;
		if (__sync_val_compare_and_swap(tat, old, due + interval) == old)
			return 1;
	}
	return 0;
}

/* Whether pw_rate_allows would return false; takes no event. */
static __always_inline int pw_rate_is_full(__u64 *tat, __u64 now, __u64 burst)
{
	return (__s64)(pw_read_once(*tat) - now) > (__s64)burst;
}

#endif
