"""`negexp report watch=true`: write the report again whenever a run commits, and serve it.

A look at the runs reads sizes and times of a few small files, and whether a process writes the folder. What has not
changed is not read again, and finished runs are compared again only when there is another one.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from negexp.report.listing import Listed, read_listed, with_arms
from negexp.report.runs import Skipped, find_runs, read_runs
from negexp.report.serve import LivePage
from negexp.report.unfinished import write_unfinished
from negexp.report.write import Finished, prepare_folder, write_finished, write_pages
from negexp.signals import stops_at_steps
from negexp.tracking import RunFolder

FOLDER = "watch"  # beside the runs; not `report`, which the end of a sweep writes, perhaps at the same time
Stamp = tuple[object, ...]


@dataclass
class Watch:
    """A report that is kept up to date; the fields are the arguments of `write_report`.

    listed: the runs of the last look, with the stamps of their files. compared: the finished runs among them, and
    finished: what was written about these.
    """

    runs: str
    output: str | None
    texts: bool
    examples: int
    listed: dict[Path, tuple[Stamp, Listed]] = field(default_factory=dict)
    compared: dict[Path, Stamp] = field(default_factory=dict)
    finished: Finished = field(default_factory=Finished)
    folder: Path | None = None

    def look(self) -> bool:
        """Return whether a run has come, gone, committed, ended or stopped since the last look, and read it."""
        folders = find_runs(self.runs, none_yet=True)
        stamps = {folder: stamp(folder) for folder in folders}
        if self.folder is not None and stamps == {folder: known for folder, (known, _) in self.listed.items()}:
            return False
        before = self.listed
        self.listed = {
            folder: before[folder] if folder in before and before[folder][0] == now else (now, read_listed(folder))
            for folder, now in stamps.items()
        }
        self._compare_finished()
        return True

    def write(self) -> str:
        """Write the pages and the figures of unfinished runs; return in one line what the report covers."""
        assert self.folder is not None
        listed = with_arms([one for _, one in self.listed.values()])
        unfinished = write_unfinished(listed, self.folder / "figures")
        skipped = [Skipped(one.folder, one.damage) for one in listed if one.damage is not None]
        write_pages(self.folder, self.finished, skipped, unfinished)
        count = sum(one.state in ("running", "stopped") for one in listed)
        damaged = f", {len(skipped)} damaged" if skipped else ""
        return f"report of {self.finished.runs} finished and {count} unfinished runs{damaged}"

    def _compare_finished(self) -> None:
        """Compare the finished runs unless they are those of the last comparison. The first look makes the folder."""
        now = {folder: stamp(folder) for folder, (_, one) in self.listed.items() if one.state == "finished"}
        if self.folder is not None and now == self.compared:
            return
        self.compared = now
        self.folder = prepare_folder(self.runs, self.output, list(self.listed), FOLDER)
        usable, _ = read_runs(list(now))
        self.finished = write_finished(usable, self.folder, self.texts, self.examples) if usable else Finished()


def stamp(folder: Path) -> Stamp:
    """Return what changes when a run starts, commits, ends or is stopped; a look at the disk, nothing is read."""
    run = RunFolder(folder)
    config, metrics, result = map(_stamp_of_file, (run.config, run.metrics, run.result))
    return config, metrics, result, result is None and run.is_locked()


def _stamp_of_file(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def watch_report(watch: Watch, port: int, every: float) -> None:
    """Keep a report up to date and serve it, looking at the runs `every` so many seconds, until a signal comes.

    A signal during a report lets it finish; a second SIGINT does not.

    Raises
    ------
    InputError
        When the port or the folder of the report cannot be used, or the runs' folder is not there.
    """
    with LivePage(port) as page:
        started = False
        while True:
            with stops_at_steps():
                if watch.look():
                    covered = watch.write()
                    assert watch.folder is not None
                    page.show((watch.folder / "report.html").read_bytes())
                    if not started:
                        print(f"{page.address} shows {watch.folder}/report.html and loads itself again; Ctrl-C ends it")
                    started = True
                    print(f"{time.strftime('%H:%M:%S')}  {covered}", flush=True)
            time.sleep(every)
