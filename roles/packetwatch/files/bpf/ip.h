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

static __always_inline int pw_ip_is_valid(struct pw_cursor *cursor, void *ip, int family)
{
	return family == PW_IPV4 ? pw_ipv4_is_valid(cursor, ip) : pw_ipv6_is_valid(cursor, ip);
}

/* The lists' verdict on the source (enum pw_verdict). */
static __always_inline __u32 pw_ip_listed(void *tables, struct pw_header *header, void *ip,
					  int family)
{
	if (family == PW_IPV4)
		return pw_lists4(tables, header, pw_be32(((struct iphdr *)ip)->saddr));
	return pw_lists6(tables, header, (__u64 *)&((struct ipv6hdr *)ip)->saddr);
}

static __always_inline int pw_ip_is_plain(struct pw_cursor *cursor, void *ip, int family)
{
	return family == PW_IPV4 ? pw_ipv4_is_plain(cursor, ip) : pw_ipv6_is_plain(cursor, ip);
}

static __always_inline int pw_ip_is_link_control(struct pw_cursor *cursor, void *ip, int family)
{
	return family == PW_IPV4 ? pw_ipv4_is_link_control(cursor, ip) :
				   pw_ipv6_is_link_control(cursor, ip);
}

static __always_inline void pw_ip_parse_upper(struct xdp_md *context, struct pw_cursor *cursor,
					      void *ip, int family, int is_link_control,
					      struct pw_packet *packet)
{
	packet->ports_known = packet->sport = packet->dport = 0;
	packet->upper = is_link_control ? PW_UPPER_LINK : PW_UPPER_OTHER;
	if (is_link_control)
		return;
	if (family == PW_IPV4)
		pw_ipv4_parse_upper(context, cursor, ip, packet);
	else
		pw_ipv6_parse_upper(context, cursor, ip, packet);
}

static __always_inline void pw_ip_store_addresses(void *ip, int family, struct pw_packet *packet)
{
	packet->family = family;
	if (family == PW_IPV4)
		pw_ipv4_store_addresses(ip, packet);
	else
		pw_ipv6_store_addresses(ip, packet);
}

#endif
