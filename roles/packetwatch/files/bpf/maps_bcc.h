/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Copyright: (c) 2026, Packetwatch authors */
/*
 * The maps as bcc declares them, and one accessor for each use. This file is prepended as text,
 * because bcc rewrites table methods only in the main file and not in macros. The sizes here are
 * the smallest that compile: user space creates the real maps and puts them into the bytecode.
 */
#include <uapi/linux/bpf.h>
#include <uapi/linux/if_ether.h>
#include <uapi/linux/in.h>
#include <uapi/linux/ip.h>
#include <uapi/linux/ipv6.h>
#include <uapi/linux/tcp.h>

#define PW_SECTION(name)
#define pw_be16(x) bpf_ntohs(x)
#define pw_be32(x) bpf_ntohl(x)
#define pw_be64(x) bpf_ntohll(x)

#include "abi.h"
#include "compiler.h"
#include "scratch.h"

/* A page of a generation; lists.h has its layout. */
struct pw_page_value {
	__u64 word[PW_PAGE_SIZE / 8];
};

BPF_TABLE("array", __u32, struct pw_page_value, pages, 1);
BPF_TABLE("array_of_maps$pages", __u32, int, generation, 1);
BPF_TABLE("hash", struct pw_source, struct pw_ban, bans, 1);
BPF_TABLE("hash", struct pw_source, struct pw_ban, scan_bans, 1);
BPF_TABLE("lru_hash", struct pw_source, struct pw_ban, overflow, 1);
BPF_TABLE("array", __u32, struct pw_source, scan_ring, 1);
BPF_TABLE("hash", struct pw_addr, struct pw_host, hosts, 1);
BPF_F_TABLE("lpm_trie", struct pw_net, __u32, nets, 1, BPF_F_NO_PREALLOC);
BPF_TABLE("hash", struct pw_addr, __u32, local, 1);
BPF_TABLE("array", __u32, __u64, open_ports, 1);
BPF_TABLE("array", __u32, struct pw_firsts, firsts2, 1);
BPF_TABLE("lru_hash", struct pw_source, struct pw_track, tracks2, 1);
BPF_TABLE("lru_hash", struct pw_addr, __u64, rates, 1);
BPF_TABLE("percpu_array", __u32, struct pw_counters, counters4, 1);
BPF_TABLE("percpu_array", __u32, struct pw_scratch, scratch, 1);
BPF_TABLE("array", __u32, struct pw_shared, shared, 1);
BPF_TABLE("prog", __u32, __u32, nexts, 1);
BPF_RINGBUF_OUTPUT(events, 1);

static __always_inline void *generation_get(void)
{
	__u32 zero = 0;
	return generation.lookup(&zero);
}

static __always_inline struct pw_counters *counters_get(void)
{
	__u32 zero = 0;
	return counters4.lookup(&zero);
}

static __always_inline struct pw_scratch *scratch_get(void)
{
	__u32 zero = 0;
	return scratch.lookup(&zero);
}

static __always_inline struct pw_shared *shared_get(void)
{
	__u32 zero = 0;
	return shared.lookup(&zero);
}

static __always_inline struct pw_ban *bans_get(struct pw_source *source)
{
	return bans.lookup(source);
}

static __always_inline struct pw_ban *scan_bans_get(struct pw_source *source)
{
	return scan_bans.lookup(source);
}

static __always_inline int scan_bans_set(struct pw_source *source, struct pw_ban *ban)
{
	return scan_bans.update(source, ban);
}

static __always_inline void scan_bans_delete(struct pw_source *source)
{
	scan_bans.delete(source);
}

static __always_inline struct pw_ban *overflow_get(struct pw_source *source)
{
	return overflow.lookup(source);
}

static __always_inline int overflow_set(struct pw_source *source, struct pw_ban *ban)
{
	return overflow.update(source, ban);
}

static __always_inline struct pw_source *scan_ring_get(__u32 slot)
{
	return scan_ring.lookup(&slot);
}

static __always_inline struct pw_host *hosts_get(struct pw_addr *address)
{
	return hosts.lookup(address);
}

static __always_inline __u32 *nets_get(struct pw_net *net)
{
	return nets.lookup(net);
}

static __always_inline __u32 *local_get(struct pw_addr *address)
{
	return local.lookup(address);
}

static __always_inline __u64 *open_ports_get(__u32 port)
{
	return open_ports.lookup(&port);
}

static __always_inline struct pw_firsts *firsts_get(__u32 set)
{
	return firsts2.lookup(&set);
}

static __always_inline struct pw_track *tracks_get(struct pw_source *source)
{
	return tracks2.lookup(source);
}

static __always_inline int tracks_add(struct pw_source *source, struct pw_track *track)
{
	return tracks2.insert(source, track);
}

static __always_inline void tracks_delete(struct pw_source *source)
{
	tracks2.delete(source);
}

static __always_inline __u64 *rates_get(struct pw_addr *address)
{
	return rates.lookup(address);
}

static __always_inline int rates_set(struct pw_addr *address, __u64 *tat)
{
	return rates.update(address, tat);
}

static __always_inline void *events_reserve(__u64 size)
{
	if (size == PW_EVENT_SHORT)
		return events.ringbuf_reserve(PW_EVENT_SHORT);
	return events.ringbuf_reserve(sizeof(struct pw_event));
}

static __always_inline void events_submit(void *event)
{
	events.ringbuf_submit(event, BPF_RB_NO_WAKEUP);
}

/* Does not return if there is a program at this index. */
static __always_inline void nexts_call(struct xdp_md *context, __u32 index)
{
	nexts.call(context, index);
}
