"""Tests of the benchmark itself, with a fake system: nothing is installed and no real system is started."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import unittest
import zipfile
from pathlib import Path
from unittest import mock

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import environment  # noqa: E402
import limits  # noqa: E402
import measure  # noqa: E402
import processes  # noqa: E402
import systems  # noqa: E402
import table  # noqa: E402

# A system that takes 1 ms for each task, and starts a daemon in a session of its own.
FAKE = """
import contextlib, os, signal, subprocess, sys, time
sys.path.insert(0, {drivers!r})
from protocol import serve

DAEMON = "import os, signal, time; os.setsid(); {stubborn}; time.sleep(600)"
STUBBORN = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"

class Fake:
    version = "1.2"
    def __init__(self, request):
        self.request = request
    def run(self, tasks):
        print("noise among the answers")
        if self.request.options.get("fail") == "run":
            sys.exit("the fake failed")
        time.sleep(600 if self.request.options.get("fail") == "hang" else tasks / 1000)
        with open({calls!r}, "a") as calls:
            print(self.request.workers, tasks, file=calls)

@contextlib.contextmanager
def start(request):
    if request.options.get("fail") == "start":
        sys.exit("the fake did not start")
    # Its parent ends at once, as a daemon's does: it is an orphan.
    parent = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', sys.argv[1]])"
    subprocess.run([sys.executable, "-c", parent,
                    DAEMON.format(stubborn=STUBBORN if "stubborn" in request.options else "0")], check=True)
    with open(request.folder / "file", "w"), open(os.environ["TMPDIR"] + "/file", "w"):
        yield Fake(request)

serve(start)
"""


def fake(folder: Path, name: str = "Fake", **options: str) -> systems.Variant:
    """A variant that runs the fake driver of a folder."""

    def prepare(_folder: Path) -> tuple[Path, dict[str, str]]:
        if options.get("fail") == "install":
            raise processes.BenchError("cannot install fake: no matching distribution")
        return Path(sys.executable), options

    return systems.Variant(
        "fake", name, "nothing", "Nothing is kept", "a pause", str(folder / "drive_fake.py"), prepare
    )


class WithFake(unittest.TestCase):
    """A folder with the fake driver; after each test no process may be left."""

    def setUp(self) -> None:
        processes.adopt_orphans()
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.addCleanup(processes.stop_descendants, 0.0)
        self.folder = Path(temporary.name)
        self.calls = self.folder / "calls"
        code = FAKE.replace("{drivers!r}", repr(str(systems.DRIVERS))).replace("{calls!r}", repr(str(self.calls)))
        (self.folder / "drive_fake.py").write_text(code)
        self.said: list[str] = []

    def measure(self, rows: list[measure.Row], rounds: int = 1, seconds: float = 0.3, limit: int = 1000) -> None:
        work = self.folder / "work"
        measure.measure(rows, work, rounds, seconds, limit, self.said.append)

    def fake(self, **options: str) -> systems.Variant:
        return fake(self.folder, **options)

    def lines(self) -> list[str]:
        return self.calls.read_text().splitlines()


class Measuring(WithFake):
    def test_rounds_alternate_and_each_measures_the_same_number_of_tasks(self) -> None:
        rows = [measure.Row(self.fake(), 1), measure.Row(self.fake(), 4)]
        self.measure(rows, rounds=3)
        for row in rows:
            self.assertEqual((row.version, row.problem, len(row.rates)), ("1.2", "", 3))
            self.assertTrue(all(100 < rate < 1001 for rate in row.rates), row.rates)
            self.assertTrue(150 <= row.tasks <= 300, row.tasks)
        # Warm-up, probe, measurement of the first round; warm-up and measurement of the other two.
        self.assertEqual([line.split()[0] for line in self.lines()], [*"111444", *"1144", *"1144"])
        self.assertEqual({line.split()[1] for line in self.lines()[7::2]}, {str(row.tasks) for row in rows})

    def test_limit_of_jobs_is_kept(self) -> None:
        row = measure.Row(self.fake(), 1)
        self.measure([row], limit=20)
        self.assertEqual(row.tasks, 20)
        self.assertEqual([line.split()[1] for line in self.lines()], ["20"] * 3)

    def test_failures_are_reported_and_the_rest_goes_on(self) -> None:
        rows = [measure.Row(self.fake(fail=how), 1) for how in ("install", "start", "run")] + [
            measure.Row(self.fake(), 1)
        ]
        self.measure(rows)
        self.assertEqual(rows[0].problem, "cannot install fake: no matching distribution")
        self.assertIn("the driver ended: the fake did not start", rows[1].problem)
        self.assertIn("the driver ended: the fake failed", rows[2].problem)
        self.assertEqual([len(row.rates) for row in rows], [0, 0, 0, 1])

    def test_system_that_answers_nothing_is_given_up(self) -> None:
        with (
            mock.patch.object(measure, "START_LIMIT", 10.0),
            measure.started(self.fake(fail="hang"), 1, self.folder / "work") as driver,
            self.assertRaisesRegex(processes.BenchError, "no answer within 0 s"),
        ):
            driver.run(1, 0.2)
        self.assertEqual(processes.descendants(), set())

    def test_answer_that_is_not_json_is_an_error(self) -> None:
        (self.folder / "drive_fake.py").write_text("print('hello')")
        row = measure.Row(self.fake(), 1)
        self.measure([row])
        self.assertIn("the driver answered b'hello', not its version", row.problem)


class Cleanup(WithFake):
    def test_orphaned_daemon_is_stopped_and_files_are_removed(self) -> None:
        work = self.folder / "work"
        temporary = self.folder / "temporary"
        temporary.mkdir()
        with mock.patch.object(tempfile, "tempdir", str(temporary)), measure.started(self.fake(stubborn="1"), 1, work):
            self.assertEqual(len(processes.descendants()), 2, "the driver and its daemon")
            self.assertTrue((work / "run/file").exists())
            self.assertEqual(len(list(temporary.glob("bench-*/file"))), 1)
        self.assertEqual(processes.descendants(), set())
        self.assertFalse((work / "run").exists())
        self.assertEqual(list(temporary.iterdir()), [])

    def test_everything_is_stopped_after_an_error(self) -> None:
        with self.assertRaisesRegex(RuntimeError, "planted"), measure.started(self.fake(), 1, self.folder):
            raise RuntimeError("planted")
        self.assertEqual(processes.descendants(), set())

    def test_ctrl_c_and_sigterm_stop_everything_in_the_middle_of_a_measurement(self) -> None:
        main = textwrap.dedent(f"""
            import sys
            sys.path.insert(0, {str(HERE)!r})
            import pathlib, runpy, systems
            from test_dispatch import fake
            systems.variants = lambda hq: [fake(pathlib.Path({str(self.folder)!r}), fail="hang", stubborn="1")]
            systems.SYSTEMS = ("fake",)
            sys.argv = ["dispatch", "--folder", {str(self.folder / "work")!r}, "--workers", "1"]
            runpy.run_path({str(HERE)!r}, run_name="__main__")
        """)
        for number in (signal.SIGINT, signal.SIGTERM):
            with self.subTest(number.name):
                # A process that a shell started in the background ignores SIGINT, and so would its children.
                child = subprocess.Popen(
                    [sys.executable, "-c", main],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
                )
                until = time.monotonic() + 60
                # The benchmark, the driver and its daemon.
                while len(started := processes.descendants()) < 3 and time.monotonic() < until:
                    time.sleep(0.05)
                self.assertGreaterEqual(len(started), 3)
                time.sleep(0.3)
                child.send_signal(number)
                _, errors = child.communicate(timeout=60)
                self.assertEqual(child.returncode, 130, errors.decode())
                self.assertIn("interrupted; all processes are stopped", errors.decode())
                self.assertEqual(processes.descendants(), set())
                self.assertFalse((self.folder / "work/run").exists())


class Sizing(unittest.TestCase):
    def probes(self, rate: float, seconds: float, limit: int, overhead: float = 0.0) -> tuple[int, list[int]]:
        asked: list[int] = []

        def probe(tasks: int) -> float:
            asked.append(tasks)
            return overhead + tasks / rate

        return measure.size(probe, seconds, limit), asked

    def test_slow_system_runs_fewer_jobs(self) -> None:
        self.assertEqual(self.probes(20, 10, 100_000), (200, [100]))

    def test_fast_system_is_probed_with_more_jobs_until_it_takes_long_enough(self) -> None:
        self.assertEqual(self.probes(1000, 10, 100_000), (10_000, [100, 1000, 10_000]))

    def test_limit_ends_probing(self) -> None:
        self.assertEqual(self.probes(1e9, 10, 5000), (5000, [100, 1000, 5000]))
        self.assertEqual(self.probes(1e9, 10, 1), (1, [1]))

    def test_very_slow_system_runs_one_job_at_least(self) -> None:
        self.assertEqual(self.probes(0.01, 10, 100)[0], 1)

    def test_probe_is_never_much_longer_than_the_measurement(self) -> None:
        _, asked = self.probes(100, 1, 100_000, overhead=0.1)
        self.assertLessEqual(max(asked), 100)


class Printing(unittest.TestCase):
    def rows(self) -> list[measure.Row]:
        good = measure.Row(fake(Path(), "Good"), 4, "1.2", 2000, [1234.5, 1000.4, 2000.0])
        bad = [measure.Row(fake(Path(), "Bad"), workers, problem="cannot install fake: no") for workers in (1, 4)]
        return [good, *bad]

    def test_table_has_median_span_durability_and_reasons(self) -> None:
        text = table.text("a machine", [limits.Limit("appends", 99.5), limits.Limit("starts", 1234.0)], self.rows())
        lines = text.splitlines()
        self.assertIn("appends   99.5 a second", lines)
        self.assertIn("starts   1,234 a second", lines)
        header = next(line for line in lines if line.startswith("system "))
        good = next(line for line in lines if line.startswith("Good "))
        self.assertEqual(good.split(), ["Good", "1.2", "4", "1,234", "1,000-2,000", "2000", "3", "nothing"])
        self.assertEqual(header.index("durable"), good.index("nothing"), "columns stand below each other")
        self.assertIn("Good: Nothing is kept. A task is a pause.", lines)
        self.assertEqual(lines[-1], "Bad (1), Bad (4): cannot install fake: no")

    def test_json_has_the_same_and_null_for_what_is_missing(self) -> None:
        found = json.loads(json.dumps(table.document("a machine", [limits.Limit("appends", 99.5)], self.rows())))
        good, bad = found["results"][:2]
        self.assertEqual(
            (good["jobs_per_second"], good["min"], good["max"], good["jobs"]), (1234.5, 1000.4, 2000.0, 2000)
        )
        self.assertEqual((bad["jobs_per_second"], bad["version"], bad["jobs"]), (None, None, None))
        self.assertEqual((good["problem"], bad["problem"]), (None, "cannot install fake: no"))
        self.assertEqual(found["limits"], [{"what": "appends", "per_second": 99.5}])

    def test_markdown_has_a_line_for_each_system_and_a_column_for_each_number_of_workers(self) -> None:
        rows = [*self.rows(), measure.Row(fake(Path(), "Bad"), 2, problem="it | said\nno")]
        lines = table.markdown("a machine", [limits.Limit("appends", 99.5)], rows).splitlines()
        self.assertEqual(
            lines[0],
            "a machine. Medians of 3 alternating rounds, the range in parentheses. "
            "What the machine can do: appends 99.5 a second.",
        )
        self.assertEqual(lines[2], "| system | durable | 1 worker | 2 workers | 4 workers |")
        self.assertEqual(lines[4], "| Good, 1.2 | nothing | – | – | 1,234 (1,000–2,000) |")
        self.assertEqual(lines[5], "| Bad | nothing | – | – | – |")
        self.assertEqual(lines[-1], "Not measured, or not in all rounds: Bad (2): it / said no.")

    def test_output_of_bench_path_is_parsed(self) -> None:
        text = textwrap.dedent("""\
            machine: a processor, 2 cores, release build
            publishing to JetStream, pipelined                              50000 a second  (20000 in 0.40 s)
            jobs from submission to result row, 1 worker program(s)                  1523 a second  (20000 in 13.13 s)
            jobs from submission to result row, 4 worker program(s)                  2210 a second  (20000 in 9.05 s)
        """)
        self.assertEqual(measure.parse_bench_path(text), {1: 1523.0, 4: 2210.0})
        self.assertEqual(measure.parse_bench_path("no figures"), {})


class Ours(WithFake):
    def program(self, code: str) -> Path:
        path = self.folder / "bench_path"
        path.write_text(f"#!/bin/sh\n{code}\n")
        path.chmod(0o755)
        return path

    def test_rows_get_the_figures_of_their_workers(self) -> None:
        program = self.program('echo "jobs from submission to result row, 1 worker program(s)   $1 a second  (9 in 1 s)"')
        rows = [measure.Row(systems.OURS, workers) for workers in (1, 2)]
        measure.measure(rows, self.folder / "work", 1, 1.0, 500, self.said.append, program)
        self.assertEqual((rows[0].rates, rows[0].tasks, rows[0].problem), ([500.0], 500, ""))
        self.assertIn("not in the output of", rows[1].problem)

    def test_failure_is_reported(self) -> None:
        program = self.program("echo error: no nats-server; exit 3")
        row = measure.Row(systems.OURS, 1)
        measure.measure([row], self.folder / "work", 2, 1.0, 500, self.said.append, program)
        self.assertRegex(row.problem, "error: no nats-server .exit code 3")


class Options(unittest.TestCase):
    def parse(self, *arguments: str) -> tuple[object, str]:
        main = environment.REQUIREMENTS.parent / "__main__.py"
        code = compile(main.read_text(), str(main), "exec")
        names: dict[str, object] = {"__name__": "dispatch_main", "__file__": str(main)}
        exec(code, names)  # `import __main__` would be the test runner.
        with contextlib.redirect_stderr(io.StringIO()) as errors:
            try:
                return names["parser"]().parse_args(arguments), ""
            except SystemExit:
                return None, errors.getvalue()

    def test_systems_and_numbers_are_read(self) -> None:
        options, _ = self.parse("dask", "ray", "--jobs", "500", "--workers", "2", "--workers", "3", "--seconds", "0.5")
        self.assertEqual((options.systems, options.jobs, options.workers), (["dask", "ray"], 500, [2, 3]))
        self.assertEqual(self.parse()[0].systems, [])

    def test_nonsense_is_refused_with_the_reason(self) -> None:
        for arguments, reason in [
            (["spark"], 'unknown system "spark"; there are hyperqueue, dask, ray, celery'),
            (["--jobs", "0"], 'not a positive integer: "0"'),
            (["--workers", "many"], 'not a positive integer: "many"'),
            (["--seconds", "nan"], 'not a number of seconds from 0.1 to 600: "nan"'),
        ]:
            self.assertIn(reason, self.parse(*arguments)[1])


class Preparing(WithFake):
    def test_every_variant_has_a_driver_and_requirements_with_hashes(self) -> None:
        found = systems.variants(None)
        self.assertEqual(tuple(dict.fromkeys(variant.system for variant in found)), systems.SYSTEMS)
        self.assertEqual(len({variant.name for variant in found}), len(found))
        for variant in found:
            self.assertTrue((systems.DRIVERS / variant.driver).exists(), variant.driver)
        for name in systems.SYSTEMS:
            text = (environment.REQUIREMENTS / f"{name}.txt").read_text().replace("\\\n", "")
            for line in (line for line in text.splitlines() if not line.startswith("#")):
                self.assertRegex(line, r"^[\w.-]+==[\w.]+( ; [\w.]+ [<=>]+ '[\d.*]+')?( +--hash=sha256:[0-9a-f]{64})+$")

    def test_package_that_cannot_be_installed_leaves_nothing_behind(self) -> None:
        requirements = self.folder / "requirements"
        requirements.mkdir()
        # A file that does not exist, so that no registry is asked.
        lock = f"fake @ file://{self.folder}/fake-1-py3-none-any.whl --hash=sha256:{'0' * 64}\n"
        (requirements / "fake.txt").write_text(lock)
        with self.assertRaisesRegex(processes.BenchError, "cannot install fake: .*(No such file|not exist)"):
            environment.install("fake", self.folder / "environments", requirements)
        self.assertEqual([path.name for path in (self.folder / "environments").iterdir()], ["fake-install.log"])

    def test_environment_is_installed_once_and_replaces_that_of_older_requirements(self) -> None:
        requirements, environments = self.folder / "requirements", self.folder / "environments"
        requirements.mkdir()
        wheel = self.folder / "fake-1-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr("fake.py", "VALUE = 7")
            archive.writestr("fake-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: fake\nVersion: 1\n")
            archive.writestr("fake-1.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            archive.writestr("fake-1.dist-info/RECORD", "")
        lock = f"fake @ file://{wheel} --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"
        found = []
        for text in (lock, lock, f"# Changed.\n{lock}"):
            (requirements / "fake.txt").write_text(text)
            found.append(environment.install("fake", environments, requirements))
            done = subprocess.run([found[-1], "-c", "import fake; print(fake.VALUE)"], capture_output=True, text=True)
            self.assertEqual(done.stdout, "7\n", done.stderr)
        self.assertEqual(found[0], found[1])
        self.assertNotEqual(found[1], found[2])
        self.assertEqual([path for path in environments.iterdir() if path.is_dir()], [found[2].parent.parent])

    def test_missing_hq_is_an_error_that_says_what_to_do(self) -> None:
        with (
            mock.patch.dict(os.environ, {"PATH": str(self.folder)}),
            self.assertRaisesRegex(processes.BenchError, "pass --hq FILE"),
        ):
            os.environ.pop("HALFHEARD_HQ", None)
            systems.hq_program(None)
        with self.assertRaisesRegex(processes.BenchError, "not an executable file"):
            systems.hq_program(self.folder)

    def test_limits_are_positive_and_leave_no_file(self) -> None:
        found = limits.measure(self.folder, 2, seconds=0.05)
        self.assertEqual(len(found), 3)
        self.assertTrue(all(limit.per_second > 0 for limit in found))
        self.assertEqual(list(self.folder.glob("*.tmp")), [])


if __name__ == "__main__":
    unittest.main()
