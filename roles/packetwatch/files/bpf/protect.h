/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Copyright: (c) 2026, Packetwatch authors */
/* What user space says about addresses. Protected ones are never banned. */
#ifndef PACKETWATCH_PROTECT_H
#define PACKETWATCH_PROTECT_H

static __always_inline __u32 pw_net_flags(struct pw_addr *address)
{
	struct pw_net net = {.plen = 128, .addr = *address};
	__u32 *flags = nets_get(&net);
	return flags ? *flags : 0;
}

static __always_inline int pw_is_protected(struct pw_addr *address, __u64 now)
{
	struct pw_host *host = hosts_get(address);
	if (host && (!host->expires || host->expires > now))
		return 1;
	return pw_net_flags(address) & PW_NET_PROTECTED;
}

#endif
