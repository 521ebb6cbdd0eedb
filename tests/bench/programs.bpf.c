/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Copyright: (c) 2026, Packetwatch authors */
/*
 * The bench's own programs: where packets come from, the floor under every figure, and the lookups
 * that a filter would otherwise make. bench/addresses.py computes the same addresses.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define PAGE_WORDS 16384
#define WALKS 8
#define MAX_PAGES 1024

char _license[] SEC("license") = "GPL";

enum layout {
	IPV4 = 0,
	IPV6 = 1,
	IPV6_CLUSTERED = 2,
};

struct settings {
	__u32 random; /* state of the generator, never 0 */
	__u32 first;  /* sources are numbers first up to first + count - 1, mixed */
	__u32 count;
	__u32 layout;
	__u32 keep; /* bits of a mixed IPv4 address to keep, and others to set */
	__u32 set;
	__u32 target;  /* slot of the program under test */
	__u32 ifindex; /* where frames go */
	__u32 ip_sum;  /* checksums of the frame with source 0.0.0.0, not folded or inverted */
	__u32 tcp_sum;
	__u32 clusters;
	__u32 pages; /* of the array that is read at random */
	__u16 tops[16];
};

struct page {
	__u32 word[PAGE_WORDS];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct settings);
} settings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, __u32);
} targets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} hash4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct in6_addr);
	__type(value, __u32);
} hash6 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct page);
} array SEC(".maps");

/* MurmurHash3's finalizers: every number has one image, and images look random. */
static __always_inline __u32 mix32(__u32 x)
{
	x = (x ^ x >> 16) * 0x85ebca6b;
	x = (x ^ x >> 13) * 0xc2b2ae35;
	return x ^ x >> 16;
}

static __always_inline __u64 mix64(__u64 x)
{
	x = (x ^ x >> 33) * 0xff51afd7ed558ccdULL;
	x = (x ^ x >> 33) * 0xc4ceb9fe1a85ec53ULL;
	return x ^ x >> 33;
}

static __always_inline __u32 next_number(struct settings *s)
{
	__u32 x = s->random; /* xorshift, Marsaglia 2003 */
	x ^= x << 13;
	x ^= x >> 17;
	x ^= x << 5;
	s->random = x;
	return s->first + (__u32)((__u64)x * s->count >> 32);
}

/* The filter drops packets from loopback and multicast addresses. Mixed again, different numbers
 * still give different addresses. */
static __always_inline __be32 source4(struct settings *s, __u32 number)
{
	__u32 address = mix32(number);
	for (int again = 0; again < WALKS; again++)
		if (address >> 29 == 7 || address >> 24 == 127)
			address = mix32(address);
	return bpf_htonl((address & s->keep) | s->set);
}

static __always_inline void write_source6(struct settings *s, struct ipv6hdr *ip, __u32 number)
{
	__u64 high = mix64(number);
	if (s->layout == IPV6_CLUSTERED) {
		__u32 cluster = (__u32)((high >> 32) * s->clusters >> 32);
		__u32 below = mix32(cluster) & 0xffff;
		high = (__u64)s->tops[cluster & 15] << 48 | (__u64)below << 32 | (__u32)high;
	} else {
		high = high >> 3 | 1ULL << 61; /* 2000::/3 */
	}
	__be64 *words = (void *)&ip->saddr;
	words[0] = bpf_cpu_to_be64(high);
	words[1] = bpf_cpu_to_be64(mix64((__u64)number | 1ULL << 32));
}

static __always_inline __u16 folded(__u64 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

/* Another source for each packet, then the program under test as if it had come first. */
SEC("xdp")
int vary(struct xdp_md *context)
{
	void *end = (void *)(long)context->data_end;
	struct ethhdr *ethernet = (void *)(long)context->data;
	__u32 zero = 0;
	struct settings *s = bpf_map_lookup_elem(&settings, &zero);
	if (!s || (void *)(ethernet + 1) + sizeof(struct ipv6hdr) > end)
		return XDP_ABORTED;
	__u32 number = next_number(s);
	if (s->layout == IPV4) {
		struct iphdr *ip = (void *)(ethernet + 1);
		ip->saddr = source4(s, number);
	} else {
		write_source6(s, (void *)(ethernet + 1), number);
	}
	bpf_tail_call(context, &targets, s->target);
	return XDP_ABORTED;
}

/* An endless stream of TCP segments with another source each, valid to the last bit. */
SEC("xdp")
int send(struct xdp_md *context)
{
	void *end = (void *)(long)context->data_end;
	struct ethhdr *ethernet = (void *)(long)context->data;
	struct iphdr *ip = (void *)(ethernet + 1);
	struct tcphdr *tcp = (void *)(ip + 1);
	__u32 zero = 0;
	struct settings *s = bpf_map_lookup_elem(&settings, &zero);
	if (!s || (void *)(tcp + 1) > end)
		return XDP_ABORTED;
	__u32 source = source4(s, next_number(s));
	__u32 sum = (source & 0xffff) + (source >> 16);
	ip->saddr = source;
	ip->check = folded((__u64)s->ip_sum + sum);
	tcp->check = folded((__u64)s->tcp_sum + sum);
	return bpf_redirect(s->ifindex, 0);
}

SEC("xdp")
int drop(struct xdp_md *context)
{
	return XDP_DROP;
}

SEC("xdp")
int pass(struct xdp_md *context)
{
	return XDP_PASS;
}

/* What a filter by one hash of addresses costs. */
SEC("xdp")
int lookup4(struct xdp_md *context)
{
	void *end = (void *)(long)context->data_end;
	struct ethhdr *ethernet = (void *)(long)context->data;
	struct iphdr *ip = (void *)(ethernet + 1);
	if ((void *)(ip + 1) > end || ethernet->h_proto != bpf_htons(ETH_P_IP))
		return XDP_PASS;
	__u32 key = ip->saddr;
	return bpf_map_lookup_elem(&hash4, &key) ? XDP_DROP : XDP_PASS;
}

SEC("xdp")
int lookup6(struct xdp_md *context)
{
	void *end = (void *)(long)context->data_end;
	struct ethhdr *ethernet = (void *)(long)context->data;
	struct ipv6hdr *ip = (void *)(ethernet + 1);
	if ((void *)(ip + 1) > end || ethernet->h_proto != bpf_htons(ETH_P_IPV6))
		return XDP_PASS;
	struct in6_addr key = ip->saddr;
	return bpf_map_lookup_elem(&hash6, &key) ? XDP_DROP : XDP_PASS;
}

/* The physical limit: one read at a place that nobody can foresee. */
SEC("xdp")
int read_array(struct xdp_md *context)
{
	void *end = (void *)(long)context->data_end;
	struct ethhdr *ethernet = (void *)(long)context->data;
	struct iphdr *ip = (void *)(ethernet + 1);
	__u32 zero = 0;
	struct settings *s = bpf_map_lookup_elem(&settings, &zero);
	if (!s || (void *)(ip + 1) > end)
		return XDP_PASS;
	__u32 at = (__u32)((__u64)bpf_ntohl(ip->saddr) * (s->pages * PAGE_WORDS) >> 32);
	__u32 index = at / PAGE_WORDS;
	struct page *page = bpf_map_lookup_elem(&array, &index);
	if (!page)
		return XDP_PASS;
	return page->word[at % PAGE_WORDS] ? XDP_DROP : XDP_PASS;
}
