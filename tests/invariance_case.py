"""Compares the outputs of lines of ids in different runs, for tests that the output of a line
depends on the line alone. A GPU must give the same bytes in every type. On the CPU the last bits of
a score depend on the batch, so that near-ties may fall either way."""

import program
from program import Case

FORMATS = ["--input-format", "ids", "--output-format", "ids", "--scores"]
# On the CPU, scores may differ by this much, and this many lines may be near-ties.
NEAR, NEAR_TIES = 1e-4, 1


class InvarianceCase(Case):
    device, precision = program.DEVICE, program.PRECISION

    @property
    def exact(self):
        return self.device != "cpu"

    def rows_of(self, model, lines, *options):
        """Returns (score, ids) of each line as printed, and the report. `lines` has bytes."""
        where = ["--device", self.device]
        if self.exact:
            where += ["--precision", self.precision, "--gpu-memory", "8GiB"]
        result, report = self.report(
            *FORMATS,
            *where,
            *options,
            input=b"".join(line + b"\n" for line in lines),
            lines=len(lines),
            model=model,
            device=None,
        )
        return [line.split(" ||| ", 1) for line in result.lines], report

    def check_same(self, wanted, got, what):
        if self.exact:
            wrong = [i + 1 for i, (a, b) in enumerate(zip(wanted, got)) if a != b]
            self.assertEqual(wrong, [], "%s: these lines have other bytes" % what)
            return
        wrong = [i + 1 for i, (a, b) in enumerate(zip(wanted, got)) if a[1] != b[1]]
        self.assertLessEqual(len(wrong), NEAR_TIES, "%s: lines %s differ" % (what, wrong))
        for a, b in zip(wanted, got):
            self.assertAlmostEqual(float(a[0]), float(b[0]), delta=NEAR, msg=(what, a, b))

    def check_order(self, wanted, order, rows, what):
        """Compares the rows of lines in another order. `order` has the line of each row."""
        got = [None] * len(wanted)
        for i, row in zip(order, rows, strict=True):
            got[i] = row
        self.check_same(wanted, got, what)
