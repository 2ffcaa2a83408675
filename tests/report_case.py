"""What the tests of the report share: the fields that a report has, and their check."""

import json

from program import Case

INTEGER, REAL, TEXT, NULL, GPU_REAL = "integer", "number", "text", "null", "number or null"
FIELDS = {
    "model": {
        "path": TEXT,
        "hash": TEXT,
        "architecture": TEXT,
        "parameters": INTEGER,
        "bytes": INTEGER,
    },
    "device": {
        "name": TEXT,
        "compute_capability": NULL,
        "driver": NULL,
        "cuda": NULL,
        "cpu": TEXT,
        "threads": INTEGER,
    },
    "lines": dict.fromkeys(
        (
            "in",
            "out",
            "empty",
            "truncated",
            "split",
            "skipped",
            "resumed",
            "invalid_utf8",
            "hit_length_limit",
            "retried",
        ),
        INTEGER,
    ),
    "counts": dict.fromkeys(
        (
            "source_words",
            "source_tokens",
            "target_tokens",
            "target_tokens_without_end",
            "decoding_steps",
            "decoding_rows",
            "decoding_rows_useful",
        ),
        INTEGER,
    ),
    "seconds": dict(
        dict.fromkeys(
            (
                "load",
                "first_output",
                "tokenize",
                "detokenize",
                "encode",
                "decode",
                "waiting",
                "write",
                "translate",
                "process",
            ),
            REAL,
        ),
        device_busy=GPU_REAL,
    ),
    "stages": dict.fromkeys(("load", "input", "tokenize", "device", "output"), REAL),
    "rates": dict.fromkeys(
        (
            "target_tokens_per_second",
            "target_tokens_per_second_process",
            "source_words_per_second",
            "sentences_per_second",
        ),
        REAL,
    ),
    "shares": {"padding": REAL, "rows_idle": REAL, "device_busy": GPU_REAL},
    "memory": {
        "device_peak_bytes": NULL,
        "device_weight_bytes": NULL,
        "device_cache_bytes": NULL,
        "device_context_bytes": NULL,
        "host_peak_bytes": INTEGER,
    },
}


def has_type(value, kind):
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return {
        INTEGER: isinstance(value, int) and number and value >= 0,
        REAL: number and value >= 0,
        TEXT: isinstance(value, str) and value != "",
        NULL: value is None,
        GPU_REAL: value is None or (number and value >= 0),
    }[kind]


class ReportCase(Case):
    def check_fields(self, report, result, zeros=False):
        wrong = [
            "%s: %s" % (name, "is missing" if name not in report else repr(report[name]))
            for name in ("version", "precision", "status")
            if not isinstance(report.get(name), str)
        ]
        for section, fields in FIELDS.items():
            if not isinstance(report.get(section), dict):
                wrong.append(section + " is missing or no object")
                continue
            for field, kind in fields.items():
                if field not in report[section]:
                    wrong.append("%s.%s is missing" % (section, field))
                elif not has_type(report[section][field], kind) and not (
                    zeros
                    and (section, field) == ("seconds", "first_output")
                    and report[section][field] is None
                ):
                    wrong.append(
                        "%s.%s is %r, expected: %s" % (section, field, report[section][field], kind)
                    )
        if not isinstance(report.get("options"), dict):
            wrong.append("options is missing or no object")
        if not has_type(report.get("batches"), INTEGER):
            wrong.append("batches is %r" % report.get("batches"))
        if not isinstance(report.get("buckets"), (list, dict)):
            wrong.append("buckets is %r" % report.get("buckets"))
        if wrong:
            self.fail(
                "\n".join(wrong)
                + "\n"
                + json.dumps(report, indent=1)[:4000]
                + "\n"
                + result.story()
            )

    def buckets(self, report):
        buckets = report["buckets"]
        return list(buckets.values()) if isinstance(buckets, dict) else buckets

    def options(self, report):
        return {key.replace("-", "_"): value for key, value in report["options"].items()}
