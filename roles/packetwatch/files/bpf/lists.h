/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Copyright: (c) 2026, Packetwatch authors */
/*
 * Looking up an address in the list tables: docs/tables.md has the format.
 * Idea: DXR (Zec, Rizzo, Mikuc, ACM CCR 42(5), 2012).
 */
#ifndef PACKETWATCH_LISTS_H
#define PACKETWATCH_LISTS_H

#define PW_LINES 1024U /* lines in a page */
#define PW_CHUNK 26    /* bits of an address that a walk decides */
#define PW_STEPS4 14   /* lines that a lookup visits at most */
#define PW_STEPS6 48
#define PW_INNER 3
#define PW_TABLE 7
#define PW_BRANCH 1

struct pw_record {
	__u64 high;
	__u64 low;
};

/* As large as what a processor fetches at once. */
struct pw_line {
	union {
		__u32 word[16];
		__u64 pair[8];
		struct pw_record record[4];
	};
};

struct pw_lines {
	struct pw_line line[PW_LINES];
};

static __always_inline void *pw_page(void *tables, __u32 index)
{
	return bpf_map_lookup_elem(tables, &index);
}

static __always_inline struct pw_line *pw_line_of(void *tables, __u32 first, __u32 line)
{
	struct pw_lines *page = pw_page(tables, first + line / PW_LINES);
	return page ? &page->line[line % PW_LINES] : 0;
}

/*
 * How many of a line's 15 keys are not above `low`. All are compared, two at a time and without a
 * branch, which would often be mispredicted: the highest bit of a half of a pair becomes 1 exactly if
 * its key is above. Keys and heads are below 2^31, so nothing is carried into the other half.
 */
static __always_inline __u32 pw_rank(struct pw_line *line, __u32 low)
{
	__u64 bound = 0x80000000U - ((low + 1) << 4);
	bound |= bound << 32;
	__u64 above = 0;
#pragma unroll
	for (int i = 1; i < 8; i++)
		above += (line->pair[i] + bound) >> 31 & 0x100000001ULL;
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
	above += (line->pair[0] + bound) >> 63; /* the other half is the head */
#else
	above += (line->pair[0] + bound) >> 31 & 1;
#endif
	return 15 - (__u32)(above + (above >> 32));
}

/* The next line on the way to an address, or a leaf: then `key` is the last that is not above it. */
static __always_inline int pw_step(struct pw_line *at, __u32 low, __u32 *line, __u32 *rank)
{
	__u32 head = at->word[0];
	if ((head & 15) == PW_TABLE) {
		__u32 shape = at->word[1];
		*line = (head >> 4) + (low >> (shape & 31) & shape >> 8);
		return 1;
	}
	*rank = pw_rank(at, low);
	if ((head & 15) != PW_INNER)
		return 0;
	*line = (head >> 4) + *rank;
	return 1;
}

static __always_inline __u32 pw_lists4(void *tables, struct pw_header *header, __u32 address)
{
	__u32 shift = header->v4_shift & 31;
	__u32 line = address >> shift;
	__u32 low = address & ((1U << shift) - 1);
	for (int i = 0; i < PW_STEPS4; i++) {
		struct pw_line *at = pw_line_of(tables, header->v4_page, line);
		if (!at)
			return PW_NONE;
		__u32 rank;
		if (pw_step(at, low, &line, &rank))
			continue;
		__u32 key = at->word[rank & 15];
		return key >> 4 == low ? key & 3 : key >> 2 & 3;
	}
	return PW_NONE;
}

/* What holds at an address beside the one start that a record has; both without their first bits. */
static __always_inline __u32 pw_beside(struct pw_record *record, __u64 high, __u64 low)
{
	__u64 start = record->low >> 8;
	low >>= 8;
	if (high == record->high && low == start)
		return record->low >> 3 & 3;
	if (high > record->high || (high == record->high && low > start))
		return record->low >> 5 & 3;
	return record->low >> 1 & 3;
}

static __always_inline __u32 pw_lists6(void *tables, struct pw_header *header, struct pw_addr *address)
{
	__u64 high = (__u64)pw_be32(address->word[0]) << 32 | pw_be32(address->word[1]);
	__u64 low = (__u64)pw_be32(address->word[2]) << 32 | pw_be32(address->word[3]);
	__u32 width = header->v6_root & 31; /* never 0 */
	__u32 line = high >> (64 - width);
	high = high << width | low >> (64 - width);
	low <<= width;
	for (int i = 0; i < PW_STEPS6; i++) {
		struct pw_line *at = pw_line_of(tables, header->v6_page, line);
		if (!at)
			return PW_NONE;
		__u32 chunk = high >> (64 - PW_CHUNK);
		__u32 rank;
		if (pw_step(at, chunk, &line, &rank))
			continue;
		__u32 key = at->word[rank & 15];
		if (key >> 4 != chunk)
			return key >> 2 & 3;
		__u32 records = at->word[0] >> 4;
		if (!rank || !records)
			return key & 3;
		/* Others begin alike: what is left of the address decides. */
		at = pw_line_of(tables, header->v6_page, records + (rank - 1) / 4);
		if (!at)
			return PW_NONE;
		struct pw_record *record = &at->record[(rank - 1) % 4];
		high = high << PW_CHUNK | low >> (64 - PW_CHUNK);
		low <<= PW_CHUNK;
		if (!record->low)
			return key & 3;
		if (record->low & PW_BRANCH)
			line = record->high;
		else
			return pw_beside(record, high, low);
	}
	return PW_NONE;
}

/* The policy of the interface that the packet came in by. Its index goes by the scratch memory, so
 * that the verifier sees one pointer and not one for each probe. */
static __always_inline struct pw_policy *pw_policy_of(struct xdp_md *context,
						      struct pw_header *header,
						      struct pw_scratch *scratch)
{
	struct pw_policy *slots = (void *)header + PW_POLICY_OFFSET;
	__u32 ifindex = context->ingress_ifindex;
	scratch->packet.ifindex = ifindex;
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
