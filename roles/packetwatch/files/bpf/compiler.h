/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Copyright: (c) 2026, Packetwatch authors */
/* Macros that control what the compiler may assume. */
#ifndef PACKETWATCH_COMPILER_H
#define PACKETWATCH_COMPILER_H

#define pw_read_once(x) (*(volatile __u64 *)&(x))
/* libbpf's barrier_var, which bcc lacks: the compiler cannot know the variable's value after it. */
#define pw_barrier_var(x) asm volatile("" : "+r"(x))
#define pw_unlikely(x) __builtin_expect(!!(x), 0)

#endif
