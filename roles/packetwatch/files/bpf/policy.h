/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Copyright: (c) 2026, Packetwatch authors */
/* The policy of the interface on which a packet came in. abi.h describes the slots. */
#ifndef PACKETWATCH_POLICY_H
#define PACKETWATCH_POLICY_H

/* The index goes through the scratch memory, so that the verifier follows one pointer and not one
 * for each probe. */
static __always_inline struct pw_policy *pw_policy_of(struct xdp_md *context,
						      struct pw_header *header,
						      struct pw_scratch *scratch)
{
	struct pw_policy *slots = (void *)header + PW_POLICY_OFFSET;
	__u32 ifindex = context->ingress_ifindex;
	scratch->index = 0;
	for (int i = 0; i < PW_POLICY_PROBES; i++) {
		__u32 index = (ifindex + i) % PW_POLICY_SLOTS;
		__u32 found = slots[index].ifindex;
		if (found == ifindex)
			scratch->index = index;
		if (found == ifindex || (!found && index))
			break;
	}
	return &slots[scratch->index % PW_POLICY_SLOTS];
}

/* The action of that policy, mostly from the first slot alone. It returns a number because
 * compilers newer than LLVM 14 turn a pointer that may be NULL into code that the kernel refuses. */
static __always_inline __u32 pw_action_of(struct xdp_md *context, struct pw_header *header)
{
	struct pw_policy *slots = (void *)header + PW_POLICY_OFFSET;
	__u32 ifindex = context->ingress_ifindex;
	struct pw_policy *likely = &slots[ifindex % PW_POLICY_SLOTS];
	if (likely->ifindex == ifindex)
		return likely->action;
	if (!likely->ifindex && ifindex % PW_POLICY_SLOTS)
		return slots->action;
	struct pw_scratch *scratch = scratch_get();
	if (!scratch)
		return PW_ACTION_ENFORCE;
	return pw_policy_of(context, header, scratch)->action;
}

/* The given reason to drop if the policy enforces; otherwise the reason to pass. */
static __always_inline __u64 pw_enforce(struct xdp_md *context, struct pw_header *header,
					__u64 reason)
{
	if (header->features & PW_F_ENFORCED)
		return reason;
	__u32 action = pw_action_of(context, header);
	if (action == PW_ACTION_ENFORCE)
		return reason;
	return action == PW_ACTION_OFF ? PW_PASS_OFF : PW_PASS_MONITOR_DENY;
}

#endif
