/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Copyright: (c) 2026, Packetwatch authors */
/*
 * The constants and layouts that the XDP program and user space share. plugins/module_utils/_kernel/abi.py
 * mirrors them, and a test compares the mirror with this file's BTF.
 *
 * Two versions never read each other's layouts. If the layout of a pinned map changes, the map gets
 * another name: an upgrade makes it anew and keeps all other maps, so bans survive. If a generation
 * changes, or the name of a map, increment PW_FORMAT. PW_ABI is part of the pins' path: change it
 * only if no map can be kept.
 */
#ifndef PACKETWATCH_ABI_H
#define PACKETWATCH_ABI_H

#define PW_ABI 1
#define PW_FORMAT 12         /* of generations (docs/tables.md), and of the names of pinned maps */
#define PW_MAGIC 0x50573031U /* "PW01" */

/* Limits of the parser. A packet beyond them never passes unchecked. */
#define PW_VLAN_MAX 2
#define PW_EXT_MAX 8

#define PW_PAGE_SIZE 73728U
#define PW_POLICY_OFFSET 32768U
#define PW_POLICY_SLOTS 1024U
#define PW_POLICY_PROBES 4
#define PW_TRACK_SLOTS 64

/* One address, IPv4 as ::ffff:a.b.c.d, in network byte order. */
struct pw_addr {
	__u32 word[4];
};

/* The key of bans and tracks: an address, or its /64. plen counts all 128 bits: 128 or 64. */
struct pw_source {
	__u32 plen;
	struct pw_addr addr;
};

/* The map "nexts" has the next program of an interface at ifindex % PW_NEXT_SLOTS. */
#define PW_NEXT_SLOTS 4096

/* What the lists say about an address. */
enum pw_verdict {
	PW_NONE = 0,
	PW_ALLOW = 1,
	PW_DENY = 2,
};

enum pw_feature {
	PW_F_LISTS4 = 1 << 0,
	PW_F_LISTS6 = 1 << 1,
	PW_F_SCOPE_ALL = 1 << 2, /* bans drop all packets on some interface, not only SYNs */
	PW_F_ENFORCED = 1 << 3,  /* every policy has PW_ACTION_ENFORCE */
	PW_F_ACK = 1 << 4,       /* some policy counts PW_KIND_ACK */
	PW_F_PROTOCOLS = 1 << 5, /* some policy counts a kind that is not TCP */
	PW_F_NEXT = 1 << 6,      /* some interface has a next program */
};

enum pw_action {
	PW_ACTION_ENFORCE = 0,
	PW_ACTION_MONITOR = 1,
	PW_ACTION_OFF = 2,
};

enum pw_counts {
	PW_COUNTS_CLOSED = 0,
	PW_COUNTS_ANY = 1,
};

enum pw_scope {
	PW_SCOPE_CONNECTIONS = 0,
	PW_SCOPE_ALL = 1,
};

/* What decides the control traffic of the link. */
enum pw_link_control {
	PW_LINK_CONTROL_PASS = 0,
	PW_LINK_CONTROL_LISTS = 1, /* the lists, like all other packets */
};

/* What happens to packets that count because their port is closed. */
enum pw_closed_ports {
	PW_CLOSED_PORTS_RESET = 0, /* the kernel answers them */
	PW_CLOSED_PORTS_DROP = 1,
};

enum pw_log {
	PW_LOG_ALL = 0,
	PW_LOG_SAMPLED = 1,
	PW_LOG_NONE = 2,
};

/* The header of a generation, at the start of page 0. */
struct pw_header {
	__u32 magic;
	__u32 abi;
	__u32 pages;
	__u32 features;
	__u32 v4_shift;
	__u32 v4_page;
	__u32 v6_page;
	__u32 v6_buckets;      /* home buckets of IPv6 hosts; 0: no hosts */
	__u32 v6_hosts;        /* line of the IPv6 area where they start; 0: it has only hosts */
	__u32 format;          /* PW_FORMAT */
	__u64 ban_interval_ns; /* average between scan bans: longest ban_time * 4/3 / capacity */
	__u64 ban_burst_ns;    /* burst above that rate: a quarter of the ring */
	__u64 ring_capacity;   /* entries of scan_ring that are in use */
	__u64 event_interval_ns, event_burst_ns;   /* all sources together */
	__u64 source_interval_ns, source_burst_ns; /* each source */
	/* For user space. SHA-256 of the tables and policies below, of the lists that the tables
	 * were compiled from, and of the program that this generation was made for. */
	__u8 digest[32];
	__u8 lists[32];
	__u8 bytecode[32];
	__u64 next_expiry; /* Unix seconds when the next list entry expires; 0: never */
	/* Bit n: port n is served elsewhere (published_ports); of TCP, UDP and SCTP. */
	__u64 published[3][1024];
	__u64 valid_from; /* Unix seconds before which expired entries would count again; 0: none would */
};

/* The policy of an interface. The slots start at PW_POLICY_OFFSET. An interface has the first free
 * slot among (ifindex + k) % PW_POLICY_SLOTS, k < PW_POLICY_PROBES, except slot 0. Slot 0 is the
 * default policy (ifindex 0) of all interfaces without a slot. */
struct pw_policy {
	__u32 ifindex;
	__u8 action;
	__u8 counts;
	__u8 scope;
	__u8 log;
	__u32 scan_ports;
	__u8 link_control;
	__u8 kinds;  /* a bit for each enum pw_kind that counts */
	__u8 closed; /* enum pw_closed_ports */
	__u8 reserved;
	__u64 window_ns;
	__u64 grace_ns;
	__u64 ban_ns;
};

enum pw_origin {
	PW_ORIGIN_SCAN = 1,
	PW_ORIGIN_MANUAL = 2,
	PW_ORIGIN_FLEET = 3,
};

/* What kind of probe reached the threshold. The flags of bans and events have it, from bit
 * PW_KIND_SHIFT on. */
enum pw_kind {
	PW_KIND_SYN = 0, /* also a packet that hides its port or its flags */
	PW_KIND_STEALTH = 1,
	PW_KIND_ACK = 2,
	PW_KIND_UDP = 3,
	PW_KIND_SCTP = 4,
	PW_KIND_PROTO = 5,
	PW_KIND_SLOW = 6, /* the agent counted it, over hours */
	PW_KINDS = 7,
};
#define PW_KIND_SHIFT 4 /* three bits: all bans before this field are of the kind syn */

enum pw_ban_flag {
	PW_BAN_OVERFLOW = 1 << 0, /* a short ban above the ban rate, in the map overflow */
	PW_BAN_CONNECTIONS = 1
		<< 1, /* in the map bans: drops new connections only, whatever the scope */
	PW_BAN_ANSWER = 1
		<< 2, /* user space writes it: the source has a connection with this host */
};

/* Times are CLOCK_MONOTONIC nanoseconds; expires 0 means never. */
struct pw_ban {
	__u64 since;
	__u64 expires;
	__u64 dropped; /* packets that this ban dropped, or would have dropped in monitor mode */
	__u64 slot;    /* its entry of scan_ring, for scan bans */
	__u32 ifindex;
	__u16 ports; /* distinct probes of the scan */
	__u8 origin;
	__u8 flags;
};

/*
 * A probe is a number of 32 bits: the port, and above it 15 bits of a hash of the destination. The
 * highest bit is set if the packet hides its port; then the other bits are random. A time has 32 bits
 * too: ns >> PW_TIME_SHIFT, so it wraps after 208 days.
 */
#define PW_PROBE_HIDDEN 0x80000000U
#define PW_TIME_SHIFT 22

struct pw_track {
	__u64 slot[PW_TRACK_SLOTS]; /* time << 32 | probe; 0: free */
	__u64 claimed; /* when a CPU last claimed the scan, to ban and log it, in ns; 0: never */
};

/*
 * A source that has made one probe so far, in the array "firsts2". Most sources of a flood never make
 * a second one, and a track is ten times as large. The source's hash selects the set.
 */
#define PW_FIRST_SETS 16384
#define PW_FIRST_WAYS 4
struct pw_first {
	__u64 key;   /* bits 32-63 of the hash << 32 | probe; 0: free */
	__u64 stamp; /* time << 32 | bits 16-47 of the hash, or of the one that replaces it */
};

struct pw_firsts {
	struct pw_first way[PW_FIRST_WAYS];
};

/* A protected address, in the map "hosts"; expires as in struct pw_ban. */
struct pw_host {
	__u64 expires;
	__u32 origin; /* why it is protected: for user space */
	__u32 reserved;
};

enum pw_net_flag {
	PW_NET_PROTECTED = 1 << 0, /* never ban its sources */
	PW_NET_SINGLE = 1 << 1,    /* ban its IPv6 sources by /128, not by /64 */
	PW_NET_SHARED = 1 << 2,    /* unrelated hosts share its /64s: for user space, with SINGLE */
	PW_NET_LOCAL = 1 << 3,     /* a route says that its addresses are this host's own */
};

/* A key of the trie "nets". plen counts the 128 bits of the mapped address. */
struct pw_net {
	__u32 plen;
	struct pw_addr addr;
};

/*
 * pw_shared.stack. The lower half is a port: this host, or hosts for which it translates addresses,
 * open connections from this port and those above it. 0: unknown, and then it has all ports.
 */
#define PW_STACK_PORTS 0xffffffffULL
#define PW_STACK_SCTP 0x100000000ULL      /* somebody may have an SCTP socket */
#define PW_STACK_PROTOCOLS 0x200000000ULL /* a raw socket has one of the unused IP protocols */

/*
 * A bit for each IP protocol that nobody uses: its number is not assigned, or long forgotten. Left
 * out are those that a kernel module, a routing daemon or a tunnel may have (docs/detection.md).
 */
#define PW_UNUSED_PROTOCOLS_0 0x413305fdfffdfda8ULL
#define PW_UNUSED_PROTOCOLS_64 0xefb0ef71bcffffefULL
#define PW_UNUSED_PROTOCOLS_128 0xfffffffffffc000fULL
#define PW_UNUSED_PROTOCOLS_192 0x1fffffffffffffffULL

/* State that all CPUs share, in the array "shared" (one entry). */
struct pw_shared {
	__u64 has_bans;      /* user space writes it: the map "bans" may have entries */
	__u64 has_scan_bans; /* the program writes it: scan_bans or overflow may have entries */
	__u64 seed;          /* of the hash of sources, so that attackers cannot choose a set */
	__u64 listeners_read; /* when the agent last wrote all listeners to open_ports, in ns; 0: never */
	__u64 has_local_nets; /* user space writes it: nets with PW_NET_LOCAL exist */
	__u64 stack;          /* what user space knows of the network stack: PW_STACK_ says what */
	__u64 padding;
	__u64 probe_tat; /* as ban_tat below; it changes 200 times a second */
	/* Every SYN reads the fields above; the fields below change often. */
	__u64 ring_head; /* entries of scan_ring that were handed out so far */
	__u64 ban_tat;   /* theoretical arrival times of the rate limits (GCRA), ns */
	__u64 event_tat;
	__u64 sequence; /* of the last event; the first one has 1 */
};

enum pw_event_type {
	PW_EVENT_CONNECTION = 1,
	PW_EVENT_BAN = 2,
	/* monitor: this packet passed; count is its pw_reason, or PW_DROP_BOGUS, PW_DROP_CLOSED, or
	 * PW_DROP_VLAN. With PW_DROP_VLAN only time and ifindex are known. */
	PW_EVENT_WOULD_DROP = 3,
	/* A probe that counts and is new within scan_window, for user space. It is not logged, and has no
	 * sequence. Its flags have its kind, and plen is that of its source. */
	PW_EVENT_PROBE = 4,
};

enum pw_event_flag {
	PW_EVENT_MONITOR = 1 << 0,   /* not enforced: the policy only monitors */
	PW_EVENT_PROTECTED = 1 << 1, /* a scan by a protected source: not banned */
	PW_EVENT_OVERFLOW = 1 << 2,  /* a short ban above the ban rate */
	PW_EVENT_OPAQUE = 1 << 3,    /* upper layer unknown: ports may be 0 */
	PW_EVENT_ANSWER = 1 << 7,    /* the agent adds it: as PW_BAN_ANSWER */
};

struct pw_event {
	__u64 time; /* CLOCK_MONOTONIC, ns */
	__u64 sequence;
	__u64 expires; /* as in struct pw_ban */
	__u32 ifindex;
	__u8 type;
	__u8 family; /* 4 or 6 */
	__u8 flags;
	__u8 plen; /* of a scan's or probe's source: 32, 64, 128 */
	struct pw_addr saddr;
	struct pw_addr daddr;
	__u16 sport; /* host byte order */
	__u16 dport;
	__u16 count;     /* distinct probes of a scan */
	__u16 listed;    /* number of ports in ports[] */
	__u16 ports[64]; /* of a scan; other events end before it */
};
#define PW_EVENT_SHORT 72 /* size of an event without ports[] */

/* Why a packet passes or drops; each packet has exactly one reason. */
enum pw_reason {
	PW_PASS_UNLISTED = 0,
	PW_PASS_ALLOW = 1,
	PW_PASS_NOT_IP = 2,
	PW_PASS_MALFORMED = 3,
	PW_PASS_OPAQUE = 4,       /* upper layer unknown; counted towards a scan */
	PW_PASS_MONITOR_DENY = 5, /* PW_DROP_DENY if the policy enforced */
	PW_PASS_MONITOR_BAN = 6,
	PW_PASS_MONITOR_SCAN = 7,
	PW_PASS_PROTECTED = 8, /* a ban or a scan, but the source is protected */
	PW_PASS_OFF = 9,
	PW_PASS_NO_TABLES = 10,
	PW_PASS_LINK_CONTROL = 11, /* control traffic of the link from a denied source */
	PW_DROP_DENY = 12,
	PW_DROP_BAN = 13,
	PW_DROP_SCAN = 14,   /* the packet that reached the threshold */
	PW_DROP_VLAN = 15,   /* more tags than PW_VLAN_MAX */
	PW_DROP_BOGUS = 16,  /* a source that no packet on a link may have */
	PW_DROP_CLOSED = 17, /* its port is closed, and closed_ports is drop */
	PW_REASONS = 18,
};

enum pw_family {
	PW_OTHER = 0,
	PW_IPV4 = 1,
	PW_IPV6 = 2,
	PW_FAMILIES = 3,
};

/* The value of the per-CPU array "counters4" (one entry). Each packet counts in exactly one cell of
 * packets[][]. */
struct pw_counters {
	__u64 packets[PW_REASONS][PW_FAMILIES];
	__u64 connections[PW_FAMILIES]; /* SYNs without ACK that neither a list nor a ban dropped */
	__u64 scans[PW_KIND_SLOW]; /* thresholds reached, by kind; the agent counts slow scans */
	__u64 bans;                /* scan bans written */
	__u64 bans_overflow;
	__u64 bans_failed;
	__u64 firsts_evicted; /* first ports evicted within their window */
	__u64 tracks_inserted;
	__u64 tracks_failed;
	__u64 events;
	__u64 events_suppressed;
	__u64 events_lost; /* the ring buffer was full */
	__u64 probes;      /* new probes written to the ring buffer */
	__u64 probes_lost; /* new probes above their limit, or the ring buffer was full */
};

#endif
