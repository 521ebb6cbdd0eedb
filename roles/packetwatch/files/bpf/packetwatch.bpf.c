/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Copyright: (c) 2026, Packetwatch authors */
/*
 * Packetwatch's XDP program. Order: lists (allow passes, deny drops), bans, the connection event,
 * detection. Prepend maps_bcc.h or maps_libbpf.h.
 */
#include "parse.h"
#include "lists.h"
#include "events.h"
#include "bans.h"
#include "detect.h"

static __always_inline int pw_verdict(struct pw_counters *counters, __u32 reason, __u32 family)
{
	__u32 cell = reason * PW_FAMILIES + family;
	if (cell < PW_REASONS * PW_FAMILIES) /* always: for the verifier */
		counters->packets[0][cell]++;
	return reason >= PW_DROP_DENY ? XDP_DROP : XDP_PASS;
}

/* A source has crossed the threshold: ban it, unless it is protected or we only watch. */
static __always_inline __u32 pw_scan(struct pw_header *header, struct pw_policy *policy,
				     struct pw_shared *shared, struct pw_counters *counters,
				     struct pw_scratch *scratch)
{
	struct pw_packet *packet = &scratch->packet;
	struct pw_source *source = &scratch->source;
	__u64 now = scratch->now;
	struct pw_ban ban = {
		.since = now,
		.expires = now + policy->ban_ns,
		.ifindex = packet->ifindex,
		.ports = scratch->distinct,
		.origin = PW_ORIGIN_SCAN,
	};

	counters->scans++;
	packet->passed = PW_DROP_SCAN;
	if (pw_is_protected(&packet->saddr, now)) {
		packet->passed = PW_PASS_PROTECTED;
		packet->flags = PW_EVENT_PROTECTED;
		ban.expires = 0;
	} else if (policy->action == PW_ACTION_MONITOR) {
		packet->passed = PW_PASS_MONITOR_SCAN;
		packet->flags = PW_EVENT_MONITOR;
		ban.expires = 0;
	} else if (pw_live(scan_bans_get(source), now)) {
		return packet->passed; /* another CPU banned it while we counted */
	} else {
		packet->flags = pw_ban_write(header, shared, counters, source, &ban);
	}
	pw_log_scan(header, shared, counters, scratch, source, now, ban.expires);
	tracks_delete(source);
	return packet->passed;
}

/* A packet that begins a connection, or whose upper layer we cannot tell. */
static __always_inline __u32 pw_connection(struct xdp_md *context, struct pw_header *header,
					   struct pw_policy *policy, struct pw_shared *shared,
					   struct pw_counters *counters,
					   struct pw_scratch *scratch)
{
	struct pw_packet *packet = &scratch->packet;
	if (packet->upper == PW_UPPER_SYN) {
		counters->connections[packet->family == PW_IPV4 ? PW_IPV4 : PW_IPV6]++;
		pw_log_connection(header, policy, shared, counters, packet, scratch->now);
	}
	if (!pw_counts(context, header, policy, packet, scratch->now))
		return packet->passed;

	pw_source_of(packet, &scratch->source);
	struct pw_track *track = pw_track_of(scratch, counters);
	if (!track)
		return packet->passed;
	scratch->port = packet->ports_known ? packet->dport : pw_some_port();
	pw_track_port(track, scratch, policy->window_ns);
	if (pw_track_count(track, scratch, policy->window_ns, policy->scan_ports) <
	    policy->scan_ports)
		return packet->passed;
	return pw_scan(header, policy, shared, counters, scratch);
}

/* Neighbour and router discovery from link-local addresses keeps the link alive: no ban hits it. */
static __always_inline int pw_is_discovery(struct pw_packet *packet)
{
	return packet->upper == PW_UPPER_ND &&
	       (packet->saddr.word[0] & bpf_htonl(0xffc00000)) == bpf_htonl(0xfe800000);
}

/* What the lists did not decide, on an interface whose policy is not `off`. */
static __always_inline __u32 pw_unlisted(struct xdp_md *context, struct pw_header *header,
					 struct pw_policy *policy, struct pw_counters *counters,
					 struct pw_scratch *scratch)
{
	struct pw_packet *packet = &scratch->packet;
	struct pw_shared *shared = shared_get();
	if (!shared)
		return packet->passed;

	scratch->now = bpf_ktime_get_coarse_ns();
	int begins = packet->upper == PW_UPPER_SYN || packet->upper == PW_UPPER_OPAQUE;
	if ((begins || policy->scope == PW_SCOPE_ALL) && !pw_is_discovery(packet)) {
		struct pw_ban *ban = pw_ban_of(shared, packet, scratch->now);
		if (ban && pw_is_protected(&packet->saddr, scratch->now)) {
			packet->passed = PW_PASS_PROTECTED;
		} else if (ban) {
			__sync_fetch_and_add(&ban->dropped, 1);
			if (policy->action != PW_ACTION_MONITOR)
				return PW_DROP_BAN;
			pw_log_would_drop(header, shared, counters, packet, scratch->now,
					  PW_PASS_MONITOR_BAN);
			return PW_PASS_MONITOR_BAN;
		}
	}
	if (!begins)
		return packet->passed;
	return pw_connection(context, header, policy, shared, counters, scratch);
}

/* A denied source: dropped, or only told about. */
static __always_inline __u32 pw_denied(struct pw_header *header, struct pw_policy *policy,
				       struct pw_counters *counters, struct pw_packet *packet)
{
	if (policy->action != PW_ACTION_MONITOR)
		return PW_DROP_DENY;
	struct pw_shared *shared = shared_get();
	if (shared)
		pw_log_would_drop(header, shared, counters, packet, bpf_ktime_get_coarse_ns(),
				  PW_PASS_MONITOR_DENY);
	return PW_PASS_MONITOR_DENY;
}

/* Everything behind the lists' verdict that is not plain. */
static __always_inline __u32 pw_decide(struct xdp_md *context, struct pw_header *header,
				       struct pw_counters *counters, struct pw_scratch *scratch,
				       __u32 listed)
{
	struct pw_packet *packet = &scratch->packet;
	packet->ifindex = context->ingress_ifindex;
	struct pw_policy *policy = pw_policy_of(header, scratch);
	if (policy->action == PW_ACTION_OFF)
		return PW_PASS_OFF;
	if (listed == PW_DENY)
		return pw_denied(header, policy, counters, packet);
	packet->flags = 0;
	packet->passed = PW_PASS_UNLISTED;
	if (packet->upper == PW_UPPER_OPAQUE)
		packet->passed = PW_PASS_OPAQUE;
	else if (packet->upper == PW_UPPER_SHORT)
		packet->passed = PW_PASS_MALFORMED;
	return pw_unlisted(context, header, policy, counters, scratch);
}

/* More tags than we read: what is behind them cannot be told, so it does not pass. */
static __always_inline __u32 pw_overtagged(struct xdp_md *context, struct pw_header *header,
					   struct pw_scratch *scratch)
{
	scratch->packet.ifindex = context->ingress_ifindex;
	struct pw_policy *policy = pw_policy_of(header, scratch);
	if (policy->action == PW_ACTION_OFF)
		return PW_PASS_OFF;
	return policy->action == PW_ACTION_MONITOR ? PW_PASS_MONITOR_DENY : PW_DROP_VLAN;
}

/* Parse into *packet and look the source up; false if the IP header is not whole. */
static __always_inline int pw_ipv4(struct xdp_md *context, struct pw_cursor *cursor, void *tables,
				   struct pw_header *header, struct pw_packet *packet,
				   __u32 *listed)
{
	struct iphdr *ip = cursor->at;
	if ((void *)(ip + 1) > cursor->end || ip->version != 4 || ip->ihl < 5)
		return 0;
	packet->family = PW_IPV4;
	packet->saddr.word[0] = packet->saddr.word[1] = 0;
	packet->daddr.word[0] = packet->daddr.word[1] = 0;
	packet->saddr.word[2] = packet->daddr.word[2] = bpf_htonl(0xffff);
	packet->saddr.word[3] = ip->saddr;
	packet->daddr.word[3] = ip->daddr;
	if (header->features & PW_F_LISTS4)
		*listed = pw_lists4(tables, header, pw_be32(ip->saddr));
	pw_parse_upper4(context, cursor, ip, packet);
	return 1;
}

static __always_inline int pw_ipv6(struct xdp_md *context, struct pw_cursor *cursor, void *tables,
				   struct pw_header *header, struct pw_packet *packet,
				   __u32 *listed)
{
	struct ipv6hdr *ip = cursor->at;
	if ((void *)(ip + 1) > cursor->end || ip->version != 6)
		return 0;
	packet->family = PW_IPV6;
	__builtin_memcpy(&packet->saddr, &ip->saddr, sizeof(packet->saddr));
	__builtin_memcpy(&packet->daddr, &ip->daddr, sizeof(packet->daddr));
	if (header->features & PW_F_LISTS6)
		*listed = pw_lists6(tables, header, &packet->saddr);
	pw_parse_upper6(context, cursor, ip, packet);
	return 1;
}

PW_SECTION("xdp.frags")
int packetwatch(struct xdp_md *context)
{
	struct pw_counters *counters = counters_get();
	struct pw_scratch *scratch = scratch_get();
	if (!counters || !scratch)
		return XDP_PASS;
	void *tables = generation_get();
	struct pw_header *header = tables ? pw_page(tables, 0) : 0;
	if (!header)
		return pw_verdict(counters, PW_PASS_NO_TABLES, PW_OTHER);

	struct pw_cursor cursor = {
		.at = (void *)(long)context->data,
		.end = (void *)(long)context->data_end,
	};
	struct pw_packet *packet = &scratch->packet;
	__u32 listed = PW_NONE;
	packet->ports_known = packet->sport = packet->dport = 0;
	switch (pw_parse_ethernet(&cursor)) {
	case ETH_P_IP:
		if (!pw_ipv4(context, &cursor, tables, header, packet, &listed))
			return pw_verdict(counters, PW_PASS_MALFORMED, PW_IPV4);
		break;
	case ETH_P_IPV6:
		if (!pw_ipv6(context, &cursor, tables, header, packet, &listed))
			return pw_verdict(counters, PW_PASS_MALFORMED, PW_IPV6);
		break;
	case PW_VLAN:
	case PW_VLAN_S:
		return pw_verdict(counters, pw_overtagged(context, header, scratch), PW_OTHER);
	case 0:
		return pw_verdict(counters, PW_PASS_MALFORMED, PW_OTHER);
	default:
		return pw_verdict(counters, PW_PASS_NOT_IP, PW_OTHER);
	}

	__u32 reason = PW_PASS_UNLISTED;
	if (listed == PW_ALLOW)
		reason = PW_PASS_ALLOW;
	else if (listed || packet->upper || header->features & PW_F_SCOPE_ALL)
		reason = pw_decide(context, header, counters, scratch, listed);
	return pw_verdict(counters, reason, packet->family);
}
