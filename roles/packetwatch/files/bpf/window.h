/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Copyright: (c) 2026, Packetwatch authors */
/* The sliding window of scan detection; tracks.h and first_ports.h hold its probes. */
#ifndef PACKETWATCH_WINDOW_H
#define PACKETWATCH_WINDOW_H

/* How much later another CPU's time may be than ours. All earlier times are past, up to the wrap. */
#define PW_SKEW (1U << 13)

/* The time of a slot. */
static __always_inline __u64 pw_stamp(__u64 now)
{
	return now >> PW_TIME_SHIFT << 32;
}

/* Whether a slot's time lies within the window. */
static __always_inline int pw_in_window(__u64 slot, __u64 now, __u64 window)
{
	__u32 age = (__u32)(now >> PW_TIME_SHIFT) - (__u32)(slot >> 32);
	return slot && age + PW_SKEW <= (__u32)(window >> PW_TIME_SHIFT) + PW_SKEW;
}

#endif
