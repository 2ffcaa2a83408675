"""Tests compressed inputs, which are recognized by their names or by their first bytes, and damaged
ones."""

import array
import fcntl
import gzip
import termios
import zlib

import program
from program import GREEDY, Case

setUpModule = program.require


class Packed(Case):
    def setUp(self):
        super().setUp()
        self.yes, self.cheap = self.ok(*GREEDY, input="Yes.\nIt was really cheap.\n", lines=2).lines

    def raw(self, name, data):
        path = self.path(name)
        with open(path, "wb") as file:
            file.write(data)
        return path

    def test_gz_by_extension(self):
        self.same(
            [self.yes, self.cheap],
            self.ok(*GREEDY, "-i", self.path("a.gz", "Yes.\nIt was really cheap.\n")).lines,
        )

    def test_gz_of_several_members_and_of_nothing(self):
        path = self.path("members.gz")
        with open(path, "wb") as file:
            file.write(
                gzip.compress(b"Yes.\nIt was ")
                + gzip.compress(b"")
                + gzip.compress(b"really cheap.\nYes.\n")
            )
        self.same([self.yes, self.cheap, self.yes], self.ok(*GREEDY, "-i", path).lines)
        self.assertEqual(self.ok(*GREEDY, "-i", self.path("nothing.gz", b"")).out, b"")

    def test_a_corrupted_gz_input_fails_naming_it(self):
        whole = gzip.compress(
            b"".join(b"Line %d of many that differ.\n" % i for i in range(400)), 6
        )
        flipped = bytearray(whole)
        flipped[len(flipped) // 2] ^= 0x55
        crc = bytearray(whole)
        crc[-6] ^= 1
        for name, data in (
            ("cut", whole[: len(whole) // 2]),
            ("cut-in-the-trailer", whole[:-3]),
            ("flipped", flipped),
            ("checksum", crc),
            ("not-gz", b"Yes.\nNo.\n"),
            ("header-only", whole[:6]),
        ):
            with self.subTest(name):
                path = self.path(name + ".gz")
                with open(path, "wb") as file:
                    file.write(data)
                self.fails(*GREEDY, "--max-length", "4", "-i", path, names=name + ".gz")

    def test_zeros_behind_a_member_are_padding(self):
        first, second = gzip.compress(b"Yes.\n"), gzip.compress(b"It was really cheap.")
        # The last case has more zeros than are read at a time.
        for zeros in (1, 512, 100000):
            with self.subTest(zeros):
                self.same(
                    [self.yes, self.cheap],
                    self.ok(
                        *GREEDY, "-i", self.raw("padded.gz", first + second + bytes(zeros))
                    ).lines,
                )
                self.same(
                    [self.yes, self.cheap],
                    self.ok(
                        *GREEDY, "-i", self.raw("padded.gz", first + bytes(zeros) + second)
                    ).lines,
                )

    def test_anything_else_behind_a_member_is_damage_and_loses_no_line_before_it(self):
        packed = gzip.compress(b"Yes.\nIt was really cheap.\n")
        for name, tail in (
            ("text", b"more\n"),
            ("one-byte", b"\x1f"),
            ("zeros-and-more", bytes(100) + b"x"),
            ("header-only", gzip.compress(b"")[:9]),
            ("another-method", b"\x1f\x8b\x07" + bytes(20)),
        ):
            with self.subTest(name):
                result = self.fails(
                    *GREEDY, "-i", self.raw(name + ".gz", packed + tail), names=name + ".gz"
                )
                self.same([self.yes, self.cheap], result.lines, result)

    def test_zeros_alone_are_no_gzip_data(self):
        self.assertEqual(
            self.fails(*GREEDY, "-i", self.raw("zeros.gz", bytes(1000)), names="zeros.gz").out, b""
        )

    def test_lines_before_the_damage_are_written(self):
        packer = zlib.compressobj(wbits=31)
        begun = packer.compress(b"Yes.\nIt was really cheap.\nThis line is not") + packer.flush(
            zlib.Z_SYNC_FLUSH
        )
        for name, data in (("cut", begun), ("spoilt", begun + b"\xff" * 100)):
            with self.subTest(name):
                result = self.fails(*GREEDY, "-i", self.raw(name + ".gz", data), names=name + ".gz")
                self.same([self.yes, self.cheap], result.lines, result)

    def test_a_member_that_unpacks_to_whole_blocks(self):
        # The sizes are exactly the size that is decompressed at a time, and a little more.
        for size in (1 << 18, 1 << 19, (1 << 18) + 1):
            with self.subTest(size):
                data = (b"Yes.\n" * (size // 5 + 1))[:size]
                _, report = self.report(
                    *GREEDY,
                    "--max-length",
                    "1",
                    "--output-format",
                    "ids",
                    "-i",
                    self.raw("blocks.gz", gzip.compress(data, 9)),
                )
                self.assertEqual(
                    report["lines"]["in"], data.count(b"\n") + (not data.endswith(b"\n"))
                )


class Recognised(Case):
    """The names of these gzip files do not tell their type. The first two bytes do, 1f 8b."""

    TEXT = "Yes.\nIt was really cheap.\n"

    def setUp(self):
        super().setUp()
        self.yes, self.cheap = self.ok(*GREEDY, input=self.TEXT, lines=2).lines
        self.packed = gzip.compress(self.TEXT.encode())

    def file(self, name, data):
        with open(self.path(name), "wb") as file:
            file.write(data)
        return self.path(name)

    def test_on_stdin_and_under_any_name(self):
        self.same([self.yes, self.cheap], self.ok(*GREEDY, input=self.packed).lines)
        self.same(
            [self.yes, self.cheap], self.ok(*GREEDY, "--line-buffered", input=self.packed).lines
        )
        packed, plain = self.file("packed.txt", self.packed), self.file("plain.txt", b"Yes.\n")
        self.same(
            [self.yes, self.cheap, self.yes] + [self.yes, self.cheap] * 2,
            self.ok(*GREEDY, "-i", packed, plain, "-", packed, input=self.packed).lines,
        )
        with open(packed, "rb") as stdin:
            self.same([self.yes, self.cheap], self.ok(*GREEDY, input=stdin).lines)

    def test_where_the_two_bytes_come_one_by_one(self):
        for options in ([], ["--line-buffered"]):
            for data in (self.packed, b"\x1fYes.\n"):
                with self.subTest((options, data[:2])):
                    running = self.start(*GREEDY, *options)
                    running.send(data[:1])
                    waiting = array.array("i", [1])

                    def taken():
                        fcntl.ioctl(running.process.stdin, termios.FIONREAD, waiting)
                        return waiting[0] == 0

                    self.assertTrue(running.until(taken), running.result(0).story())
                    running.send(data[1:])
                    running.close()
                    result = running.wait(30)
                    self.check(result, 0)
                    self.same(self.ok(*GREEDY, input=data).lines, result.lines, result)
                    self.assertEqual(len(result.lines), 2 if data is self.packed else 1)

    def test_each_line_is_answered_as_soon_as_it_is_unpacked(self):
        running, packer = self.start(*GREEDY, "--line-buffered"), zlib.compressobj(wbits=31)
        for i, line in enumerate(self.TEXT.encode().splitlines(True)):
            running.send(packer.compress(line) + packer.flush(zlib.Z_SYNC_FLUSH))
            self.assertTrue(running.until(lambda: running.count() > i), running.result(0).story())
        running.send(packer.flush())
        running.close()
        result = running.wait(30)
        self.check(result, 0)
        self.same([self.yes, self.cheap], result.lines, result)

    def test_inputs_that_are_shorter_than_two_bytes(self):
        self.assertEqual(self.ok(*GREEDY, input=b"").out, b"")
        self.ok(*GREEDY, input=b"\x1f", lines=1)
        _, report = self.report(
            *GREEDY,
            "-i",
            self.file("one", b"\x1f"),
            self.file("none", b""),
            "-",
            input=b"Yes.\n",
            lines=2,
        )
        self.assertEqual(report["lines"]["in"], 2)

    def test_damage_names_the_input(self):
        self.fails(*GREEDY, input=self.packed[:-3], names=["stdin", "gzip"])
        result = self.fails(
            *GREEDY,
            "-i",
            self.file("cut.txt", gzip.compress(b"Yes.\n") + self.packed[:9]),
            names=["cut.txt", "gzip"],
        )
        self.same([self.yes], result.lines, result)

    def test_data_that_unpacks_to_a_thousand_times_as_much_takes_no_more_memory(self):
        peaks = {}
        for size in (8 << 20, 256 << 20):
            with self.subTest(size):
                path = self.file("blanks", gzip.compress(b" " * size + b"\n", 9))
                result, peaks[size] = program.peak_memory(*GREEDY, input_path=path)
                self.check(result, 0)
                self.assertEqual(result.out, b"\n")
        self.assertLess(peaks[256 << 20], peaks[8 << 20] + (64 << 20), peaks)


if __name__ == "__main__":
    program.main()
