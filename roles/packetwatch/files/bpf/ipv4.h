/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Copyright: (c) 2026, Packetwatch authors */
/* The IPv4 steps of the program; ip.h chooses between them and those of ipv6.h. */
#ifndef PACKETWATCH_IPV4_H
#define PACKETWATCH_IPV4_H

#include "lists_ipv4.h"
#include "known.h"
#include "parse.h"

#define PW_FRAGMENT_MORE 0x2000
#define PW_FRAGMENT_OFFSET 0x1fff

static __always_inline int pw_ipv4_is_valid(struct iphdr *ip)
{
	return (__u32)*(__u8 *)ip - 0x45 <= 10; /* version 4, and 5 to 15 words */
}

/* Whether the source is a loopback, multicast or reserved address. */
static __always_inline int pw_ipv4_is_special(struct iphdr *ip)
{
	__u8 first = *(__u8 *)&ip->saddr;
	return first == 127 || first >= 224;
}

/* Of special sources: whether no packet on a link may have it. Some networks use 240.0.0.0/4. */
static __always_inline int pw_ipv4_is_bogus(struct iphdr *ip)
{
	return *(__u8 *)&ip->saddr < 240 || ip->saddr == 0xffffffff;
}

static __always_inline int pw_ipv4_is_unspecified(struct iphdr *ip)
{
	return !ip->saddr;
}

/* Whether a packet that is not TCP needs no further parsing. */
static __always_inline int pw_ipv4_other_is_plain(struct pw_cursor *cursor, struct iphdr *ip,
						  __u64 *flow)
{
	void *ports = ip + 1;
	return ip->protocol == IPPROTO_UDP && ip->ihl == 5 &&
	       ports + PW_TCP_PORTS_END <= cursor->end &&
	       !(ip->frag_off & bpf_htons(PW_FRAGMENT_MORE | PW_FRAGMENT_OFFSET)) &&
	       pw_is_known(ip, ports, PW_IPV4, IPPROTO_UDP, flow);
}

/* Whether a packet needs no further parsing: another protocol, or TCP with ACK, if it can be no
 * evidence. False if the packet is unusual; then pw_ipv4_parse_upper decides. */
static __always_inline int pw_ipv4_is_plain(struct pw_cursor *cursor, struct pw_header *header,
					    struct iphdr *ip, __u64 *flow)
{
	pw_barrier_var(ip); /* keeps it in a register */
	if (ip->protocol != IPPROTO_TCP)
		return !pw_unlikely(header->features & PW_F_PROTOCOLS) ||
		       pw_ipv4_other_is_plain(cursor, ip, flow);
	__u8 *tcp = (void *)(ip + 1);
	if (ip->ihl != 5 || (void *)(tcp + PW_TCP_FLAGS_END) > cursor->end ||
	    ip->frag_off & bpf_htons(PW_FRAGMENT_MORE | PW_FRAGMENT_OFFSET) ||
	    pw_be16(ip->tot_len) < sizeof(*ip) + PW_TCP_FLAGS_END)
		return 0;
	__u64 word = pw_tcp_word(tcp);
	if (!(word & bpf_htons(PW_TCP_ACK)))
		return 0;
	if (!pw_unlikely(pw_tcp_is_unasked(word, pw_be16(ip->tot_len) - sizeof(*ip))))
		return 1;
	return !(header->features & PW_F_ACK) || pw_is_known(ip, tcp, PW_IPV4, IPPROTO_TCP, flow);
}

/* Find the upper layer of a packet with a valid header, which is at the cursor. */
static __always_inline void pw_ipv4_parse_upper(struct xdp_md *context, struct pw_cursor *cursor,
						struct iphdr *ip, struct pw_packet *packet)
{
	__u32 header = ip->ihl * 4;
	__u32 total = pw_be16(ip->tot_len);
	__u32 fragment = pw_be16(ip->frag_off);
	__u32 offset = fragment & PW_FRAGMENT_OFFSET;
	if (offset) {
		/* A fragment at offset 1 (8 bytes) holds TCP's flags; others hold nothing that
		 * matters. */
		if (offset == 1 && ip->protocol == IPPROTO_TCP)
			packet->upper = PW_UPPER_OPAQUE;
		return;
	}
	if (total < header) {
		if (ip->protocol == IPPROTO_TCP)
			packet->upper = PW_UPPER_SHORT;
		return;
	}
	pw_skip(cursor, header);
	cursor->remaining = total - header;
	if (ip->protocol == IPPROTO_TCP)
		pw_parse_tcp(context, cursor, fragment & PW_FRAGMENT_MORE, packet);
	else
		pw_parse_other(context, cursor, ip->protocol, packet);
}

/* Store the addresses as ::ffff:a.b.c.d. */
static __always_inline void pw_ipv4_store_addresses(struct iphdr *ip, struct pw_packet *packet)
{
	packet->saddr.word[0] = packet->saddr.word[1] = 0;
	packet->daddr.word[0] = packet->daddr.word[1] = 0;
	packet->saddr.word[2] = packet->daddr.word[2] = bpf_htonl(0xffff);
	packet->saddr.word[3] = ip->saddr;
	packet->daddr.word[3] = ip->daddr;
}

#endif
