/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Copyright: (c) 2026, Packetwatch authors */
/*
 * Parsing of Ethernet and TCP. A cursor walks the headers; each step either moves it or says how
 * the packet ends. PW_UPPER_OPAQUE means that the packet is beyond our limits, PW_UPPER_SHORT that
 * it is cut short: a stack may accept the first, but not the second.
 *
 * A packet may lie in several buffers, and even the first headers may not be in the first one. So
 * there are two kinds of cursors. The first kind reads the first buffer where it is. If this ends
 * too early, a cursor of the second kind begins again: it copies each header that it reads.
 */
#ifndef PACKETWATCH_PARSE_H
#define PACKETWATCH_PARSE_H

#define PW_ETH_UNREAD 0x10000 /* instead of an EtherType */
/* EtherTypes as in the packet. */
#define PW_ETH_IPV4 pw_be16(ETH_P_IP)
#define PW_ETH_IPV6 pw_be16(ETH_P_IPV6)
#define PW_ETH_VLAN pw_be16(ETH_P_8021Q)
#define PW_ETH_VLAN_SERVICE pw_be16(ETH_P_8021AD)
#define PW_TCP_PORTS_END 4
#define PW_TCP_FLAGS_END 14 /* size of a TCP header up to its flags */
#define PW_TCP_SIZE 20      /* of one without options */
#define PW_TCP_FIN 0x01
#define PW_TCP_SYN 0x02
#define PW_TCP_RST 0x04
#define PW_TCP_ACK 0x10
/* The length of the header, in words, is in the bits above the flags. */
#define PW_TCP_WORDS 0xf000
#define PW_TCP_NO_OPTIONS 0x5000
#define PW_UDP_SIZE 8
#define PW_SCTP_CHUNK_END 16 /* size of SCTP's header and of the header of a chunk */
#define PW_SCTP_INIT 1
#define PW_SCTP_COOKIE_ECHO 10

struct pw_vlan {
	__be16 tci;
	__be16 type;
};

/* `copies` is a constant wherever the functions below are inlined: each call compiles to the code of
 * one kind of cursor. */
struct pw_cursor {
	int copies;
	void *at;             /* without copies: the next bytes, */
	void *end;            /* and the end of the first buffer */
	struct pw_copies *to; /* with copies: where they go */
	__u32 offset;         /* with copies: of the next bytes in the packet */
	__u32 remaining;      /* bytes from here on by the length in the IP header */
};

/* Point `found` to the next bytes, which are in `copy` if the cursor copies. False if they cannot be
 * read: without copies because the buffer ends, with copies because the packet ends. */
static __always_inline int pw_read(struct xdp_md *context, struct pw_cursor *cursor, __u32 size,
				   void *copy, void **found)
{
	if (cursor->copies) {
		*found = copy;
		return !bpf_xdp_load_bytes(context, cursor->offset, copy, size);
	}
	*found = cursor->at;
	return cursor->at + size <= cursor->end;
}

static __always_inline void pw_skip(struct pw_cursor *cursor, __u32 bytes)
{
	if (cursor->copies)
		cursor->offset += bytes;
	else
		cursor->at += bytes;
}

/* The upper layer of a packet in which the next bytes cannot be read. */
static __always_inline __u32 pw_unread_upper(struct pw_cursor *cursor)
{
	return cursor->copies ? PW_UPPER_SHORT : PW_UPPER_UNREAD;
}

/* The EtherType after up to PW_VLAN_MAX tags, as in the packet. It is the type of a tag if there are
 * more tags, and PW_ETH_UNREAD if it cannot be read. */
static __always_inline __u64 pw_parse_ethernet(struct xdp_md *context, struct pw_cursor *cursor)
{
	void *ethernet;
	if (!pw_read(context, cursor, sizeof(struct ethhdr), cursor->to->header, &ethernet))
		return PW_ETH_UNREAD;
	/* Read as the second half of a tag: struct ethhdr is packed, so compilers read its field
	 * bytewise. */
	struct pw_vlan *tag = ethernet + sizeof(struct ethhdr);
	__u64 type = tag[-1].type;
	pw_skip(cursor, sizeof(struct ethhdr));
	if (type == PW_ETH_IPV4) {
		pw_barrier_var(cursor->at); /* otherwise it checks the other types first */
		return type;
	}
#pragma unroll
	for (int i = 0; i < PW_VLAN_MAX; i++) {
		if (type != PW_ETH_VLAN && type != PW_ETH_VLAN_SERVICE)
			break;
		if (!pw_read(context, cursor, sizeof(*tag), cursor->to->header, (void **)&tag))
			return PW_ETH_UNREAD;
		type = tag->type;
		pw_skip(cursor, sizeof(*tag));
	}
	return type;
}

/* The 16 bits with the header's length and the flags, as in the packet. */
static __always_inline __u64 pw_tcp_word(__u8 *tcp)
{
	return *(__be16 *)(tcp + 12);
}

/*
 * Whether a segment with ACK may be one that nobody here expects: then its socket is looked up. That
 * is a SYN, or a segment with neither options nor data. So established connections do not pay that
 * use timestamps (RFC 7323), nor data. A reset asks for no answer. `word` is that with the flags, as
 * in the packet; `length` is that of header and data, or 0 if unknown.
 */
static __always_inline int pw_tcp_is_unasked(__u64 word, __u32 length)
{
	if (word & bpf_htons(PW_TCP_SYN))
		return !(word & bpf_htons(PW_TCP_RST));
	return (word & bpf_htons(PW_TCP_WORDS)) == bpf_htons(PW_TCP_NO_OPTIONS) &&
	       length == PW_TCP_SIZE && !(word & bpf_htons(PW_TCP_RST));
}

/*
 * What the flags of a TCP header say. After the SYN every segment has ACK, except a reset (RFC 9293,
 * sections 3.5.2 and 3.10.7). So nothing else has a reason to come without it; such packets only ask
 * how the port answers. ECN, data and urgent data may come with a SYN.
 */
static __always_inline __u32 pw_tcp_upper(__u8 *tcp, __u32 length)
{
	__u8 flags = tcp[13];
	if (flags & PW_TCP_ACK)
		return pw_tcp_is_unasked(pw_tcp_word(tcp), length) ? PW_UPPER_ACK : PW_UPPER_OTHER;
	if (flags & PW_TCP_SYN)
		return flags & PW_TCP_FIN ? PW_UPPER_STEALTH : PW_UPPER_SYN;
	return flags & PW_TCP_RST ? PW_UPPER_OTHER : PW_UPPER_STEALTH;
}

static __always_inline void pw_store_ports(__u8 *header, struct pw_packet *packet)
{
	packet->sport = (__u16)(header[0] << 8 | header[1]);
	packet->dport = (__u16)(header[2] << 8 | header[3]);
	packet->ports_known = 1;
}

/* Parse the TCP header at the cursor. first_fragment: the packet continues in other fragments. */
static __always_inline void pw_parse_tcp(struct xdp_md *context, struct pw_cursor *cursor,
					 int first_fragment, struct pw_packet *packet)
{
	void *copy = cursor->to->header;
	__u8 *tcp;
	if (pw_unlikely(cursor->remaining < PW_TCP_FLAGS_END)) {
		packet->upper = first_fragment ? PW_UPPER_OPAQUE : PW_UPPER_SHORT;
		if (cursor->remaining < PW_TCP_PORTS_END)
			return;
		if (!pw_read(context, cursor, PW_TCP_PORTS_END, copy, (void **)&tcp)) {
			if (!cursor->copies)
				packet->upper = PW_UPPER_UNREAD;
			return;
		}
	} else if (pw_unlikely(!pw_read(context, cursor, PW_TCP_FLAGS_END, copy, (void **)&tcp))) {
		packet->upper = pw_unread_upper(cursor);
		return;
	} else {
		packet->upper = pw_tcp_upper(tcp, first_fragment ? 0 : cursor->remaining);
		if (packet->upper == PW_UPPER_OTHER)
			return;
	}
	pw_store_ports(tcp, packet);
}

static __always_inline int pw_is_unused_protocol(__u8 protocol)
{
	__u64 low = protocol & 64 ? PW_UNUSED_PROTOCOLS_64 : PW_UNUSED_PROTOCOLS_0;
	__u64 high = protocol & 64 ? PW_UNUSED_PROTOCOLS_192 : PW_UNUSED_PROTOCOLS_128;
	return (protocol & 128 ? high : low) >> (protocol & 63) & 1;
}

/* Parse the first header of a protocol other than TCP, at the cursor. */
static __always_inline void pw_parse_other(struct xdp_md *context, struct pw_cursor *cursor,
					   __u8 protocol, struct pw_packet *packet)
{
	__u8 *header;
	if (protocol != IPPROTO_UDP && protocol != IPPROTO_SCTP) {
		if (!pw_is_unused_protocol(protocol))
			return;
		packet->upper = PW_UPPER_PROTO;
		packet->dport = protocol;
		packet->ports_known = 1;
		return;
	}
	int is_udp = protocol == IPPROTO_UDP;
	/* A stack drops what is shorter. */
	if (cursor->remaining < (is_udp ? PW_UDP_SIZE : PW_SCTP_CHUNK_END))
		return;
	if (is_udp ? !pw_read(context, cursor, PW_UDP_SIZE, cursor->to->header, (void **)&header) :
		     !pw_read(context, cursor, PW_SCTP_CHUNK_END, cursor->to->header,
			      (void **)&header)) {
		if (!cursor->copies)
			packet->upper = PW_UPPER_UNREAD;
		return;
	}
	if (!is_udp && header[12] != PW_SCTP_INIT && header[12] != PW_SCTP_COOKIE_ECHO)
		return;
	packet->upper = is_udp ? PW_UPPER_UDP : PW_UPPER_SCTP;
	pw_store_ports(header, packet);
}

#endif
