/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Copyright: (c) 2026, Packetwatch authors */
/*
 * From Ethernet to the first 14 bytes of TCP. A cursor walks the headers; each step either moves
 * it or says how the packet ends. Beyond our bounds is OPAQUE, cut short is SHORT: the difference
 * is whether a stack behind us would still read it.
 */
#ifndef PACKETWATCH_PARSE_H
#define PACKETWATCH_PARSE_H

#define PW_IP pw_be16(ETH_P_IP) /* EtherTypes as in the packet */
#define PW_IP6 pw_be16(ETH_P_IPV6)
#define PW_VLAN pw_be16(0x8100)   /* IEEE 802.1Q */
#define PW_VLAN_S pw_be16(0x88a8) /* IEEE 802.1ad */
#define PW_FRAGMENT_MORE 0x2000
#define PW_FRAGMENT_OFFSET 0x1fff
#define PW_TCP_FLAGS_END 14 /* bytes of TCP up to and with the flags */
#define PW_TCP_PORTS_END 4
#define PW_TCP_SYN 0x02
#define PW_TCP_ACK 0x10
#define PW_ICMP6_RS 133 /* RFC 4861: 133 to 137 are router and neighbour discovery */
#define PW_ICMP6_REDIRECT 137
#define PW_NEXT_HOP 0
#define PW_NEXT_ROUTING 43
#define PW_NEXT_FRAGMENT 44
#define PW_NEXT_AUTH 51
#define PW_NEXT_ICMP6 58
#define PW_NEXT_OPTIONS 60
#define PW_NEXT_MOBILITY 135
#define PW_NEXT_HIP 139
#define PW_NEXT_SHIM6 140

struct pw_vlan {
	__be16 tci;
	__be16 type;
};

struct pw_ext {
	__u8 next;
	__u8 length;
	__be16 offset; /* in a fragment header: offset in its upper 13 bits, M in the lowest */
};

struct pw_cursor {
	void *at;
	void *end;       /* of what we can read */
	__u32 remaining; /* bytes that the IP header says are left */
};

/* The packet cannot be read on: is it really that short, or only our view of it? */
static __always_inline __u32 pw_cut(struct xdp_md *context, struct pw_cursor *cursor)
{
	void *start = (void *)(long)context->data;
	__u64 claimed = (__u64)(cursor->at - start) + cursor->remaining;
	return bpf_xdp_get_buff_len(context) < claimed ? PW_UPPER_SHORT : PW_UPPER_OPAQUE;
}

/* Ethernet and up to PW_VLAN_MAX tags: the EtherType as in the packet, 0 if cut short. Another tag is
 * left for the caller to see. */
static __always_inline __u64 pw_parse_ethernet(struct pw_cursor *cursor)
{
	struct ethhdr *ethernet = cursor->at;
	if ((void *)(ethernet + 1) > cursor->end)
		return 0;
	/* As the last half of a tag: the struct is packed, so its own field would be read bytewise. */
	struct pw_vlan *tag = (struct pw_vlan *)(ethernet + 1);
	__u64 type = tag[-1].type;
	cursor->at = tag;
	if (type == PW_IP) {
		pw_opaque(cursor->at); /* or compilers ask for everything else first */
		return type;
	}
#pragma unroll
	for (int i = 0; i < PW_VLAN_MAX; i++) {
		if (type != PW_VLAN && type != PW_VLAN_S)
			break;
		if ((void *)(tag + 1) > cursor->end)
			return 0;
		type = tag->type;
		cursor->at = ++tag;
	}
	return type;
}

/* What the TCP header at the cursor begins. `part`: it is the first fragment of a packet. */
static __always_inline void pw_parse_tcp(struct xdp_md *context, struct pw_cursor *cursor, int part,
					 struct pw_packet *packet)
{
	__u8 *tcp = cursor->at;
	if (pw_unlikely(cursor->remaining < PW_TCP_FLAGS_END)) {
		packet->upper = part ? PW_UPPER_OPAQUE : PW_UPPER_SHORT;
		if (cursor->remaining < PW_TCP_PORTS_END || (void *)(tcp + PW_TCP_PORTS_END) > cursor->end)
			return;
	} else if (pw_unlikely((void *)(tcp + PW_TCP_FLAGS_END) > cursor->end)) {
		packet->upper = pw_cut(context, cursor);
		return;
	} else {
		__u8 flags = tcp[13];
		if ((flags & (PW_TCP_SYN | PW_TCP_ACK)) != PW_TCP_SYN) {
			packet->upper = PW_UPPER_OTHER;
			return;
		}
		packet->upper = PW_UPPER_SYN;
	}
	packet->sport = (__u16)(tcp[0] << 8 | tcp[1]);
	packet->dport = (__u16)(tcp[2] << 8 | tcp[3]);
	packet->ports_known = 1;
}

/* Most packets: another protocol, or a whole TCP header that begins nothing. What these do not know
 * they leave to those below. */
static __always_inline int pw_is_plain4(struct pw_cursor *cursor, struct iphdr *ip)
{
	pw_opaque(ip); /* in a register from here on */
	if (ip->protocol != IPPROTO_TCP)
		return 1;
	__u8 *tcp = (void *)(ip + 1);
	if (ip->ihl != 5 || (void *)(tcp + PW_TCP_FLAGS_END) > cursor->end ||
	    ip->frag_off & bpf_htons(PW_FRAGMENT_MORE | PW_FRAGMENT_OFFSET) ||
	    pw_be16(ip->tot_len) < sizeof(*ip) + PW_TCP_FLAGS_END)
		return 0;
	return (tcp[13] & (PW_TCP_SYN | PW_TCP_ACK)) != PW_TCP_SYN;
}

static __always_inline int pw_is_plain6(struct pw_cursor *cursor, struct ipv6hdr *ip)
{
	pw_opaque(ip);
	if (ip->nexthdr == IPPROTO_UDP)
		return 1;
	__u8 *tcp = (void *)(ip + 1);
	if (ip->nexthdr != IPPROTO_TCP || (void *)(tcp + PW_TCP_FLAGS_END) > cursor->end ||
	    pw_be16(ip->payload_len) < PW_TCP_FLAGS_END)
		return 0;
	return (tcp[13] & (PW_TCP_SYN | PW_TCP_ACK)) != PW_TCP_SYN;
}

/* The upper layer of an IPv4 packet whose header was checked. */
static __always_inline void pw_parse_upper4(struct xdp_md *context, struct pw_cursor *cursor,
					    struct iphdr *ip, struct pw_packet *packet)
{
	packet->ports_known = packet->sport = packet->dport = 0;
	packet->upper = PW_UPPER_OTHER;
	if (ip->protocol != IPPROTO_TCP)
		return;
	__u32 header = ip->ihl * 4;
	__u32 total = pw_be16(ip->tot_len);
	__u32 fragment = pw_be16(ip->frag_off);
	__u32 offset = fragment & PW_FRAGMENT_OFFSET;
	if (offset) {
		/* At offset 1 (8 bytes) the flags come; behind it nothing that matters. */
		if (offset == 1)
			packet->upper = PW_UPPER_OPAQUE;
		return;
	}
	if (total < header) {
		packet->upper = PW_UPPER_SHORT;
		return;
	}
	cursor->at = (void *)ip + header;
	cursor->remaining = total - header;
	pw_parse_tcp(context, cursor, fragment & PW_FRAGMENT_MORE, packet);
}

/* The upper layer of an IPv6 packet, behind up to PW_EXT_MAX extension headers. */
static __always_inline void pw_parse_upper6(struct xdp_md *context, struct pw_cursor *cursor,
					    struct ipv6hdr *ip, struct pw_packet *packet)
{
	volatile __u32 *length = &packet->length;
	__u32 next = ip->nexthdr;
	int part = 0;

	cursor->at = ip + 1;
	cursor->remaining = pw_be16(ip->payload_len);
	if (!cursor->remaining) /* a jumbogram (RFC 2675): its length is in an option */
		cursor->remaining = 0xffff;
	packet->ports_known = packet->sport = packet->dport = 0;
	packet->upper = PW_UPPER_OTHER;
	for (int i = 0; i <= PW_EXT_MAX; i++) {
		if (next == IPPROTO_TCP) {
			pw_parse_tcp(context, cursor, part, packet);
			return;
		}
		struct pw_ext *ext = cursor->at;
		if (next == PW_NEXT_ICMP6) {
			if ((void *)(ext + 1) <= cursor->end && ext->next >= PW_ICMP6_RS &&
			    ext->next <= PW_ICMP6_REDIRECT)
				packet->upper = PW_UPPER_ND;
			return;
		}
		if (next != PW_NEXT_HOP && next != PW_NEXT_ROUTING && next != PW_NEXT_FRAGMENT &&
		    next != PW_NEXT_AUTH && next != PW_NEXT_OPTIONS && next != PW_NEXT_MOBILITY &&
		    next != PW_NEXT_HIP && next != PW_NEXT_SHIM6)
			return;
		if (cursor->remaining < 8) {
			packet->upper = part ? PW_UPPER_OPAQUE : PW_UPPER_SHORT;
			return;
		}
		if (cursor->at + 8 > cursor->end) {
			packet->upper = pw_cut(context, cursor);
			return;
		}
		*length = (ext->length + 1) * 8;
		if (next == PW_NEXT_FRAGMENT) {
			__u32 offset = pw_be16(ext->offset) >> 3;
			*length = 8;
			part |= pw_be16(ext->offset) & 1;
			if (offset) {
				/* Behind the first fragment: only TCP's flags at offset 1, or headers that
				 * a lax stack would still walk. */
				if (ext->next == IPPROTO_TCP ? offset == 1 : ext->next == PW_NEXT_OPTIONS)
					packet->upper = PW_UPPER_OPAQUE;
				return;
			}
		} else if (next == PW_NEXT_AUTH) {
			*length = (ext->length + 2) * 4; /* RFC 4302 */
		}
		next = ext->next;
		__u32 bytes = *length & 0xfff;
		if (cursor->remaining < bytes) {
			packet->upper = part ? PW_UPPER_OPAQUE : PW_UPPER_SHORT;
			return;
		}
		cursor->at += bytes;
		cursor->remaining -= bytes;
	}
	packet->upper = PW_UPPER_OPAQUE;
}

#endif
