/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Copyright: (c) 2026, Packetwatch authors */
/*
 * Looking up an address in the list tables: docs/tables.md has the format.
 * Ideas: DXR (Zec, Rizzo, Mikuc, ACM CCR 42(5), 2012) for prefixes; a filter of tags before buckets of keys
 * (Fan et al., MemC3, NSDI 2013) for IPv6 hosts.
 */
#ifndef PACKETWATCH_LISTS_H
#define PACKETWATCH_LISTS_H

#define PW_LINES 1024U /* lines in a page */
#define PW_BLOCK_BITS 6 /* bits of an address behind a top line's number that say which of its blocks */
#define PW_HALVES 32 /* added to the top table's shift if its lines are two halves */
#define PW_HALF_BITS 15 /* bits of an address that are looked for in a half */
#define PW_STEPS4 14   /* lines that a lookup visits at most */
#define PW_STEPS6 43
#define PW_INNER 3 /* kinds of lines, by their lowest three bits; others are leaves */
#define PW_TABLE 7
#define PW_KEY_BITS 24
#define PW_LOOK 3 /* an IPv6 key's verdict that says: look at the record */
#define PW_RUN 15 /* records in a run at most */
#define PW_MANY 1
#define PW_SLOTS 4  /* hosts in a bucket */
#define PW_TRIES 32 /* buckets that may have a host */
#define PW_EACH 0x0001000100010001ULL
#define PW_TAG 0x1fffULL
#define PW_MORE 0x2000ULL /* in a bucket's first slot: whoever looked for room here may be in the next ones */
#define PW_SAYS 14        /* bit of a slot where its verdict begins */
#define PW_HASH_LOW 0x9e3779b97f4a7c15ULL
#define PW_HASH_ALL 0xd6e8feb86659fd93ULL

/* One start: an address without its first eight bits. The lowest bits say what holds at it and
 * behind it. */
struct pw_record {
	__u64 low;
	__u64 high;
};

/* As large as what a processor fetches at once. */
struct pw_line {
	union {
		__u32 word[16];
		__u64 pair[8];
		struct pw_record record[4];
	};
};

/* A page. What tells of most addresses that their line says nothing of them is apart, so that it
 * stays in a processor's own cache. */
struct pw_lines {
	struct pw_line line[PW_LINES];
	__u64 filter[PW_LINES];
};

_Static_assert(sizeof(struct pw_lines) == PW_PAGE_SIZE, "pages are what the maps have");

static __always_inline void *pw_page(void *tables, __u32 index)
{
	return bpf_map_lookup_elem(tables, &index);
}

static __always_inline struct pw_line *pw_line_of(void *tables, __u32 first, __u64 line)
{
	struct pw_lines *page = pw_page(tables, first + line / PW_LINES);
	return page ? &page->line[line % PW_LINES] : 0;
}

static __always_inline struct pw_record *pw_record_of(void *tables, __u32 first, __u32 number)
{
	struct pw_line *line = pw_line_of(tables, first, number / 4);
	return line ? &line->record[number % 4] : 0;
}

/*
 * How many of a line's 15 keys are not above `low`. All are compared, two at a time and without a
 * branch, which would often be mispredicted: bit 28 of a half of a pair becomes 1 exactly if its key is
 * above. Keys are 2^28 at most and heads below 2^31, so nothing is carried into the other half.
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

/* The leaf that a line which is none leads to. */
static __always_inline struct pw_line *pw_leaf4(void *tables, struct pw_header *header,
						struct pw_line *at, __u64 low)
{
	for (int i = 1; i < PW_STEPS4; i++) {
		__u32 head = at->word[0];
		if ((head & PW_INNER) != PW_INNER)
			break;
		__u32 shape = at->word[1];
		__u64 line = head >> 4;
		line += (head & 7) == PW_TABLE ? low >> (shape & 31) & shape >> 8 : pw_rank(at, low);
		at = pw_line_of(tables, header->v4_page, line);
		if (!at) /* here, or LLVM 19 adds to a pointer that may be NULL */
			return 0;
	}
	return at;
}

/* What a half of a line says of an address by its last bits, which all numbers but the first one are.
 * The highest bit of each quarter of a word becomes 1 unless they are equal. */
static __always_inline __u32 pw_half4(__u64 *half, __u64 low)
{
	__u64 each = low * 0x0001000100010001ULL;
	__u64 most = 0x7fff7fff7fff7fffULL;
	__u64 differ = ((half[0] ^ each) | 1) + most; /* the first one says what holds */
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
	struct pw_lines *page = pw_page(tables, header->v4_page + top / PW_LINES);
	if (!page || !(page->filter[top % PW_LINES] >> (block & 63) & 1))
		return PW_NONE;
	struct pw_line *at = &page->line[top % PW_LINES];
	__u64 low = address & ((1ULL << shift) - 1);
	if (header->v4_shift & PW_HALVES) {
		__u64 *half = (void *)at + (block & sizeof(*at) / 2); /* its upper half of blocks: the second one */
		low = address & ((1 << PW_HALF_BITS) - 1);
		if ((__s64)*half >= 0)
			return pw_half4(half, low);
		__u64 line = *half & 0xffffffff;
		page = pw_page(tables, header->v4_page + line / PW_LINES);
		if (!page)
			return PW_NONE;
		pw_opaque(page); /* or LLVM 19 adds to it first */
		at = &page->line[line % PW_LINES];
	}
	/* Most are leaves. */
	if ((at->word[0] & PW_INNER) == PW_INNER)
		at = pw_leaf4(tables, header, at, low);
	if (!at)
		return PW_NONE;
	__u32 key = at->word[pw_rank(at, low) & 15];
	return key >> 4 == low ? key & 3 : key >> 2 & 3;
}

/* The next 64 bits of an address, from one on; zeros behind it. */
static __always_inline __u64 pw_bits(__u64 high, __u64 low, __u32 from)
{
	return from < 64 ? high << (from & 63) | low >> 1 >> (63 - (from & 63)) : low << (from & 63);
}

/* What holds at an address according to the records that a key leads to; `said` holds before them. */
static __always_inline __u32 pw_records(void *tables, struct pw_scratch *scratch, __u32 first,
					__u32 number, __u64 high, __u64 low, __u32 said)
{
	struct pw_record *record = pw_record_of(tables, first, number);
	if (!record)
		return PW_NONE;
	scratch->index = 1; /* how many there are */
	if (record->low & PW_MANY) {
		scratch->index = record->low >> 8;
		number -= record->high;
	}
	/* As records have it. */
	high = high << 8 | low >> 56;
	low <<= 8;
	for (int i = 0; i < PW_RUN && i < scratch->index; i++) {
		record = pw_record_of(tables, first, number + i);
		if (!record)
			return PW_NONE;
		__u64 flags = record->low;
		__u64 own = flags & ~0xffULL;
		if (high == record->high && low == own)
			return flags >> 4 & 3;
		if (high < record->high || (high == record->high && low < own))
			return said;
		said = flags >> 6 & 3;
	}
	return said;
}

/* What a leaf says of an address, of which scratch->index bits have led to it. */
static __always_inline __u32 pw_leaf6(void *tables, struct pw_scratch *scratch, __u32 first,
				      __u32 line, __u64 high, __u64 low)
{
	struct pw_line *leaf = pw_line_of(tables, first, line);
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
	if ((key & 3) != PW_LOOK)
		return key & 3;
	__u32 before = leaf->word[rank - 1 & 15] >> 2 & 3;
	return pw_records(tables, scratch, first, (head >> 4) + rank - 1, high, low, before);
}

/* What a bucket says of an address. Without a branch: which slot has it nobody can predict. */
static __always_inline __u32 pw_said(struct pw_line *bucket, __u64 slots, __u64 high, __u64 low)
{
	__u64 said = 0;
#pragma unroll
	for (int i = 0; i < PW_SLOTS; i++) {
		__u64 differ = (bucket->pair[2 * i] ^ high) | (bucket->pair[2 * i + 1] ^ low);
		__u64 sign = differ | -differ; /* 1 if they differ at all */
		pw_opaque(sign);
		__u64 mask = (sign >> 63) - 1;
		pw_opaque(mask);
		said |= slots >> (16 * i + PW_SAYS) & 3 & mask;
	}
	return said;
}

/*
 * What a bucket says of an address; its slots are put into scratch->index. The filter tells nearly always
 * that it has not got it. Where the bucket is depends on the address alone, so a processor that expects to
 * find it fetches both at once.
 */
static __always_inline __u32 pw_bucket6(void *tables, struct pw_header *header,
					struct pw_scratch *scratch, __u64 bucket, __u64 hash, __u64 high,
					__u64 low)
{
	__u64 line = header->v6_hosts + bucket;
	struct pw_lines *page = pw_page(tables, header->v6_page + line / PW_LINES);
	if (!page)
		return PW_NONE;
	__u64 slots = page->filter[line % PW_LINES];
	__u64 differ = (slots ^ (hash >> 16 & PW_TAG) * PW_EACH) & PW_TAG * PW_EACH;
	scratch->index = slots;
	/* A carry out of each tag that is not equal. */
	if ((differ + PW_TAG * PW_EACH & PW_MORE * PW_EACH) == PW_MORE * PW_EACH)
		return PW_NONE;
	return pw_said(&page->line[line % PW_LINES], slots, high, low);
}

/* What holds at a single address that is listed by itself: most are in the first bucket. */
static __always_inline __u32 pw_hosts6(void *tables, struct pw_header *header,
				       struct pw_scratch *scratch, __u64 high, __u64 low)
{
	__u64 hash = high + low * PW_HASH_LOW;
	hash = (hash ^ hash >> 32) * PW_HASH_ALL;
	__u64 bucket = (hash >> 32) * header->v6_buckets >> 32;
	scratch->index = 0;
	__u32 said = pw_bucket6(tables, header, scratch, bucket, hash, high, low);
	for (int i = 1; i < PW_TRIES && !said && scratch->index & PW_MORE; i++)
		said = pw_bucket6(tables, header, scratch, bucket + i, hash, high, low);
	return said;
}

/* What the tree says of an address; it begins with line 0. */
static __always_inline __u32 pw_tree6(void *tables, struct pw_header *header,
				      struct pw_scratch *scratch, __u64 high, __u64 low)
{
	__u32 line = 0;
	scratch->index = 0; /* how many bits the lines so far have decided */
	for (int i = 0; i < PW_STEPS6; i++) {
		struct pw_line *at = pw_line_of(tables, header->v6_page, line);
		if (!at)
			return PW_NONE;
		__u32 head = at->word[0];
		if ((head & 7) != PW_TABLE)
			break;
		__u32 done = scratch->index;
		__u32 shape = at->word[1];
		__u32 skipped = shape >> 8 & 63;
		__u64 prefix = pw_bits(high, low, done) >> 1 >> (63 - skipped);
		if (prefix != at->pair[1])
			return (prefix < at->pair[1] ? shape >> 16 : shape >> 18) & 3;
		line = (head >> 4) + (__u32)(pw_bits(high, low, done + skipped) >> (64 - shape & 63));
		scratch->index = done + skipped + (shape & 63);
	}
	return pw_leaf6(tables, scratch, header->v6_page, line, high, low);
}

/* address: as in the packet, in two halves. */
static __always_inline __u32 pw_lists6(void *tables, struct pw_header *header, __u64 *address)
{
	__u64 high = pw_be64(address[0]);
	__u64 low = pw_be64(address[1]);
	struct pw_scratch *scratch = scratch_get();
	if (!scratch)
		return PW_NONE;
	if (header->v6_buckets) {
		__u32 said = pw_hosts6(tables, header, scratch, high, low);
		if (said || !header->v6_hosts)
			return said;
	}
	return pw_tree6(tables, header, scratch, high, low);
}

/* The policy of the interface that the packet came in by. Its index goes by the scratch memory, so
 * that the verifier sees one pointer and not one for each probe. */
static __always_inline struct pw_policy *pw_policy_of(struct xdp_md *context,
						      struct pw_header *header,
						      struct pw_scratch *scratch)
{
	struct pw_policy *slots = (void *)header + PW_POLICY_OFFSET;
	__u32 ifindex = context->ingress_ifindex;
	scratch->index = 0;
	for (int i = 0; i < PW_POLICY_PROBES; i++) {
		__u32 index = (ifindex + i) % PW_POLICY_SLOTS;
		__u32 own = slots[index].ifindex;
		if (own == ifindex)
			scratch->index = index;
		if (own == ifindex || (!own && index))
			break; /* free: it has none of its own */
	}
	return &slots[scratch->index % PW_POLICY_SLOTS];
}

/* Its action, by one look where that tells. A number and no pointer that may be NULL: compilers
 * newer than LLVM 14 make of such a pointer what the verifier does not follow. */
static __always_inline __u32 pw_action_of(struct xdp_md *context, struct pw_header *header)
{
	struct pw_policy *slots = (void *)header + PW_POLICY_OFFSET;
	__u32 ifindex = context->ingress_ifindex;
	struct pw_policy *likely = &slots[ifindex % PW_POLICY_SLOTS];
	if (likely->ifindex == ifindex)
		return likely->action;
	if (!likely->ifindex && ifindex % PW_POLICY_SLOTS)
		return slots->action; /* free, so the interface has none of its own */
	struct pw_scratch *scratch = scratch_get();
	if (!scratch)
		return PW_ACTION_ENFORCE;
	return pw_policy_of(context, header, scratch)->action;
}

#endif
