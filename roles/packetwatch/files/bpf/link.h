/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Copyright: (c) 2026, Packetwatch authors */
/*
 * Control traffic of the link: without it a host loses its neighbours, its multicast groups or its
 * address, whatever else the lists allow. Each check takes only what the RFCs let a node of the
 * same link send. Whole packets with nothing between the IP header and the message: RFC 6980
 * forbids fragments, and other headers only serve to evade filters (RFC 7113).
 */
#ifndef PACKETWATCH_LINK_H
#define PACKETWATCH_LINK_H

#define PW_DHCP_SERVER 67
#define PW_DHCP_CLIENT 68
#define PW_DHCPV6_CLIENT 546
#define PW_DHCPV6_SERVER 547

#define PW_ND_HOP_LIMIT 255 /* RFC 4861: so the packet has crossed no router */
#define PW_ND_FIRST 133     /* router solicitation */
#define PW_ND_ROUTER 134    /* router advertisement */
#define PW_ND_LAST 137      /* redirect */

#define PW_MLD_HOP_LIMIT 1     /* RFC 3810: so no router forwards the packet */
#define PW_MLD_FIRST 130       /* query */
#define PW_MLD_LAST 132        /* done */
#define PW_MLD_REPORT 143      /* of version 2 */
#define PW_ROUTER_ALERT 0x0502 /* RFC 2711: option and length; the value 0 after it means MLD */

enum pw_control {
	PW_CONTROL_NO = 0,
	PW_CONTROL_YES = 1,
	PW_CONTROL_UNREAD = 2, /* unknown: the first buffer ends too early */
};

struct pw_ports {
	__be16 source;
	__be16 target;
};

struct pw_icmpv6 {
	__u8 type;
	__u8 code;
	__be16 checksum;
};

/* The shortest hop-by-hop header, which has room for one Router Alert and padding, and MLD. */
struct pw_mld {
	__u8 next;
	__u8 length;
	__be16 option[3];
	struct pw_icmpv6 icmp;
};

/* In the checks below, the cursor is after the IP header. */
static __always_inline enum pw_control pw_unread_control(struct pw_cursor *cursor)
{
	return cursor->copies ? PW_CONTROL_NO : PW_CONTROL_UNREAD;
}

static __always_inline enum pw_control pw_is_between(struct xdp_md *context,
						     struct pw_cursor *cursor, __u32 source,
						     __u32 target)
{
	struct pw_ports *ports;
	if (!pw_read(context, cursor, sizeof(*ports), cursor->to->header, (void **)&ports))
		return pw_unread_control(cursor);
	return ports->source == bpf_htons(source) && ports->target == bpf_htons(target);
}

/* DHCP from a server or relay to a client. */
static __always_inline enum pw_control pw_ipv4_link_control(struct xdp_md *context,
							    struct pw_cursor *cursor,
							    struct iphdr *ip)
{
	if (ip->protocol != IPPROTO_UDP || ip->ihl != 5 ||
	    ip->frag_off & bpf_htons(PW_FRAGMENT_MORE | PW_FRAGMENT_OFFSET))
		return PW_CONTROL_NO;
	return pw_is_between(context, cursor, PW_DHCP_SERVER, PW_DHCP_CLIENT);
}

static __always_inline int pw_from_link_local(struct ipv6hdr *ip)
{
	return (ip->saddr.in6_u.u6_addr32[0] & bpf_htonl(0xffc00000)) == bpf_htonl(0xfe800000);
}

/* Solicitations and neighbour advertisements may come from any address of the sender; a router
 * advertises itself and redirects from its link-local address (RFC 4861, sections 4.1 to 4.5). */
static __always_inline enum pw_control pw_is_discovery(struct xdp_md *context,
						       struct pw_cursor *cursor, struct ipv6hdr *ip)
{
	struct pw_icmpv6 *icmp;
	if (ip->hop_limit != PW_ND_HOP_LIMIT)
		return PW_CONTROL_NO;
	if (!pw_read(context, cursor, sizeof(*icmp), cursor->to->header, (void **)&icmp))
		return pw_unread_control(cursor);
	if (icmp->code || icmp->type < PW_ND_FIRST || icmp->type > PW_ND_LAST)
		return PW_CONTROL_NO;
	return (icmp->type != PW_ND_ROUTER && icmp->type != PW_ND_LAST) || pw_from_link_local(ip);
}

/* Multicast listener discovery, versions 1 and 2 (RFC 2710, 3590, 3810). */
static __always_inline enum pw_control pw_is_mld(struct xdp_md *context, struct pw_cursor *cursor,
						 struct ipv6hdr *ip)
{
	struct pw_mld *mld;
	if (ip->hop_limit != PW_MLD_HOP_LIMIT)
		return PW_CONTROL_NO;
	if (!pw_read(context, cursor, sizeof(*mld), cursor->to->header, (void **)&mld))
		return pw_unread_control(cursor);
	if (mld->next != IPPROTO_ICMPV6 || mld->length)
		return PW_CONTROL_NO;
	__be16 alert = bpf_htons(PW_ROUTER_ALERT);
	/* Padding comes after the option, or before it. */
	if ((mld->option[0] != alert || mld->option[1]) &&
	    (mld->option[1] != alert || mld->option[2]))
		return PW_CONTROL_NO;
	__u8 type = mld->icmp.type;
	if (type != PW_MLD_REPORT && (type < PW_MLD_FIRST || type > PW_MLD_LAST))
		return PW_CONTROL_NO;
	return pw_from_link_local(ip) || pw_ipv6_is_unspecified(ip);
}

/* Discovery, MLD, or DHCPv6 from a server or relay to a client. */
static __always_inline enum pw_control pw_ipv6_link_control(struct xdp_md *context,
							    struct pw_cursor *cursor,
							    struct ipv6hdr *ip)
{
	if (ip->nexthdr == IPPROTO_ICMPV6)
		return pw_is_discovery(context, cursor, ip);
	if (ip->nexthdr == IPPROTO_HOPOPTS)
		return pw_is_mld(context, cursor, ip);
	if (ip->nexthdr == IPPROTO_UDP && pw_from_link_local(ip))
		return pw_is_between(context, cursor, PW_DHCPV6_SERVER, PW_DHCPV6_CLIENT);
	return PW_CONTROL_NO;
}

#endif
