/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Copyright: (c) 2026, Packetwatch authors */
/* The sliding window of scan detection; tracks.h and first_ports.h hold its ports. */
#ifndef PACKETWATCH_WINDOW_H
#define PACKETWATCH_WINDOW_H

/* Whether a slot's time lies within the window. Signed, because another CPU's stamp may be later
 * than our `now`. */
static __always_inline int pw_in_window(__u64 slot, __u64 now, __u64 window)
{
	return slot && (__s64)((now >> 10) - (slot >> 16)) < (__s64)(window >> 10);
}

#endif
