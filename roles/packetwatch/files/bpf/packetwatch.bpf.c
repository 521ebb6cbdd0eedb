/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Copyright: (c) 2026, Packetwatch authors */
/*
 * Packetwatch's XDP program. The lists decide first (allow passes, deny drops), then bans; a new
 * connection is logged, and counts towards a scan. Prepend maps_bcc.h or maps_libbpf.h.
 */
#include "ip.h"
#include "policy.h"
#include "events.h"
#include "bans.h"
#include "detect.h"

#define PW_LOOPBACK_IFINDEX 1      /* in each network namespace */
#define PW_UNDECIDED PW_REASONS    /* the fast path needs the slow path */
#define PW_UNREAD (PW_REASONS + 1) /* the first buffer ends before the headers do */

/* Reason and family of a packet in one number: where it counts. */
static __always_inline __u64 pw_cell(__u64 reason, __u64 family)
{
	return reason * PW_FAMILIES + family;
}

/* Count the packet, and turn its reason into XDP's action. A packet that passes goes to the
 * interface's next program, if there is one. */
static __always_inline int pw_finish(struct xdp_md *context, struct pw_header *header,
				     struct pw_counters *counters, __u64 cell)
{
	if (cell < pw_cell(PW_REASONS, 0)) /* always true, but the verifier does not know it */
		counters->packets[0][cell]++;
	if (cell >= pw_cell(PW_DROP_DENY, 0))
		return XDP_DROP;
	/* Without tables nobody knows whether there is one. */
	if (pw_unlikely(!header || header->features & PW_F_NEXT))
		nexts_call(context, context->ingress_ifindex % PW_NEXT_SLOTS);
	return XDP_PASS;
}

/* The reason by which a ban decides the packet. */
static __always_inline __u32 pw_enforce_ban(struct pw_header *header, struct pw_policy *policy,
					    struct pw_shared *shared, struct pw_counters *counters,
					    struct pw_scratch *scratch, struct pw_ban *ban)
{
	__sync_fetch_and_add(&ban->dropped, 1);
	if (policy->action != PW_ACTION_MONITOR)
		return PW_DROP_BAN;
	pw_log_would_drop(header, shared, counters, &scratch->packet, scratch->now,
			  PW_PASS_MONITOR_BAN);
	return PW_PASS_MONITOR_BAN;
}

/* Bans, the connection event and detection, for a packet that no list matches. */
static __always_inline __u32 pw_unlisted(struct xdp_md *context, struct pw_header *header,
					 struct pw_policy *policy, struct pw_counters *counters,
					 struct pw_scratch *scratch)
{
	struct pw_packet *packet = &scratch->packet;
	struct pw_shared *shared = shared_get();
	if (!shared)
		return packet->reason;

	scratch->now = bpf_ktime_get_coarse_ns();
	int is_new = packet->upper == PW_UPPER_SYN || packet->upper == PW_UPPER_OPAQUE ||
		     packet->upper == PW_UPPER_STEALTH;
	/* These belong to a connection, unless they count. */
	int is_late = packet->upper >= PW_UPPER_ACK;
	int is_banned = is_new || policy->scope == PW_SCOPE_ALL;
	struct pw_ban *ban = 0;
	/* A ban, which may rest on forged evidence, never cuts a host off its link. */
	if ((is_banned || is_late) && packet->upper != PW_UPPER_LINK && !packet->nobody)
		ban = pw_ban_of(shared, packet, scratch->now, is_new);
	if (ban && pw_is_protected(&packet->saddr, scratch->now)) {
		if (is_banned)
			packet->reason = PW_PASS_PROTECTED;
		ban = 0;
	}
	/* The code that counts is large, so it is here only once. */
	if (!ban || !is_banned) {
		if (packet->upper == PW_UPPER_SYN) {
			counters->connections[packet->family == PW_IPV4 ? PW_IPV4 : PW_IPV6]++;
			pw_log_connection(header, policy, shared, counters, packet, scratch->now);
		}
		if ((!is_new && !is_late) || packet->nobody)
			return packet->reason;
		if (!pw_counts_for_scan(context, header, policy, shared, scratch)) {
			if (is_late)
				pw_known_add(scratch);
			return packet->reason;
		}
	}
	/* Linux 6.1 must see a test of this pointer, not of what follows from it. */
	pw_barrier_var(ban);
	if (ban)
		return pw_enforce_ban(header, policy, shared, counters, scratch, ban);
	pw_detect(header, policy, shared, counters, scratch);
	if (policy->closed == PW_CLOSED_PORTS_DROP)
		pw_close(header, policy, shared, counters, scratch);
	return packet->reason;
}

/* Decide a packet from a denied source that only the policy can let pass. */
static __always_inline __u32 pw_denied(struct pw_header *header, struct pw_policy *policy,
				       struct pw_counters *counters, struct pw_packet *packet)
{
	if (packet->upper == PW_UPPER_LINK && policy->link_control == PW_LINK_CONTROL_PASS)
		return PW_PASS_LINK_CONTROL;
	if (packet->denied == PW_DROP_DENY)
		return PW_DROP_DENY;
	struct pw_shared *shared = shared_get();
	if (shared)
		pw_log_would_drop(header, shared, counters, packet, bpf_ktime_get_coarse_ns(),
				  packet->bogus ? PW_DROP_BOGUS : PW_PASS_MONITOR_DENY);
	return PW_PASS_MONITOR_DENY;
}

/* Decide a packet that is in the scratch memory. */
static __always_inline __u32 pw_slow_path(struct xdp_md *context, struct pw_header *header,
					  struct pw_counters *counters, struct pw_scratch *scratch)
{
	struct pw_packet *packet = &scratch->packet;
	struct pw_policy *policy = pw_policy_of(context, header, scratch);
	if (policy->action == PW_ACTION_OFF)
		return PW_PASS_OFF;
	packet->ifindex = context->ingress_ifindex;
	if (packet->denied)
		return pw_denied(header, policy, counters, packet);
	packet->event_flags = 0;
	packet->reason = PW_PASS_UNLISTED;
	if (packet->upper == PW_UPPER_OPAQUE)
		packet->reason = PW_PASS_OPAQUE;
	else if (packet->upper == PW_UPPER_SHORT)
		packet->reason = PW_PASS_MALFORMED;
	return pw_unlisted(context, header, policy, counters, scratch);
}

/* Log a packet with too many tags that only monitor mode lets pass. All such packets count as one
 * source, because nothing but the interface is known. */
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
	pw_log_would_drop(header, shared, counters, packet, bpf_ktime_get_coarse_ns(),
			  PW_DROP_VLAN);
}

/* Whether a packet that does not begin a connection passes without the slow path. */
static __always_inline int pw_plain_passes(struct pw_header *header, __u64 denied)
{
	__u64 features = header->features & PW_F_SCOPE_ALL;
	pw_barrier_var(features); /* recomputing is cheaper than spilling a register */
	return !(features | denied);
}

/* Decide a packet by the lists, or pass it if it does not begin a connection: that is enough for
 * most packets. All other packets go to the scratch memory, and the slow path decides them. */
static __always_inline __u64 pw_fast_path(struct xdp_md *context, struct pw_cursor *cursor,
					  void *tables, struct pw_header *header, int family)
{
	void *ip;
	__u64 denied = 0;
	if (!pw_ip_read(context, cursor, family, &ip))
		return cursor->copies ? PW_PASS_MALFORMED : PW_UNREAD;
	if (header->features & (family == PW_IPV4 ? PW_F_LISTS4 : PW_F_LISTS6)) {
		__u32 listed = pw_ip_listed(tables, header, ip, family);
		if (listed == PW_ALLOW)
			return PW_PASS_ALLOW;
		if (listed)
			denied = pw_enforce(context, header, PW_DROP_DENY);
		if (denied == PW_PASS_OFF)
			return denied;
	}
	__u64 flow = 0;
	int is_special = pw_ip_is_special(ip, family);
	if (!cursor->copies && !is_special && pw_plain_passes(header, denied) &&
	    pw_ip_is_plain(cursor, header, ip, family, &flow))
		return PW_PASS_UNLISTED;
	int is_bogus = !denied && is_special && pw_ip_is_bogus(ip, family) &&
		       context->ingress_ifindex != PW_LOOPBACK_IFINDEX;
	if (is_bogus) {
		denied = pw_enforce(context, header, PW_DROP_BOGUS);
		if (denied != PW_PASS_MONITOR_DENY)
			return denied;
	}
	enum pw_control control = pw_ip_link_control(context, cursor, ip, family);
	if (denied == PW_DROP_DENY && control == PW_CONTROL_NO)
		return denied;
	if (control == PW_CONTROL_UNREAD)
		return PW_UNREAD;
	struct pw_scratch *scratch = scratch_get();
	if (!scratch)
		return PW_PASS_NO_TABLES;
	struct pw_packet *packet = &scratch->packet;
	pw_ip_parse_upper(context, cursor, ip, family, control, packet);
	if (packet->upper == PW_UPPER_UNREAD)
		return PW_UNREAD;
	if (pw_plain_passes(header, denied) && !packet->upper)
		return PW_PASS_UNLISTED;
	pw_ip_store_addresses(ip, family, packet);
	packet->denied = denied;
	packet->bogus = is_bogus;
	packet->flow = flow;
	return PW_UNDECIDED;
}

/* The cell of the packet at the cursor. */
static __always_inline __u64 pw_judge(struct xdp_md *context, struct pw_cursor *cursor,
				      void *tables, struct pw_header *header,
				      struct pw_counters *counters)
{
	__u64 type = pw_parse_ethernet(context, cursor);
	if (type == PW_ETH_IPV4)
		return pw_cell(pw_fast_path(context, cursor, tables, header, PW_IPV4), PW_IPV4);
	if (type == PW_ETH_IPV6)
		return pw_cell(pw_fast_path(context, cursor, tables, header, PW_IPV6), PW_IPV6);
	if (type == PW_ETH_VLAN || type == PW_ETH_VLAN_SERVICE) {
		/* Too many tags hide the source from the lists, so the packet must not pass. */
		__u64 reason = pw_enforce(context, header, PW_DROP_VLAN);
		if (reason == PW_PASS_MONITOR_DENY)
			pw_log_tagged(context, header, counters);
		return pw_cell(reason, PW_OTHER);
	}
	if (type == PW_ETH_UNREAD)
		return pw_cell(cursor->copies ? PW_PASS_MALFORMED : PW_UNREAD, PW_OTHER);
	return pw_cell(PW_PASS_NOT_IP, PW_OTHER);
}

PW_SECTION("xdp.frags")
int packetwatch(struct xdp_md *context)
{
	struct pw_counters *counters = counters_get();
	if (!counters)
		return XDP_PASS;
	void *tables = generation_get();
	struct pw_header *header = tables ? pw_page_at(tables, 0) : 0;
	__u64 no_tables = pw_cell(PW_PASS_NO_TABLES, PW_OTHER);
	if (!header)
		return pw_finish(context, header, counters, no_tables);

	struct pw_cursor cursor = {
		.at = (void *)(long)context->data,
		.end = (void *)(long)context->data_end,
	};
	__u64 cell = pw_judge(context, &cursor, tables, header, counters);
	if (pw_unlikely(cell >= pw_cell(PW_UNREAD, 0))) {
		struct pw_scratch *scratch = scratch_get();
		if (!scratch)
			return pw_finish(context, header, counters, no_tables);
		struct pw_cursor copying = {.copies = 1, .to = &scratch->copies};
		cell = pw_judge(context, &copying, tables, header, counters);
	}
	if (cell >= pw_cell(PW_UNDECIDED, 0)) {
		struct pw_scratch *scratch = scratch_get();
		if (!scratch)
			return pw_finish(context, header, counters, no_tables);
		/* The family is read from memory, so that the two families differ in memory alone:
		 * then the verifier follows the slow path once. */
		__u64 family = scratch->packet.family;
		cell = pw_cell(pw_slow_path(context, header, counters, scratch), family);
	}
	return pw_finish(context, header, counters, cell);
}
