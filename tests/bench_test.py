"""scripts/bench and scripts/score on a few lines: that they run, and what they say where something is missing. Their figures are nobody's."""
import json
import os
import subprocess
import sys

import program
from program import BINARY, EN_DE, ROOT, Case

ON_CPU = ['--device', 'cpu', '--precision', 'fp32', '--xlate', BINARY]
setUpModule = program.require


class Bench(Case):
    def setUp(self):
        super().setUp()
        self.text = self.path('few.txt', 'The file is open.\nPlease close it.\nThank you.\n')

    def script(self, name, *arguments, code=0):
        done = subprocess.run([sys.executable, os.path.join(ROOT, 'scripts', name), *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=program.TIMEOUT)
        self.assertEqual(done.returncode, code, done.stderr.decode())
        return done.stdout.decode(), done.stderr.decode()

    def test_settings_and_a_refused_one(self):
        table, _ = self.script('bench', '-m', EN_DE, '-i', self.text, '--device', 'cpu', '--precision', 'fp32,fp16', '--beam', '1', '--repeat', '1', '--xlate', BINARY, code=1)
        rows = [row for row in table.split('\n') if row.startswith('| en-de.bin')]
        self.assertEqual(len(rows), 2)
        self.assertIn('--precision', rows[1])

    def test_sweep(self):
        path = self.path('sweep.json')
        table, _ = self.script('sweep', *ON_CPU, '--axes', 'layers,beam', '--values', '1,2,4', '--base', '{"d": 64, "head": 32, "layers": 1, "vocabulary": 500}',
                               '--seconds', '0.1', '--teraflops', '0.02', '--json', path)
        self.assertEqual(table.count('\n| '), 8)
        with open(path) as file:
            axes = json.load(file)['axes']
        for axis in ('layers', 'beam'):
            self.assertEqual([point[axis] for point in axes[axis]], [1, 2, 4])
            self.assertEqual([point['equal'] for point in axes[axis]], [20, 20, 20])
            self.assertGreater(axes[axis][1]['worse'], 0)
        self.assertIn('expected some of', self.script('sweep', *ON_CPU, '--axes', 'width', code=2)[1])

    def test_step_timeline(self):
        """On what ncu prints: three ends of a step, so two steps, of which the longer one is shown."""
        kernels = [('void xlate::<unnamed>::advance_kernel(xlate::RulesView)', 2000, 0.1), ('nvjet_sm90_hsh_64x8', 4000, 8), ('nvjet_sm90_hsh_64x8', 6000, 8),
                   ('void xlate::<unnamed>::advance_kernel(xlate::RulesView)', 2000, 0.1), ('void xlate::<unnamed>::stream_kernel<__half, 64, 1>(xlate::StreamArgs<T1>)', 20000, 64),
                   ('void xlate::<unnamed>::advance_kernel(xlate::RulesView)', 3000, 0.1)]
        rows = ['"ID","Kernel Name","dram__bytes.sum","gpu__time_duration.sum"', '"","","Mbyte","ns"'] + ['"%d","%s","%s","%d"' % (i, name, size, time) for i, (name, time, size) in enumerate(kernels)]
        ncu = self.path('ncu', '#!/bin/sh\ncat <<\'EOF\'\n==PROF== Connected\n' + '\n'.join(rows) + '\nEOF\n')
        os.chmod(ncu, 0o755)
        table, _ = self.script('step_timeline', '-m', EN_DE, '-i', self.text, *ON_CPU, '--ncu', ncu)
        self.assertIn('2 whole steps of 12 to 23 µs', table)
        self.assertIn('| stream_kernel<__half, 64, 1> | 1 | 20.0 | 87.0 | 64 | 3200 |', table)
        self.assertIn('| all | 2 | 23.0 | 100.0 | 64 | 2787 |', table)
        self.assertIn('no whole step', self.script('step_timeline', '-m', EN_DE, '-i', self.text, *ON_CPU, '--ncu', '/bin/true', code=1)[1])

    def test_imposed_lengths(self):
        lengths, report = self.path('lengths', '4\n9\n1\n'), self.path('report.json')
        command = [BINARY, '-m', EN_DE, '-i', self.text, '--device', 'cpu', '-o', os.devnull, '--report', report]
        for beam in ('1', '4'):
            subprocess.run([*command, '-b', beam], check=True, env={**os.environ, 'XLATE_TEST_LENGTHS': lengths})
            with open(report) as file:
                self.assertEqual(json.load(file)['counts']['target_tokens'], 14)
        done = subprocess.run(command, env={**os.environ, 'XLATE_TEST_LENGTHS': self.path('wrong', '4\nfour\n')}, stderr=subprocess.PIPE)
        self.assertEqual(done.returncode, 1)
        self.assertIn(b'line 2 is not a number', done.stderr)

    def test_startup(self):
        path = self.path('startup.json')
        table, _ = self.script('bench', 'startup', '-m', EN_DE, '-i', self.text, *ON_CPU, '--floor', '/bin/true', '--repeat', '2', '--json', path)
        self.assertEqual(table.count('\n| '), 6)
        with open(path) as file:
            startup = json.load(file)
        self.assertEqual(len(startup['turns']), 2)
        for kind in ('first_output', 'whole'):
            self.assertGreater(startup['figures'][kind], startup['figures'][kind + '_above_floor'])

    def test_latency_and_throughput(self):
        path = self.path('runs.json')
        for mode, lines in (('latency', 3), ('throughput', 6)):
            self.script('bench', mode, '-m', EN_DE, '-i', self.text, *ON_CPU, '--beam', '1', '--repeat', '1', '--times', '2', '--json', path)
            with open(path) as file:
                self.assertEqual(json.load(file)['runs']['1'][0]['lines']['out'], lines, mode)

    def test_score_or_what_it_lacks(self):
        try:
            import sacrebleu  # noqa: F401
        except ImportError:
            _, said = self.script('score', '-m', EN_DE, '-i', self.text, '-r', self.text, *ON_CPU, code=1)
            self.assertIn('sacrebleu', said)
            return
        table, _ = self.script('score', '-m', EN_DE, '-i', self.text, '-r', self.text, *ON_CPU, '--beam', '1,4')
        self.assertEqual(table.count('| en-de.bin'), 2)
        self.assertIn('nrefs:1', table)


if __name__ == '__main__':
    program.main()
