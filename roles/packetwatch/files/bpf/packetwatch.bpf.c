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

static __always_inline int pw_verdict(struct pw_counters *counters, __u64 reason, __u64 family)
{
	__u64 cell = reason * PW_FAMILIES + family;
	if (cell < PW_REASONS * PW_FAMILIES) /* always: for the verifier */
		counters->packets[0][cell]++;
	return reason >= PW_DROP_DENY ? XDP_DROP : XDP_PASS;
}

/* A source has crossed the threshold: ban it, unless it is protected or we only watch. */
static __always_inline __u32 pw_scan(struct pw_header *header, struct pw_policy *policy,
				     struct pw_shared *shared, struct pw_counters *counters,
				     struct pw_scratch *scratch, struct pw_firsts *set,
				     struct pw_track *track)
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
	}
	if (!pw_track_claim(track, now))
		return packet->passed;
	counters->scans++;
	if (packet->passed == PW_DROP_SCAN)
		packet->flags = pw_ban_write(header, shared, counters, source, &ban);
	pw_log_scan(header, shared, counters, scratch, source, now, ban.expires);
	tracks_delete(source);
	pw_first_forget(set, scratch->hash);
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
	if (!pw_counts(context, header, policy, scratch))
		return packet->passed;

	pw_source_of(packet, &scratch->source);
	scratch->port = packet->ports_known ? packet->dport : pw_some_port();
	struct pw_firsts *set = pw_first_set(shared, scratch);
	if (!set)
		return packet->passed;
	/* It comes from far: let it be under way while the tracks are searched. */
	scratch->index = pw_read(set->way[0].when);
	struct pw_track *track = tracks_get(&scratch->source);
	if (!track)
		track = pw_track_begin(set, scratch, policy, counters);
	if (!track)
		return packet->passed;
	pw_track_port(track, scratch, policy->window_ns);
	if (pw_track_count(track, scratch, policy->window_ns, policy->scan_ports) <
	    policy->scan_ports)
		return packet->passed;
	return pw_scan(header, policy, shared, counters, scratch, set, track);
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

/* A denied source that passes only because we monitor. */
static __always_inline __u32 pw_would_deny(struct pw_header *header, struct pw_counters *counters,
					   struct pw_packet *packet)
{
	struct pw_shared *shared = shared_get();
	if (shared)
		pw_log_would_drop(header, shared, counters, packet, bpf_ktime_get_coarse_ns(),
				  PW_PASS_MONITOR_DENY);
	return PW_PASS_MONITOR_DENY;
}

/* Behind the lists, whatever is not plain. */
static __always_inline __u32 pw_decide(struct xdp_md *context, struct pw_header *header,
				       struct pw_counters *counters, struct pw_scratch *scratch)
{
	struct pw_packet *packet = &scratch->packet;
	struct pw_policy *policy = pw_policy_of(context, header, scratch);
	if (policy->action == PW_ACTION_OFF)
		return PW_PASS_OFF;
	packet->ifindex = context->ingress_ifindex;
	if (packet->denied)
		return pw_would_deny(header, counters, packet);
	packet->flags = 0;
	packet->passed = PW_PASS_UNLISTED;
	if (packet->upper == PW_UPPER_OPAQUE)
		packet->passed = PW_PASS_OPAQUE;
	else if (packet->upper == PW_UPPER_SHORT)
		packet->passed = PW_PASS_MALFORMED;
	return pw_unlisted(context, header, policy, counters, scratch);
}

/* What must not pass, as the policy has it: the reason to drop it, or what lets it pass. */
static __always_inline __u64 pw_denied(struct xdp_md *context, struct pw_header *header,
				       __u64 reason)
{
	if (header->features & PW_F_ENFORCED)
		return reason;
	__u32 action = pw_action_of(context, header);
	if (action == PW_ACTION_ENFORCE)
		return reason;
	return action == PW_ACTION_OFF ? PW_PASS_OFF : PW_PASS_MONITOR_DENY;
}

/* A packet whose tags hide all but where it came in; for the limit they have one source. */
static __always_inline void pw_log_tagged(struct xdp_md *context, struct pw_header *header,
					  struct pw_counters *counters)
{
	struct pw_shared *shared = shared_get();
	struct pw_scratch *scratch = scratch_get();
	if (!shared || !scratch)
		return;
	struct pw_packet *packet = &scratch->packet;
	__builtin_memset(packet, 0, sizeof(*packet));
	packet->ifindex = context->ingress_ifindex;
	pw_log_would_drop(header, shared, counters, packet, bpf_ktime_get_coarse_ns(), PW_DROP_VLAN);
}

/* Whether what begins nothing passes. Compilers would keep the answer on the stack: asking again is
 * quicker. */
static __always_inline int pw_is_decided(struct pw_header *header, __u64 denied)
{
	__u64 features = header->features & PW_F_SCOPE_ALL;
	pw_opaque(features);
	return !(features | denied);
}

/* Most packets are decided by the lists, or pass because they begin nothing: they cost no more than
 * what that takes. Of others the scratch memory has what was found out. */
static __always_inline __u64 pw_ipv4(struct xdp_md *context, struct pw_cursor *cursor, void *tables,
				     struct pw_header *header)
{
	struct iphdr *ip = cursor->at;
	__u64 denied = 0;
	/* Version 4, and 5 to 15 words. */
	if ((void *)(ip + 1) > cursor->end || (__u32)*(__u8 *)ip - 0x45 > 10)
		return PW_PASS_MALFORMED;
	if (header->features & PW_F_LISTS4) {
		__u32 listed = pw_lists4(tables, header, pw_be32(ip->saddr));
		if (listed == PW_ALLOW)
			return PW_PASS_ALLOW;
		if (listed)
			denied = pw_denied(context, header, PW_DROP_DENY);
		if (denied && denied != PW_PASS_MONITOR_DENY)
			return denied;
	}
	if (pw_is_decided(header, denied) && pw_is_plain4(cursor, ip))
		return PW_PASS_UNLISTED;
	struct pw_scratch *scratch = scratch_get();
	if (!scratch)
		return PW_PASS_NO_TABLES;
	struct pw_packet *packet = &scratch->packet;
	pw_parse_upper4(context, cursor, ip, packet);
	if (pw_is_decided(header, denied) && !packet->upper)
		return PW_PASS_UNLISTED;
	packet->family = PW_IPV4;
	packet->saddr.word[0] = packet->saddr.word[1] = 0;
	packet->daddr.word[0] = packet->daddr.word[1] = 0;
	packet->saddr.word[2] = packet->daddr.word[2] = bpf_htonl(0xffff);
	packet->saddr.word[3] = ip->saddr;
	packet->daddr.word[3] = ip->daddr;
	packet->denied = denied;
	return PW_UNDECIDED;
}

static __always_inline __u64 pw_ipv6(struct xdp_md *context, struct pw_cursor *cursor, void *tables,
				     struct pw_header *header)
{
	struct ipv6hdr *ip = cursor->at;
	__u64 denied = 0;
	if ((void *)(ip + 1) > cursor->end || ip->version != 6)
		return PW_PASS_MALFORMED;
	if (header->features & PW_F_LISTS6) {
		__u32 listed = pw_lists6(tables, header, (__u64 *)&ip->saddr);
		if (listed == PW_ALLOW)
			return PW_PASS_ALLOW;
		if (listed)
			denied = pw_denied(context, header, PW_DROP_DENY);
		if (denied && denied != PW_PASS_MONITOR_DENY)
			return denied;
	}
	if (pw_is_decided(header, denied) && pw_is_plain6(cursor, ip))
		return PW_PASS_UNLISTED;
	struct pw_scratch *scratch = scratch_get();
	if (!scratch)
		return PW_PASS_NO_TABLES;
	struct pw_packet *packet = &scratch->packet;
	pw_parse_upper6(context, cursor, ip, packet);
	if (pw_is_decided(header, denied) && !packet->upper)
		return PW_PASS_UNLISTED;
	packet->family = PW_IPV6;
	__builtin_memcpy(&packet->saddr, &ip->saddr, sizeof(packet->saddr));
	__builtin_memcpy(&packet->daddr, &ip->daddr, sizeof(packet->daddr));
	packet->denied = denied;
	return PW_UNDECIDED;
}

PW_SECTION("xdp.frags")
int packetwatch(struct xdp_md *context)
{
	struct pw_counters *counters = counters_get();
	if (!counters)
		return XDP_PASS;
	void *tables = generation_get();
	struct pw_header *header = tables ? pw_page(tables, 0) : 0;
	if (!header)
		return pw_verdict(counters, PW_PASS_NO_TABLES, PW_OTHER);

	struct pw_cursor cursor = {
		.at = (void *)(long)context->data,
		.end = (void *)(long)context->data_end,
	};
	__u64 family = PW_OTHER;
	__u64 reason = PW_PASS_NOT_IP;
	__u64 type = pw_parse_ethernet(&cursor);
	if (type == PW_IP) {
		family = PW_IPV4;
		reason = pw_ipv4(context, &cursor, tables, header);
	} else if (type == PW_IP6) {
		family = PW_IPV6;
		reason = pw_ipv6(context, &cursor, tables, header);
	} else if (type == PW_VLAN || type == PW_VLAN_S) {
		/* More tags than we read: what is behind them cannot be told, so it does not pass. */
		reason = pw_denied(context, header, PW_DROP_VLAN);
		if (reason == PW_PASS_MONITOR_DENY)
			pw_log_tagged(context, header, counters);
	} else if (!type) {
		reason = PW_PASS_MALFORMED;
	}
	if (reason == PW_UNDECIDED) {
		struct pw_scratch *scratch = scratch_get();
		if (!scratch)
			return pw_verdict(counters, PW_PASS_NO_TABLES, PW_OTHER);
		/* Nothing but memory is different for the two families: the verifier follows one of them. */
		family = scratch->packet.family;
		reason = pw_decide(context, header, counters, scratch);
	}
	return pw_verdict(counters, reason, family);
}
