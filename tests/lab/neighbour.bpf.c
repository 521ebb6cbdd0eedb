// SPDX-License-Identifier: GPL-2.0-only
// Copyright: (c) 2026, Packetwatch authors

/* XDP programs of a neighbour in libxdp's dispatcher: one counts packets, one rewrites them, one drops them.
 * They look at UDP over IPv4 without options.
 */

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define COUNTED_PORT 7000
#define DROPPED_PORT 7009
#define REWRITTEN 0x0a09004dU /* 10.9.0.77 becomes 10.9.0.66 */
#define DENIED 0x0a090042U

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} seen SEC(".maps");

struct frame {
	struct ethhdr eth;
	struct iphdr ip;
	struct udphdr udp;
} __attribute__((packed));

static __always_inline struct frame *frame_of(struct xdp_md *context)
{
	struct frame *frame = (void *)(long)context->data;

	if ((void *)(frame + 1) > (void *)(long)context->data_end)
		return 0;
	if (frame->eth.h_proto != bpf_htons(ETH_P_IP) || frame->ip.protocol != IPPROTO_UDP)
		return 0;
	return frame;
}

SEC("xdp")
int neighbour_count(struct xdp_md *context)
{
	struct frame *frame = frame_of(context);
	__u32 zero = 0;
	__u64 *count = bpf_map_lookup_elem(&seen, &zero);

	if (frame && count && frame->udp.dest == bpf_htons(COUNTED_PORT))
		__sync_fetch_and_add(count, 1);
	return XDP_PASS;
}

SEC("xdp")
int neighbour_rewrite(struct xdp_md *context)
{
	struct frame *frame = frame_of(context);

	if (frame && frame->ip.saddr == bpf_htonl(REWRITTEN)) {
		__u32 sum = (__u16)~frame->ip.check;

		sum += (__u16)~bpf_htons(REWRITTEN & 0xffff) + bpf_htons(DENIED & 0xffff);
		sum = (sum & 0xffff) + (sum >> 16);
		sum = (sum & 0xffff) + (sum >> 16);
		frame->ip.check = ~sum;
		frame->ip.saddr = bpf_htonl(DENIED);
	}
	return XDP_PASS;
}

SEC("xdp")
int neighbour_drop(struct xdp_md *context)
{
	struct frame *frame = frame_of(context);

	return frame && frame->udp.dest == bpf_htons(DROPPED_PORT) ? XDP_DROP : XDP_PASS;
}

char _license[] SEC("license") = "GPL";
