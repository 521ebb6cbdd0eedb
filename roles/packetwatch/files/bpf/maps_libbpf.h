/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Copyright: (c) 2026, Packetwatch authors */
/* The maps as libbpf declares them, with the same accessors as maps_bcc.h. */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define PW_SECTION(name) SEC(name)
#define pw_be16(x) bpf_ntohs(x)
#define pw_be32(x) bpf_ntohl(x)
#define pw_be64(x) bpf_be64_to_cpu(x)

#include "abi.h"
#include "compiler.h"
#include "scratch.h"

char _license[] SEC("license") = "Dual BSD/GPL";

struct pages {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, PW_PAGE_SIZE);
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct pages);
} generation SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct pw_source);
	__type(value, struct pw_ban);
} bans SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct pw_source);
	__type(value, struct pw_ban);
} scan_bans SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, struct pw_source);
	__type(value, struct pw_ban);
} overflow SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, struct pw_source);
} scan_ring SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct pw_addr);
	__type(value, struct pw_host);
} hosts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 1024);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct pw_net);
	__type(value, __u32);
} nets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct pw_addr);
	__type(value, __u32);
} local SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 65536);
	__type(key, __u32);
	__type(value, __u64);
} open_ports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, struct pw_firsts);
} firsts2 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, struct pw_source);
	__type(value, struct pw_track);
} tracks2 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, struct pw_addr);
	__type(value, __u64);
} rates SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct pw_counters);
} counters4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct pw_scratch);
} scratch SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct pw_shared);
} shared SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, PW_NEXT_SLOTS);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
} nexts SEC(".maps");

static __always_inline void *generation_get(void)
{
	__u32 zero = 0;
	return bpf_map_lookup_elem(&generation, &zero);
}

static __always_inline struct pw_counters *counters_get(void)
{
	__u32 zero = 0;
	return bpf_map_lookup_elem(&counters4, &zero);
}

static __always_inline struct pw_scratch *scratch_get(void)
{
	__u32 zero = 0;
	return bpf_map_lookup_elem(&scratch, &zero);
}

static __always_inline struct pw_shared *shared_get(void)
{
	__u32 zero = 0;
	return bpf_map_lookup_elem(&shared, &zero);
}

static __always_inline struct pw_ban *bans_get(struct pw_source *source)
{
	return bpf_map_lookup_elem(&bans, source);
}

static __always_inline struct pw_ban *scan_bans_get(struct pw_source *source)
{
	return bpf_map_lookup_elem(&scan_bans, source);
}

static __always_inline int scan_bans_set(struct pw_source *source, struct pw_ban *ban)
{
	return bpf_map_update_elem(&scan_bans, source, ban, BPF_ANY);
}

static __always_inline void scan_bans_delete(struct pw_source *source)
{
	bpf_map_delete_elem(&scan_bans, source);
}

static __always_inline struct pw_ban *overflow_get(struct pw_source *source)
{
	return bpf_map_lookup_elem(&overflow, source);
}

static __always_inline int overflow_set(struct pw_source *source, struct pw_ban *ban)
{
	return bpf_map_update_elem(&overflow, source, ban, BPF_ANY);
}

static __always_inline struct pw_source *scan_ring_get(__u32 slot)
{
	return bpf_map_lookup_elem(&scan_ring, &slot);
}

static __always_inline struct pw_host *hosts_get(struct pw_addr *address)
{
	return bpf_map_lookup_elem(&hosts, address);
}

static __always_inline __u32 *nets_get(struct pw_net *net)
{
	return bpf_map_lookup_elem(&nets, net);
}

static __always_inline __u32 *local_get(struct pw_addr *address)
{
	return bpf_map_lookup_elem(&local, address);
}

static __always_inline __u64 *open_ports_get(__u32 port)
{
	return bpf_map_lookup_elem(&open_ports, &port);
}

static __always_inline struct pw_firsts *firsts_get(__u32 set)
{
	return bpf_map_lookup_elem(&firsts2, &set);
}

static __always_inline struct pw_track *tracks_get(struct pw_source *source)
{
	return bpf_map_lookup_elem(&tracks2, source);
}

static __always_inline int tracks_add(struct pw_source *source, struct pw_track *track)
{
	return bpf_map_update_elem(&tracks2, source, track, BPF_NOEXIST);
}

static __always_inline void tracks_delete(struct pw_source *source)
{
	bpf_map_delete_elem(&tracks2, source);
}

static __always_inline __u64 *rates_get(struct pw_addr *address)
{
	return bpf_map_lookup_elem(&rates, address);
}

static __always_inline int rates_set(struct pw_addr *address, __u64 *tat)
{
	return bpf_map_update_elem(&rates, address, tat, BPF_ANY);
}

static __always_inline void *events_reserve(__u64 size)
{
	if (size == PW_EVENT_SHORT)
		return bpf_ringbuf_reserve(&events, PW_EVENT_SHORT, 0);
	return bpf_ringbuf_reserve(&events, sizeof(struct pw_event), 0);
}

static __always_inline void events_submit(void *event)
{
	bpf_ringbuf_submit(event, BPF_RB_NO_WAKEUP);
}

/* Does not return if there is a program at this index. */
static __always_inline void nexts_call(struct xdp_md *context, __u32 index)
{
	bpf_tail_call(context, &nexts, index);
}
