/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Copyright: (c) 2026, Packetwatch authors */
/*
 * The lists' verdict on an IPv6 address: a hash for single hosts, then a tree for everything else.
 * docs/tables.md describes the format. The filter of tags before the buckets is an idea of MemC3
 * (Fan et al., NSDI 2013).
 */
#ifndef PACKETWATCH_LISTS_IPV6_H
#define PACKETWATCH_LISTS_IPV6_H

#include "lists.h"

#define PW_BUCKET_SLOTS 4 /* hosts in a bucket */
#define PW_MAX_BUCKETS 32 /* where a host may be */
#define PW_TAG 0x1fffULL  /* bits of a filter's slot */
#define PW_MORE 0x2000ULL /* in the first slot: a host with no room here may be in a later bucket */
#define PW_SLOT_VERDICT 14 /* lowest bit of the verdict in a slot */
#define PW_HASH_LOW 0x9e3779b97f4a7c15ULL
#define PW_HASH_BOTH 0xd6e8feb86659fd93ULL
#define PW_IPV6_MAX_LINES 43 /* of the tree, that a lookup visits */
#define PW_KEY_BITS 24
#define PW_IN_RECORD 3 /* instead of a key's verdict: its record has it */
#define PW_RECORD_IS_RUN 1
#define PW_MAX_RUN 15 /* records */

/* The verdict of a bucket. Without a branch, because the CPU cannot predict which slot matches. */
static __always_inline __u32 pw_bucket_verdict(struct pw_line *bucket, __u64 slots, __u64 high,
					       __u64 low)
{
	__u64 verdict = 0;
#pragma unroll
	for (int i = 0; i < PW_BUCKET_SLOTS; i++) {
		__u64 differ = (bucket->pair[2 * i] ^ high) | (bucket->pair[2 * i + 1] ^ low);
		__u64 sign = differ | -differ; /* the highest bit is 1 if they differ */
		pw_barrier_var(sign);          /* otherwise the compiler makes a branch */
		__u64 mask = (sign >> 63) - 1;
		pw_barrier_var(mask);
		verdict |= slots >> (16 * i + PW_SLOT_VERDICT) & 3 & mask;
	}
	return verdict;
}

/*
 * The verdict of one bucket; its slots go to scratch->index. For most unlisted addresses the filter
 * has no equal tag. The bucket's place depends on the address alone, so the CPU can fetch filter
 * and bucket at the same time.
 */
static __always_inline __u32 pw_bucket6(void *tables, struct pw_header *header,
					struct pw_scratch *scratch, __u64 bucket, __u64 hash,
					__u64 high, __u64 low)
{
	__u64 line = header->v6_hosts + bucket;
	struct pw_page *page = pw_page_at(tables, header->v6_page + line / PW_LINES);
	if (!page)
		return PW_NONE;
	__u64 slots = page->filter[line % PW_LINES];
	__u64 tags = PW_TAG * PW_EACH_16_BITS;
	__u64 carries = PW_MORE * PW_EACH_16_BITS;
	__u64 differ = (slots ^ (hash >> 16 & PW_TAG) * PW_EACH_16_BITS) & tags;
	scratch->index = slots;
	/* Each tag that differs carries into the bit above it. */
	if ((differ + tags & carries) == carries)
		return PW_NONE;
	return pw_bucket_verdict(&page->line[line % PW_LINES], slots, high, low);
}

/* The verdict on a single host; PW_NONE if no bucket has it. Most are in their first bucket. */
static __always_inline __u32 pw_hosts6(void *tables, struct pw_header *header,
				       struct pw_scratch *scratch, __u64 high, __u64 low)
{
	__u64 hash = high + low * PW_HASH_LOW;
	hash = (hash ^ hash >> 32) * PW_HASH_BOTH;
	__u64 bucket = (hash >> 32) * header->v6_buckets >> 32;
	scratch->index = 0;
	__u32 verdict = pw_bucket6(tables, header, scratch, bucket, hash, high, low);
	for (int i = 1; i < PW_MAX_BUCKETS && !verdict && scratch->index & PW_MORE; i++)
		verdict = pw_bucket6(tables, header, scratch, bucket + i, hash, high, low);
	return verdict;
}

/* The next 64 bits of an address after the first `from`, with zeros after the last bit. */
static __always_inline __u64 pw_bits(__u64 high, __u64 low, __u32 from)
{
	return from < 64 ? high << (from & 63) | low >> 1 >> (63 - (from & 63)) :
			   low << (from & 63);
}

static __always_inline struct pw_record *pw_record_at(void *tables, __u32 first_page, __u32 number)
{
	struct pw_line *line = pw_line_at(tables, first_page, number / 4);
	return line ? &line->record[number % 4] : 0;
}

/* The verdict of the records below a key; `before` is the verdict below the first one. */
static __always_inline __u32 pw_records6(void *tables, struct pw_scratch *scratch, __u32 first_page,
					 __u32 number, __u64 high, __u64 low, __u32 before)
{
	struct pw_record *record = pw_record_at(tables, first_page, number);
	if (!record)
		return PW_NONE;
	scratch->index = 1; /* number of records */
	if (record->low & PW_RECORD_IS_RUN) {
		scratch->index = record->low >> 8;
		number -= record->high;
	}
	/* Records leave out the address's first eight bits. */
	high = high << 8 | low >> 56;
	low <<= 8;
	for (int i = 0; i < PW_MAX_RUN && i < scratch->index; i++) {
		record = pw_record_at(tables, first_page, number + i);
		if (!record)
			return PW_NONE;
		__u64 verdicts = record->low;
		__u64 start = verdicts & ~0xffULL;
		if (high == record->high && low == start)
			return verdicts >> 4 & 3;
		if (high < record->high || (high == record->high && low < start))
			return before;
		before = verdicts >> 6 & 3;
	}
	return before;
}

/* The verdict of a leaf; scratch->index is how many bits of the address led to it. */
static __always_inline __u32 pw_leaf6(void *tables, struct pw_scratch *scratch, __u32 first_page,
				      __u32 line, __u64 high, __u64 low)
{
	struct pw_line *leaf = pw_line_at(tables, first_page, line);
	if (!leaf)
		return PW_NONE;
	__u32 head = leaf->word[0];
	__u32 done = scratch->index;
	__u32 from = done < 128 - PW_KEY_BITS ? done : 128 - PW_KEY_BITS;
	__u32 bits = pw_bits(high, low, from) >> (64 - PW_KEY_BITS);
	__u32 rank = pw_rank(leaf, bits);
	if (!rank)
		return head & 3;
	__u32 key = leaf->word[rank & 15];
	if (key >> 4 != bits)
		return key >> 2 & 3;
	if ((key & 3) != PW_IN_RECORD)
		return key & 3;
	__u32 before = leaf->word[rank - 1 & 15] >> 2 & 3;
	return pw_records6(tables, scratch, first_page, (head >> 4) + rank - 1, high, low, before);
}

/* The verdict of the tree, which starts at line 0 of the area. */
static __always_inline __u32 pw_tree6(void *tables, struct pw_header *header,
				      struct pw_scratch *scratch, __u64 high, __u64 low)
{
	__u32 line = 0;
	scratch->index = 0; /* number of bits that the lines so far have decided */
	for (int i = 0; i < PW_IPV6_MAX_LINES; i++) {
		struct pw_line *at = pw_line_at(tables, header->v6_page, line);
		if (!at)
			return PW_NONE;
		__u32 head = at->word[0];
		if ((head & 7) != PW_LINE_TABLE)
			break;
		__u32 done = scratch->index;
		__u32 shape = at->word[1];
		__u32 skipped = shape >> 8 & 63;
		__u64 prefix = pw_bits(high, low, done) >> 1 >> (63 - skipped);
		if (prefix != at->pair[1])
			return (prefix < at->pair[1] ? shape >> 16 : shape >> 18) & 3;
		line = (head >> 4) +
		       (__u32)(pw_bits(high, low, done + skipped) >> (64 - shape & 63));
		scratch->index = done + skipped + (shape & 63);
	}
	return pw_leaf6(tables, scratch, header->v6_page, line, high, low);
}

/* The address as in the packet, as two halves. */
static __always_inline __u32 pw_lists6(void *tables, struct pw_header *header, __u64 *address)
{
	__u64 high = pw_be64(address[0]);
	__u64 low = pw_be64(address[1]);
	struct pw_scratch *scratch = scratch_get();
	if (!scratch)
		return PW_NONE;
	if (header->v6_buckets) {
		__u32 verdict = pw_hosts6(tables, header, scratch, high, low);
		if (verdict || !header->v6_hosts)
			return verdict;
	}
	return pw_tree6(tables, header, scratch, high, low);
}

#endif
