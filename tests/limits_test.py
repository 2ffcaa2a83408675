"""Limits that a shell, a grid engine or a container sets: on memory, threads, file sizes, time. A run fits, or says in one line what it lacks."""
import os
import resource
import unittest

import program
from program import BINARY, GREEDY, Case, best, source_lines, xlate

IDS = GREEDY + ['--output-format', 'ids', '--max-length', '60', '--max-length-factor', '50']
BLOCK = ''.join(line + '\n' for line in source_lines()[:40]).encode('utf-8')
setUpModule = program.require


def limit(*limits):
    """For preexec_fn: each limit, soft and hard, as (which, value)."""
    def set_them():
        for which, value in limits:
            resource.setrlimit(which, (value, value))
    return set_them


def is_sanitized():
    """Whether the program reserves terabytes for its shadow, and cannot start under a limit on address space."""
    with open(BINARY, 'rb') as file:
        return b'__asan_init' in file.read()


@unittest.skipIf(is_sanitized(), 'the sanitizers need address space')
class Memory(Case):
    def outcome(self, which, kilobytes, threads):
        """The run's exit code, having checked that it is either right or told in one line."""
        result = xlate('-q', *IDS, '--threads', threads, input=BLOCK, timeout=30, device='cpu', preexec_fn=limit((which, kilobytes * 1024)))
        if result.code == 0:
            self.same(best('shared', 'greedy')[:40], result.lines, result, allowed=1)
        else:
            self.check(result, 1)
            self.assertEqual((len(result.error_lines), result.out), (1, b''), result.story())
            self.says(result, 'ulimit', '%d kB' % kilobytes)
        return result.code

    def test_a_limit_on_address_space_is_kept_or_told_at_any_size(self):
        for threads in (1, 2, 8):
            codes = set()
            for kilobytes in [*range(100000, 700001, 50000), 2000000]:
                with self.subTest((threads, kilobytes)):
                    codes.add(self.outcome(resource.RLIMIT_AS, kilobytes, threads))
            self.assertEqual(codes, {0, 1}, '%d threads' % threads)

    def test_a_limit_on_data_is_kept_or_told(self):
        codes = set()
        for kilobytes in (100000, 250000, 300000, 1000000):
            with self.subTest(kilobytes):
                codes.add(self.outcome(resource.RLIMIT_DATA, kilobytes, 2))
        self.assertEqual(codes, {0, 1})

    def test_too_little_for_the_products_names_both_sides_and_the_way_out(self):
        self.fails(*IDS, '--threads', '8', input=BLOCK, device='cpu', preexec_fn=limit((resource.RLIMIT_AS, 300000 * 1024)),
                   names=['--threads 8', '131072 kB', 'room for 1', 'ulimit -v: 300000 kB', 'fewer --threads'])

    def test_a_thread_that_is_not_to_be_had_is_named(self):
        # A stack larger than what may be mapped.
        limits = limit((resource.RLIMIT_STACK, 2000000 * 1024), (resource.RLIMIT_AS, 1000000 * 1024))
        self.fails(*IDS, '--threads', '1', input=BLOCK, device='cpu', preexec_fn=limits, names=['thread for writing the output', 'unavailable', 'ulimit -v: 1000000 kB', 'fewer --threads'])
        self.fails(*IDS, '--threads', '3', input=BLOCK, device='cpu', preexec_fn=limits, names=['--threads 3: the system gave 1', 'ulimit -v: 1000000 kB'])


if __name__ == '__main__':
    program.main()
