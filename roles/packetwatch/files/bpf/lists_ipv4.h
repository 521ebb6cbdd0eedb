/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Copyright: (c) 2026, Packetwatch authors */
/* The lists' verdict on an IPv4 address; docs/tables.md describes the format. */
#ifndef PACKETWATCH_LISTS_IPV4_H
#define PACKETWATCH_LISTS_IPV4_H

#include "lists.h"

#define PW_IPV4_MAX_LINES 14 /* that a lookup visits */
#define PW_BLOCK_BITS 6      /* bits after the top line's number that select a block */
#define PW_HALVES 32         /* added to the top table's shift if its lines are two halves */
#define PW_HALF_BITS 15      /* bits of an address that a half compares */

/* The leaf below an inner line or a table. */
static __always_inline struct pw_line *pw_leaf4(void *tables, struct pw_header *header,
						struct pw_line *at, __u64 low)
{
	for (int i = 1; i < PW_IPV4_MAX_LINES; i++) {
		__u32 head = at->word[0];
		if ((head & PW_LINE_INNER) != PW_LINE_INNER)
			break;
		__u32 shape = at->word[1];
		__u64 line = head >> 4;
		line += (head & 7) == PW_LINE_TABLE ? low >> (shape & 31) & shape >> 8 :
						      pw_rank(at, low);
		at = pw_line_at(tables, header->v4_page, line);
		if (!at) /* here: otherwise LLVM 19 adds to a pointer that may be NULL */
			return 0;
	}
	return at;
}

/* The verdict of a half, by the last bits of an address. In each quarter of a word, the highest bit
 * becomes 1 if the bits differ. The first quarter of the half holds the verdict instead of bits. */
static __always_inline __u32 pw_half4(__u64 *half, __u64 low)
{
	__u64 each = low * PW_EACH_16_BITS;
	__u64 most = 0x7fff7fff7fff7fffULL;
	__u64 differ = ((half[0] ^ each) | 1) + most;
#pragma unroll
	for (int i = 1; i < 4; i++)
		differ &= (half[i] ^ each) + most;
	return (differ | most) == ~0ULL ? PW_NONE : half[0] & 3;
}

static __always_inline __u32 pw_lists4(void *tables, struct pw_header *header, __u64 address)
{
	__u64 shift = header->v4_shift & 31;
	__u64 block = address << PW_BLOCK_BITS >> shift;
	__u64 top = block >> PW_BLOCK_BITS;
	struct pw_page *page = pw_page_at(tables, header->v4_page + top / PW_LINES);
	if (!page || !(page->filter[top % PW_LINES] >> (block & 63) & 1))
		return PW_NONE;
	struct pw_line *at = &page->line[top % PW_LINES];
	__u64 low = address & ((1ULL << shift) - 1);
	if (header->v4_shift & PW_HALVES) {
		/* The upper half of the blocks has the second half of the line. */
		__u64 *half = (void *)at + (block & sizeof(*at) / 2);
		low = address & ((1 << PW_HALF_BITS) - 1);
		if ((__s64)*half >= 0)
			return pw_half4(half, low);
		__u64 line = *half & 0xffffffff;
		page = pw_page_at(tables, header->v4_page + line / PW_LINES);
		if (!page)
			return PW_NONE;
		pw_barrier_var(page); /* otherwise LLVM 19 adds to it before the check */
		at = &page->line[line % PW_LINES];
	}
	/* Outside of the loop in pw_leaf4, because most lines are leaves. */
	if ((at->word[0] & PW_LINE_INNER) == PW_LINE_INNER)
		at = pw_leaf4(tables, header, at, low);
	if (!at)
		return PW_NONE;
	__u32 key = at->word[pw_rank(at, low) & 15];
	return key >> 4 == low ? key & 3 : key >> 2 & 3;
}

#endif
