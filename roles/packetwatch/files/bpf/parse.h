/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Copyright: (c) 2026, Packetwatch authors */
/*
 * Parsing of Ethernet and TCP. A cursor walks the headers; each step either moves it or says how
 * the packet ends. PW_UPPER_OPAQUE means that the packet is beyond our limits, PW_UPPER_SHORT that
 * it is cut short: a stack may accept the first, but not the second.
 */
#ifndef PACKETWATCH_PARSE_H
#define PACKETWATCH_PARSE_H

/* EtherTypes as in the packet. */
#define PW_ETH_IPV4 pw_be16(ETH_P_IP)
#define PW_ETH_IPV6 pw_be16(ETH_P_IPV6)
#define PW_ETH_VLAN pw_be16(ETH_P_8021Q)
#define PW_ETH_VLAN_SERVICE pw_be16(ETH_P_8021AD)
#define PW_TCP_PORTS_END 4
#define PW_TCP_FLAGS_END 14 /* size of a TCP header up to its flags */
#define PW_TCP_SYN 0x02
#define PW_TCP_SYN_ACK 0x12 /* SYN without ACK begins a connection */

struct pw_vlan {
	__be16 tci;
	__be16 type;
};

struct pw_cursor {
	void *at;
	void *end;       /* of the bytes that the program can read */
	__u32 remaining; /* bytes after `at` by the length in the IP header */
};

/* Why the next bytes cannot be read: the packet ends, or it continues where the program cannot
 * read. */
static __always_inline __u32 pw_short_or_opaque(struct xdp_md *context, struct pw_cursor *cursor)
{
	void *start = (void *)(long)context->data;
	__u64 claimed = (__u64)(cursor->at - start) + cursor->remaining;
	return bpf_xdp_get_buff_len(context) < claimed ? PW_UPPER_SHORT : PW_UPPER_OPAQUE;
}

/* The EtherType after up to PW_VLAN_MAX tags, as in the packet; 0 if the frame is cut short. It is
 * the type of a tag if there are more tags. */
static __always_inline __u64 pw_parse_ethernet(struct pw_cursor *cursor)
{
	struct ethhdr *ethernet = cursor->at;
	if ((void *)(ethernet + 1) > cursor->end)
		return 0;
	/* Read as the second half of a tag: struct ethhdr is packed, so compilers read its field
	 * bytewise. */
	struct pw_vlan *tag = (struct pw_vlan *)(ethernet + 1);
	__u64 type = tag[-1].type;
	cursor->at = tag;
	if (type == PW_ETH_IPV4) {
		pw_barrier_var(cursor->at); /* otherwise it checks the other types first */
		return type;
	}
#pragma unroll
	for (int i = 0; i < PW_VLAN_MAX; i++) {
		if (type != PW_ETH_VLAN && type != PW_ETH_VLAN_SERVICE)
			break;
		if ((void *)(tag + 1) > cursor->end)
			return 0;
		type = tag->type;
		cursor->at = ++tag;
	}
	return type;
}

/* Parse the TCP header at the cursor. first_fragment: the packet continues in other fragments. */
static __always_inline void pw_parse_tcp(struct xdp_md *context, struct pw_cursor *cursor,
					 int first_fragment, struct pw_packet *packet)
{
	__u8 *tcp = cursor->at;
	if (pw_unlikely(cursor->remaining < PW_TCP_FLAGS_END)) {
		packet->upper = first_fragment ? PW_UPPER_OPAQUE : PW_UPPER_SHORT;
		if (cursor->remaining < PW_TCP_PORTS_END ||
		    (void *)(tcp + PW_TCP_PORTS_END) > cursor->end)
			return;
	} else if (pw_unlikely((void *)(tcp + PW_TCP_FLAGS_END) > cursor->end)) {
		packet->upper = pw_short_or_opaque(context, cursor);
		return;
	} else {
		__u8 flags = tcp[13];
		if ((flags & PW_TCP_SYN_ACK) != PW_TCP_SYN) {
			packet->upper = PW_UPPER_OTHER;
			return;
		}
		packet->upper = PW_UPPER_SYN;
	}
	packet->sport = (__u16)(tcp[0] << 8 | tcp[1]);
	packet->dport = (__u16)(tcp[2] << 8 | tcp[3]);
	packet->ports_known = 1;
}

#endif
