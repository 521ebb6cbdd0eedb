/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Copyright: (c) 2026, Packetwatch authors */
/*
 * Looking up an address in the list tables: docs/tables.md has the format.
 * Idea: DXR (Zec, Rizzo, Mikuc, ACM CCR 42(5), 2012).
 */
#ifndef PACKETWATCH_LISTS_H
#define PACKETWATCH_LISTS_H

#define PW_SHORTS 16384U /* words of 32 bits in a page */
#define PW_WORDS 8192U   /* words of 64 bits in a page */
#define PW_RUN_STEPS 13  /* a run has less than 2^13 starts */
#define PW_LEAF_STEPS 13 /* a leaf has up to 2^12 keys */
#define PW_TABLE_STEPS 4

static __always_inline void *pw_page(void *tables, __u32 index)
{
	return bpf_map_lookup_elem(tables, &index);
}

static __always_inline __u32 pw_lists4(void *tables, struct pw_header *header, __u32 address)
{
	__u32 shift = header->v4_shift & 31;
	__u32 index = address >> shift;
	__u32 *page = pw_page(tables, header->v4_page + index / PW_SHORTS);
	if (!page)
		return PW_NONE;
	__u32 top = page[index % PW_SHORTS];
	__u32 count = top >> 2 & 63;
	if (!count)
		return top & 3;

	__u32 at = top >> 8;
	page = pw_page(tables, header->v4_page + at / PW_SHORTS);
	if (!page)
		return PW_NONE;
	if (count == 63) {
		count = page[at % PW_SHORTS];
		at++;
	}
	__u32 low = address & ((1U << shift) - 1);
	__u32 start = page[at % PW_SHORTS];
	if (low < start >> 4)
		return top & 3;
	for (int i = 0; i < PW_RUN_STEPS; i++) {
		if (count < 2)
			break;
		__u32 half = count / 2;
		__u32 middle = page[(at + half) % PW_SHORTS];
		if (middle >> 4 <= low) {
			at += half;
			start = middle;
		}
		count -= half;
	}
	return start >> 4 == low ? start & 3 : start >> 2 & 3;
}

/* One half of an IPv6 address below a descriptor. True: an exact match, *descriptor is its info.
 * False: *descriptor's lowest two bits are the verdict. */
static __always_inline int pw_lists6_half(void *tables, __u32 first, __u64 key, __u64 *descriptor)
{
	__u64 found = *descriptor;
	__u64 rest = key;
	for (int i = 0; i < PW_TABLE_STEPS; i++) {
		if ((found >> 2 & 3) != 1)
			break;
		__u32 width = found >> 4 & 63;
		__u32 index = (__u32)(found >> 26) + (__u32)(rest >> ((64 - width) & 63));
		rest <<= width;
		struct pw_page *table = pw_page(tables, first + index / PW_WORDS);
		if (!table)
			return 0;
		found = table->word[index % PW_WORDS];
	}
	*descriptor = found;
	__u32 count = found >> 10 & 0xffff;
	if (!count)
		return 0;

	__u32 at = found >> 26;
	struct pw_page *page = pw_page(tables, first + at / PW_WORDS);
	if (!page)
		return 0;
	__u32 infos = at + count;
	__u64 start = page->word[at % PW_WORDS];
	if (key < start)
		return 0;
	__u32 begin = at;
	for (int i = 0; i < PW_LEAF_STEPS; i++) {
		if (count < 2)
			break;
		__u32 half = count / 2;
		__u64 middle = page->word[(at + half) % PW_WORDS];
		if (middle <= key) {
			at += half;
			start = middle;
		}
		count -= half;
	}
	__u64 info = page->word[(infos + (at - begin)) % PW_WORDS];
	if (start == key) {
		*descriptor = info;
		return 1;
	}
	*descriptor = info >> 62;
	return 0;
}

static __always_inline __u32 pw_lists6(void *tables, struct pw_header *header, struct pw_addr *address)
{
	__u64 high = (__u64)pw_be32(address->word[0]) << 32 | pw_be32(address->word[1]);
	__u64 descriptor = header->v6_root;
	if (pw_lists6_half(tables, header->v6_page, high, &descriptor)) {
		__u64 low = (__u64)pw_be32(address->word[2]) << 32 | pw_be32(address->word[3]);
		pw_lists6_half(tables, header->v6_page, low, &descriptor);
	}
	return descriptor & 3;
}

/* The policy of the interface that the packet came in by. Its index goes by the scratch memory, so
 * that the verifier sees one pointer and not one for each probe. */
static __always_inline struct pw_policy *pw_policy_of(struct pw_header *header,
						      struct pw_scratch *scratch)
{
	struct pw_policy *slots = (void *)header + PW_POLICY_OFFSET;
	__u32 ifindex = scratch->packet.ifindex;
	scratch->index = 0;
	for (int i = 0; i < PW_POLICY_PROBES; i++) {
		__u32 index = (ifindex + i) % PW_POLICY_SLOTS;
		if (slots[index].ifindex == ifindex) {
			scratch->index = index;
			break;
		}
	}
	return &slots[scratch->index % PW_POLICY_SLOTS];
}

#endif
