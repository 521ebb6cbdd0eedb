/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Copyright: (c) 2026, Packetwatch authors */
/*
 * Per-CPU working memory. It holds what the program knows about the packet, and what controls its
 * loops. The verifier treats values that are read back from it as unknown, so it does not follow
 * each value and each path that led to it. It processes 200,000 instructions instead of the more
 * than a million that registers and the stack would take.
 */
#ifndef PACKETWATCH_SCRATCH_H
#define PACKETWATCH_SCRATCH_H

enum pw_upper {
	PW_UPPER_OTHER = 0,   /* not the start of a TCP connection */
	PW_UPPER_SYN = 1,     /* SYN without ACK and FIN */
	PW_UPPER_OPAQUE = 2,  /* unknown, but a stack may accept it: treated as suspicious */
	PW_UPPER_SHORT = 3,   /* cut short: no stack accepts it */
	PW_UPPER_LINK = 4,    /* control traffic of the link: link.h says what that is */
	PW_UPPER_UNREAD = 5,  /* not in the first buffer */
	PW_UPPER_STEALTH = 6, /* TCP flags that only a scanner sends: parse.h says which */
	/* Those below count only if nobody here expects them. */
	PW_UPPER_ACK = 7,    /* TCP with ACK: a bare segment, or a SYN */
	PW_UPPER_UDP = 8,    /* a datagram, or its first fragment */
	PW_UPPER_SCTP = 9,   /* begins an association: INIT or COOKIE ECHO */
	PW_UPPER_PROTO = 10, /* an IP protocol that is not in use; its number is in dport */
};

/* Headers of a packet that a cursor has copied. */
struct pw_copies {
	__u64 ip[5];     /* the IP header, without options */
	__u64 header[2]; /* any other, or its start */
};

/* Addresses as in the packet; ports in host byte order. */
struct pw_packet {
	__u32 family; /* enum pw_family */
	__u32 upper;  /* enum pw_upper */
	__u32 ports_known;
	__u32 ifindex;
	__u32 reason; /* enum pw_reason, unless a later check drops the packet */
	__u32 event_flags;
	__u32 ext_length; /* bytes of the extension header that is being skipped */
	__u32 denied; /* PW_DROP_DENY or PW_PASS_MONITOR_DENY if a list denies it, or it is bogus */
	__u32 bogus;  /* a list does not deny it, but no packet may have its source */
	__u32 nobody; /* its source is never banned */
	__u64 flow;   /* hash of its addresses and ports, if known.h shall keep it; otherwise 0 */
	__u16 sport;
	__u16 dport;
	struct pw_addr saddr;
	struct pw_addr daddr;
};

/* The kind of the probe that the packet is. */
static __always_inline __u32 pw_kind_of(struct pw_packet *packet)
{
	if (packet->upper >= PW_UPPER_ACK) /* the mask is for the verifier */
		return (packet->upper - PW_UPPER_ACK + PW_KIND_ACK) & 7;
	return packet->upper == PW_UPPER_STEALTH ? PW_KIND_STEALTH : PW_KIND_SYN;
}

#define PW_CLOSED_SLOTS 16
#define PW_KNOWN_SLOTS 1024

/* A local port that was closed at that time. */
struct pw_closed {
	__u64 when;
	struct pw_addr daddr;
	__u32 ifindex;
	__u16 family;
	__u16 port;
};

/* Volatile, because the compiler would otherwise keep these values in registers. */
struct pw_scratch {
	struct pw_packet packet;
	struct pw_source source;
	volatile __u64 now;
	volatile __u64 probe;
	volatile __u64 index;
	volatile __u64 fresh; /* slots within the window */
	volatile __u64 distinct;
	volatile __u64 is_new;        /* the probe was not in the window before */
	volatile __u64 listed;        /* distinct probes with a known port */
	__u16 ports[PW_TRACK_SLOTS];  /* of these, in the last scan */
	__u16 folded[PW_TRACK_SLOTS]; /* their bits in `seen` */
	__u64 seen[1024];             /* one bit a probe; all zero between packets */
	volatile __u64 hash;
	struct pw_copies copies;
	struct pw_closed closed[PW_CLOSED_SLOTS];
	volatile __u64 known[PW_KNOWN_SLOTS]; /* known.h */
	struct pw_track new_track;            /* zero, except the first PW_FIRST_WAYS + 1 slots */
};

#endif
