/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Copyright: (c) 2026, Packetwatch authors */
/* The IPv6 steps of the program; ip.h chooses between them and those of ipv4.h. */
#ifndef PACKETWATCH_IPV6_H
#define PACKETWATCH_IPV6_H

#include "lists_ipv6.h"
#include "known.h"
#include "parse.h"

#define PW_IPPROTO_HIP 139
#define PW_IPPROTO_SHIM6 140

/* The start of an extension header. */
struct pw_ext {
	__u8 next;
	__u8 length;
	__be16 offset; /* of a fragment: upper 13 bits; the lowest bit says that more follow */
};

static __always_inline int pw_ipv6_is_valid(struct ipv6hdr *ip)
{
	return ip->version == 6;
}

/* Whether the source is in ::/64 or a multicast address. */
static __always_inline int pw_ipv6_is_special(struct ipv6hdr *ip)
{
	return !*(__u64 *)&ip->saddr || *(__u8 *)&ip->saddr == 0xff;
}

static __always_inline int pw_ipv6_is_unspecified(struct ipv6hdr *ip)
{
	__u32 *word = ip->saddr.in6_u.u6_addr32;
	return !(word[0] | word[1] | word[2] | word[3]);
}

/* Of special sources: whether no packet on a link may have it. That is ::1, an IPv4-mapped or a
 * multicast address. Others in ::/64 are those of translators. */
static __always_inline int pw_ipv6_is_bogus(struct ipv6hdr *ip)
{
	__u32 *word = ip->saddr.in6_u.u6_addr32;
	return word[0] || word[2] == bpf_htonl(0xffff) || (!word[2] && word[3] == bpf_htonl(1));
}

/* Whether a packet needs no further parsing: UDP, or TCP with ACK, if it can be no evidence. False
 * for all other protocols; then pw_ipv6_parse_upper decides. */
static __always_inline int pw_ipv6_is_plain(struct pw_cursor *cursor, struct pw_header *header,
					    struct ipv6hdr *ip, __u64 *flow)
{
	pw_barrier_var(ip); /* keeps it in a register */
	if (ip->nexthdr == IPPROTO_UDP)
		return !pw_unlikely(header->features & PW_F_PROTOCOLS) ||
		       ((void *)(ip + 1) + PW_TCP_PORTS_END <= cursor->end &&
			pw_is_known(ip, ip + 1, PW_IPV6, IPPROTO_UDP, flow));
	__u8 *tcp = (void *)(ip + 1);
	if (ip->nexthdr != IPPROTO_TCP || (void *)(tcp + PW_TCP_FLAGS_END) > cursor->end ||
	    pw_be16(ip->payload_len) < PW_TCP_FLAGS_END)
		return 0;
	__u64 word = pw_tcp_word(tcp);
	if (!(word & bpf_htons(PW_TCP_ACK)))
		return 0;
	if (!pw_unlikely(pw_tcp_is_unasked(word, pw_be16(ip->payload_len))))
		return 1;
	return !(header->features & PW_F_ACK) || pw_is_known(ip, tcp, PW_IPV6, IPPROTO_TCP, flow);
}

/* Find the upper layer of the packet at the cursor, after up to PW_EXT_MAX extension headers. */
static __always_inline void pw_ipv6_parse_upper(struct xdp_md *context, struct pw_cursor *cursor,
						struct ipv6hdr *ip, struct pw_packet *packet)
{
	volatile __u32 *length = &packet->ext_length; /* from memory: scratch.h says why */
	__u32 next = ip->nexthdr;
	int first_fragment = 0;

	pw_skip(cursor, sizeof(*ip));
	cursor->remaining = pw_be16(ip->payload_len);
	if (!cursor->remaining) /* a jumbogram (RFC 2675): its length is in an option */
		cursor->remaining = 0xffff;
	for (int i = 0; i <= PW_EXT_MAX; i++) {
		if (next == IPPROTO_TCP) {
			pw_parse_tcp(context, cursor, first_fragment, packet);
			return;
		}
		struct pw_ext *ext;
		if (next != IPPROTO_HOPOPTS && next != IPPROTO_ROUTING &&
		    next != IPPROTO_FRAGMENT && next != IPPROTO_AH && next != IPPROTO_DSTOPTS &&
		    next != IPPROTO_MH && next != PW_IPPROTO_HIP && next != PW_IPPROTO_SHIM6) {
			pw_parse_other(context, cursor, next, packet);
			return;
		}
		if (cursor->remaining < 8) {
			packet->upper = first_fragment ? PW_UPPER_OPAQUE : PW_UPPER_SHORT;
			return;
		}
		if (!pw_read(context, cursor, 8, cursor->to->header, (void **)&ext)) {
			packet->upper = pw_unread_upper(cursor);
			return;
		}
		*length = (ext->length + 1) * 8;
		if (next == IPPROTO_FRAGMENT) {
			__u32 offset = pw_be16(ext->offset) >> 3;
			*length = 8;
			first_fragment |= pw_be16(ext->offset) & 1;
			if (offset) {
				/* It is suspicious if it holds TCP's flags (offset 1, 8 bytes). At
				 * later offsets `next` says nothing (RFC 8200, section 4.5), and the
				 * first fragment has counted if it hides the flags. */
				if (ext->next == IPPROTO_TCP && offset == 1)
					packet->upper = PW_UPPER_OPAQUE;
				return;
			}
		} else if (next == IPPROTO_AH) {
			*length = (ext->length + 2) * 4; /* RFC 4302 */
		}
		next = ext->next;
		__u32 bytes = *length & 0xfff;
		if (cursor->remaining < bytes) {
			packet->upper = first_fragment ? PW_UPPER_OPAQUE : PW_UPPER_SHORT;
			return;
		}
		pw_skip(cursor, bytes);
		cursor->remaining -= bytes;
	}
	packet->upper = PW_UPPER_OPAQUE;
}

static __always_inline void pw_ipv6_store_addresses(struct ipv6hdr *ip, struct pw_packet *packet)
{
	__builtin_memcpy(&packet->saddr, &ip->saddr, sizeof(packet->saddr));
	__builtin_memcpy(&packet->daddr, &ip->daddr, sizeof(packet->daddr));
}

#endif
