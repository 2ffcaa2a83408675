"""Has the checks of the acceptance of a GPU (gpu_acceptance.py), except those with
compute-sanitizer (gpu_sanitizers.py)."""

import concurrent.futures
import json
import os

from gpu_place import too_long

# The entries are (name, seconds at most, whether it runs alone on the GPU, function). The function
# takes (Place, seconds) and returns (whether it passed or None where it was left out, figure, log).
CHECKS = []


def check(name, seconds, alone=False):
    def enter(function):
        CHECKS.append((name, seconds, alone, function))
        return function

    return enter


@check("memory over a long run", 120, alone=True)
def memory(place, seconds):
    return place.suite("gpu_test.py", seconds, "Memory", precision="fp16")


@check("memory of ten million lines", 120)
def many_lines(place, seconds):
    return place.suite("stream_test.py", seconds, "-k", "ten_million", XLATE_LONG="1")


# Processes that share a GPU wait for each other, but much of the time is the host's. With an H200
# and 16 cores, two processes alone took 220 s and three took 150 s beside other checks.
@check("operations", 300, alone=True)
def operations(place, seconds, shards=4):
    pattern = "*cuda_*" if place.device != "cpu" else "Backend*.*/cpu2*"

    def shard(i):
        report = os.path.join(place.folder, "operations-%d.json" % i)
        code, output = place.run(
            [
                place.tests,
                "--gtest_filter=" + pattern,
                "--gtest_output=json:" + report,
                "--gtest_brief=1",
            ],
            seconds,
            GTEST_TOTAL_SHARDS=str(shards),
            GTEST_SHARD_INDEX=str(i),
        )
        if not os.path.isfile(report):
            return code, [], "process %d of %d: exit %s\n%s" % (i + 1, shards, code, output)
        with open(report) as file:
            tests = [test for suite in json.load(file)["testsuites"] for test in suite["testsuite"]]
        return code, tests, output

    with concurrent.futures.ThreadPoolExecutor(shards) as pool:
        results = list(pool.map(shard, range(shards)))
    tests = [test for _, found, _ in results for test in found]
    failed = sorted(
        "%s.%s" % (test["classname"], test["name"]) for test in tests if test.get("failures")
    )
    skipped = sum(test["result"] == "SKIPPED" for test in tests)
    figure = "%d of %d tests pass, %d skipped" % (
        len(tests) - len(failed) - skipped,
        len(tests),
        skipped,
    )
    for number, (code, found, _) in enumerate(results):
        if code is None or not found:
            figure += "; process %d of %d %s" % (
                number + 1,
                shards,
                too_long(seconds) if code is None else "ended with %d" % code,
            )
    log = "\n".join(output for _, _, output in sorted(results, key=lambda result: not result[1]))
    if tests and skipped == len(tests):
        return None, figure, log
    return (
        all(code == 0 for code, _, _ in results),
        figure + (": " + ", ".join(failed) if failed else ""),
        log,
    )


for name in ("shared", "separate"):

    @check("goldens, opus-shape %s, fp32" % name, 200)
    def goldens(place, seconds, name=name):
        return place.suite("golden_test.py", seconds, "-k", "*_%s_*threads_1" % name)


def reference_checks():
    settings = ("greedy", "beam4_stop_true", "beam4_stop_false", "beam4_stop_never", "beam6_n_best")
    for precision, names in (("fp32", settings), ("fp16", settings[:2]), ("bf16", settings[:2])):
        for setting in names:

            @check("goldens, ende-base %s, %s" % (setting, precision), 200)
            def goldens(place, seconds, setting=setting, precision=precision):
                file = {"greedy": "greedy.ids", "beam6_n_best": "beam6.nbest"}.get(
                    setting, setting.replace("_stop_true", "").replace("_stop_", ".stop-") + ".ids"
                )
                if lacking := place.lacks(
                    "data/wmt/newstest2014.en", "models/ende-base/newstest2014.first1000." + file
                ):
                    return None, lacking, ""
                return place.suite(
                    "reference_test.py", seconds, "Base.test_" + setting, precision=precision
                )


reference_checks()

for precision in ("fp32", "fp16"):
    for search in ("greedy", "beam4"):

        @check("the same bytes, %s, %s" % (search, precision), 400)
        def invariance(place, seconds, search=search, precision=precision):
            if lacking := place.lacks("data/bench/news.en"):
                return None, lacking, ""
            return place.suite(
                "invariance_test.py", seconds, "ByteForByte.test_" + search, precision=precision
            )

        @check("one sentence at a time, %s, %s" % (search, precision), 240)
        def single(place, seconds, search=search, precision=precision):
            if lacking := place.lacks("data/bench/news.en"):
                return None, lacking, ""
            return place.suite(
                "invariance_test.py",
                seconds,
                "ByteForByte.test_single_" + search,
                precision=precision,
            )


@check("an error of the device", 100)
def fault(place, seconds):
    return place.suite("gpu_test.py", seconds, "Fault", precision="fp16")


@check("special kernels run where they can", 150)
def special_kernels(place, seconds):
    return place.suite("gpu_test.py", seconds, "SpecialKernels", precision="fp16")


@check("checkpoints as people have them, fp32", 150)
def checkpoints(place, seconds):
    return place.suite("checkpoints_test.py", seconds)


@check("families, fp32", 240)
def families(place, seconds):
    return place.suite("families_test.py", seconds, "Families", "RandomNetworks", "Decoders")


# The wide network takes 15 GB of the host's memory and as many of the GPU's.
@check("long prompts and a wide network", 300)
def corners(place, seconds):
    return place.suite("gpu_test.py", seconds, "Corners")


for precision in ("fp32", "fp16", "bf16"):

    @check("families, the same bytes, %s" % precision, 240)
    def family_invariance(place, seconds, precision=precision):
        return place.suite("family_invariance_test.py", seconds, precision=precision)


# Each suite has the tests of some options, or of what may go wrong. Those of the second kind start
# many short processes, most of whose time is that of the driver's start.
for kind, most, suites in (
    (
        "options",
        240,
        "annotations beam_groups chat json_lines markup output_options prompts sampling_options "
        "score_pairs score_text split suppress target_prefix",
    ),
    (
        "robustness",
        400,
        "broken_model edges garbage option_values output resume signals stream",
    ),
):
    for suite in suites.split():

        @check("%s, %s, fp32" % (kind, suite.replace("_", " ")), most)
        def of_one_kind(place, seconds, suite=suite):
            return place.suite(suite + "_test.py", seconds)


for precision in ("fp32", "fp16"):

    @check("options, the same bytes, %s" % precision, 300)
    def option_invariance(place, seconds, precision=precision):
        return place.suite("option_invariance_test.py", seconds, precision=precision)


@check("memory that runs out, fp16", 400)
def memory_retry(place, seconds):
    return place.suite("memory_retry_test.py", seconds, precision="fp16")


@check("a program that waits for each answer, fp32", 120, alone=True)
def latency(place, seconds):
    return place.suite("latency_test.py", seconds, precision="fp32")


@check("signals, full disks and lost pages", 240)
def faults(place, seconds):
    return place.suite("faults_test.py", seconds, precision="fp32")


@check("numbers that overflow", 200)
def overflow(place, seconds):
    return place.suite("gpu_test.py", seconds, "Overflow", precision="fp16")


@check("cuBLASLt that is not found", 60)
def no_cublas(place, seconds):
    return place.suite("gpu_test.py", seconds, "NoCublas", precision="fp16")
