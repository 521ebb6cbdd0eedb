/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Copyright: (c) 2026, Packetwatch authors */
/* Types that only the program uses. */
#ifndef PACKETWATCH_PRIVATE_H
#define PACKETWATCH_PRIVATE_H

struct pw_page {
	__u64 word[PW_PAGE_SIZE / 8];
};

#define PW_UNDECIDED PW_REASONS /* the lists have not told how a packet ends */

enum pw_upper {
	PW_UPPER_OTHER = 0, /* not the beginning of a TCP connection */
	PW_UPPER_SYN = 1,
	PW_UPPER_OPAQUE = 2, /* cannot be told: treated with suspicion */
	PW_UPPER_SHORT = 3,  /* cut short: no stack would take it */
	PW_UPPER_ND = 4,     /* neighbour discovery, router discovery */
};

/* What the parser found out. Addresses as in the packet; ports in host byte order. */
struct pw_packet {
	__u32 family; /* enum pw_family */
	__u32 upper;  /* enum pw_upper */
	__u32 ports_known;
	__u32 ifindex;
	__u32 passed; /* enum pw_reason, if nothing speaks against it */
	__u32 flags;  /* of events */
	__u32 length; /* of the extension header that is being skipped, bytes */
	__u32 denied; /* by the lists, and passes only because we monitor */
	__u16 sport;
	__u16 dport;
	struct pw_addr saddr;
	struct pw_addr daddr;
};

#define PW_CLOSED 16

/* A port of ours that nobody served at that time. */
struct pw_closed {
	__u64 when;
	struct pw_addr daddr;
	__u32 ifindex;
	__u16 family;
	__u16 port;
};

/* Per-CPU working memory. What was parsed and what steers loops lives here, not in registers or on
 * the stack: the verifier takes what it reads back for unknown and does not follow every value and
 * every path that led to it (tens of thousands of instructions instead of more than a million). */
struct pw_scratch {
	struct pw_packet packet;
	struct pw_source source;
	volatile __u64 now;
	volatile __u64 port;
	volatile __u64 index; /* volatile: or the compiler keeps them in registers after all */
	volatile __u64 fresh;
	volatile __u64 distinct;
	__u16 ports[PW_TRACK_SLOTS]; /* the first `distinct` are those of the scan found last */
	__u64 seen[1024]; /* one bit a port; all zero between packets */
	volatile __u64 hash;
	struct pw_closed closed[PW_CLOSED];
	struct pw_track first; /* all zero but the slots up to PW_FIRST_WAYS */
};

/* One more of an unlimited number of ports, for what hides its port. */
#define pw_some_port() ((__u16)bpf_get_prandom_u32())

#define pw_read(x) (*(volatile __u64 *)&(x))
/* Compilers make a branch of arithmetic that avoids one, unless they are kept from seeing through it. */
#define pw_opaque(x) asm volatile("" : "+r"(x))
#define pw_unlikely(x) __builtin_expect(!!(x), 0)

#endif
