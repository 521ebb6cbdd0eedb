/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Copyright: (c) 2026, Packetwatch authors */
/*
 * What the list tables of both families have in common: pages, lines, keys. docs/tables.md
 * describes the format. The idea is DXR (Zec, Rizzo, Mikuc, ACM CCR 42(5), 2012).
 */
#ifndef PACKETWATCH_LISTS_H
#define PACKETWATCH_LISTS_H

#define PW_LINES 1024U  /* lines in a page */
#define PW_LINE_INNER 3 /* the lowest three bits of a line's head: its kind */
#define PW_LINE_TABLE 7
#define PW_EACH_16_BITS 0x0001000100010001ULL

/* One start of a range: an IPv6 address without its first eight bits. The lowest eight bits of
 * `low` hold the verdicts at the start and after it. */
struct pw_record {
	__u64 low;
	__u64 high;
};

/* One cache line. */
struct pw_line {
	union {
		__u32 word[16];
		__u64 pair[8];
		struct pw_record record[4];
	};
};

/* The filter says for most unlisted addresses that their line does not list them. It is separate
 * from the lines so that it stays in the CPU's own cache. */
struct pw_page {
	struct pw_line line[PW_LINES];
	__u64 filter[PW_LINES];
};

_Static_assert(sizeof(struct pw_page) == PW_PAGE_SIZE, "the maps have pages of this size");

static __always_inline void *pw_page_at(void *tables, __u32 index)
{
	return bpf_map_lookup_elem(tables, &index);
}

static __always_inline struct pw_line *pw_line_at(void *tables, __u32 first_page, __u64 line)
{
	struct pw_page *page = pw_page_at(tables, first_page + line / PW_LINES);
	return page ? &page->line[line % PW_LINES] : 0;
}

/*
 * How many of a line's 15 keys are not above `low`. It compares all of them, two at a time and
 * without a branch, because the CPU would often mispredict it. Bit 28 of a half of a pair becomes 1
 * if its key is above `low`. Keys are 2^28 at most and heads below 2^31, so no half carries into
 * the other one.
 */
static __always_inline __u32 pw_rank(struct pw_line *line, __u64 low)
{
	__u64 bound = (1ULL << 28) - ((low + 1) << 4);
	bound |= bound << 32;
	__u64 both = 1ULL << 60 | 1ULL << 28;
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
	__u64 above = (line->pair[0] + bound) & 1ULL << 60; /* the other half is the head */
#else
	__u64 above = (line->pair[0] + bound) & 1ULL << 28;
#endif
#pragma unroll
	for (int i = 1; i < 8; i++)
		above += (line->pair[i] + bound) & both;
	return 15 - (__u32)((above >> 60) + (above >> 28 & 15));
}

#endif
