/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Copyright: (c) 2026, Packetwatch authors */
/*
 * The steps that both IP families have. `family` is a constant wherever these functions are
 * inlined, so each call compiles to the code of one family.
 */
#ifndef PACKETWATCH_IP_H
#define PACKETWATCH_IP_H

#include "ipv4.h"
#include "ipv6.h"
#include "link.h"

/* The size of the header, without options. */
static __always_inline __u32 pw_ip_size(int family)
{
	return family == PW_IPV4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr);
}

/* Point `ip` to the header at the cursor. False if it cannot be read, or is not valid. */
static __always_inline int pw_ip_read(struct xdp_md *context, struct pw_cursor *cursor, int family,
				      void **ip)
{
	if (!pw_read(context, cursor, pw_ip_size(family), cursor->to->ip, ip))
		return 0;
	return family == PW_IPV4 ? pw_ipv4_is_valid(*ip) : pw_ipv6_is_valid(*ip);
}

/* Whether the source could be one that no other host has. */
static __always_inline int pw_ip_is_special(void *ip, int family)
{
	return family == PW_IPV4 ? pw_ipv4_is_special(ip) : pw_ipv6_is_special(ip);
}

/* Of a special source: whether no packet on a link may have it. */
static __always_inline int pw_ip_is_bogus(void *ip, int family)
{
	return family == PW_IPV4 ? pw_ipv4_is_bogus(ip) : pw_ipv6_is_bogus(ip);
}

/* Whether the source is not the address of one host: such a source is never banned. */
static __always_inline int pw_ip_is_nobody(void *ip, int family)
{
	if (family == PW_IPV4)
		return pw_ipv4_is_special(ip) || pw_ipv4_is_unspecified(ip);
	return pw_ipv6_is_special(ip) && (pw_ipv6_is_bogus(ip) || pw_ipv6_is_unspecified(ip));
}

/* The lists' verdict on the source (enum pw_verdict). */
static __always_inline __u32 pw_ip_listed(void *tables, struct pw_header *header, void *ip,
					  int family)
{
	if (family == PW_IPV4)
		return pw_lists4(tables, header, pw_be32(((struct iphdr *)ip)->saddr));
	return pw_lists6(tables, header, (__u64 *)&((struct ipv6hdr *)ip)->saddr);
}

/* Whether the packet passes without the slow path. If its flow is unknown, its hash goes to `flow`. */
static __always_inline int pw_ip_is_plain(struct pw_cursor *cursor, struct pw_header *header,
					  void *ip, int family, __u64 *flow)
{
	return family == PW_IPV4 ? pw_ipv4_is_plain(cursor, header, ip, flow) :
				   pw_ipv6_is_plain(cursor, header, ip, flow);
}

static __always_inline enum pw_control pw_ip_link_control(struct xdp_md *context,
							  struct pw_cursor *cursor, void *ip,
							  int family)
{
	struct pw_cursor after = *cursor;
	pw_skip(&after, pw_ip_size(family));
	return family == PW_IPV4 ? pw_ipv4_link_control(context, &after, ip) :
				   pw_ipv6_link_control(context, &after, ip);
}

static __always_inline void pw_ip_parse_upper(struct xdp_md *context, struct pw_cursor *cursor,
					      void *ip, int family, enum pw_control control,
					      struct pw_packet *packet)
{
	packet->ports_known = packet->sport = packet->dport = 0;
	packet->upper = control == PW_CONTROL_YES ? PW_UPPER_LINK : PW_UPPER_OTHER;
	if (control == PW_CONTROL_YES)
		return;
	if (family == PW_IPV4)
		pw_ipv4_parse_upper(context, cursor, ip, packet);
	else
		pw_ipv6_parse_upper(context, cursor, ip, packet);
}

static __always_inline void pw_ip_store_addresses(void *ip, int family, struct pw_packet *packet)
{
	packet->family = family;
	packet->nobody = pw_ip_is_nobody(ip, family);
	if (family == PW_IPV4)
		pw_ipv4_store_addresses(ip, packet);
	else
		pw_ipv6_store_addresses(ip, packet);
}

#endif
