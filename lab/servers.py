"""PostgreSQL and Prometheus as the lab runs them."""

import json
import os
import shutil
import signal
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

from lab import sources
from lab.cluster import LOOPBACK
from lab.processes import Process, Processes, free_port, port_open

NOBODY = 65534
ALL_HOSTS = "host all all 0.0.0.0/0 trust\n"


class Postgres:
    """A PostgreSQL server on loopback without durability; `postgres` may do everything, without a password."""

    def __init__(self, directory: Path, processes: Processes, host: str = LOOPBACK) -> None:
        self.host = host
        self.user = NOBODY if os.geteuid() == 0 else None
        self.directory = directory
        self.processes = processes
        self.binaries = sources.postgres(directory, self.user)
        self.port = free_port()
        self.process: Process | None = None
        directory.chmod(0o755)
        self.data = directory / "data"
        self.data.mkdir()
        if self.user is not None:
            os.chown(self.data, self.user, self.user)
        self.data.chmod(0o700)

    @property
    def url(self) -> str:
        """Libpq connection string of the administrator."""
        return f"postgresql://postgres@{self.host}:{self.port}/postgres"

    def initialise(self) -> Process:
        """Start initdb; the caller waits for its end."""
        argv = ["-D", str(self.data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"]
        return self.processes.start("initdb", [self.binaries / "initdb", *argv], user=self.user)

    def start(self, **more: str) -> Process:
        """Start the server, or start it again on its data."""
        settings = {
            "fsync": "off",
            "full_page_writes": "off",
            "unix_socket_directories": "",
            "max_connections": "200",
            **more,
        }
        if self.host != LOOPBACK and ALL_HOSTS not in (rules := self.data / "pg_hba.conf").read_text():
            with rules.open("a") as text:
                text.write(ALL_HOSTS)
        options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        argv = [str(self.binaries / "postgres"), "-D", str(self.data), "-h", self.host, "-p", str(self.port), *options]
        self.process = self.processes.start("postgres", argv, user=self.user)
        return self.process

    def ready(self) -> bool:
        """Whether it answers."""
        probe = [str(self.binaries / "pg_isready"), "-q", "-U", "postgres", "-h", self.host, "-p", str(self.port)]
        if (self.binaries / "pg_isready").exists():
            return subprocess.run(probe, check=False).returncode == 0
        return port_open(self.port, self.host)


INTERVALS = {"lookbackDelta": "5s", "scrapeInterval": "1s", "ruleInterval": "1s"}  # of this Prometheus, for the operator


class Prometheus:
    """A Prometheus that scrapes every second what `targets.json` names; it can be stopped and started again on its data."""

    def __init__(self, directory: Path, processes: Processes, host: str = LOOPBACK) -> None:
        self.host = host
        self.binary = sources.prometheus()
        self.directory = directory
        self.processes = processes
        self.port = free_port()
        self.url = f"http://{host}:{self.port}"
        self.process: Process | None = None
        self.targets({})

    def targets(self, jobs: dict[str, int | str], scrape: dict[str, str] | None = None) -> None:
        """Scrape these under these job names: a port of loopback, or host:port. `scrape` are labels that say how often."""
        groups = [
            {"targets": [at if isinstance(at, str) else f"{LOOPBACK}:{at}"], "labels": {"job": job, **(scrape or {})}}
            for job, at in jobs.items()
        ]
        scratch = self.directory / "targets.new"
        scratch.write_text(json.dumps(groups))
        scratch.rename(self.directory / "targets.json")

    def rules(self, document: dict[str, Any]) -> None:
        """Load alert and recording rules."""
        (self.directory / "rules.json").write_text(json.dumps(document))
        if self.process is not None:
            self.process.send(signal.SIGHUP)

    def start(self) -> Process:
        """Start, or start again."""
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "900ms", "evaluation_interval": "1s"},
            "rule_files": [str(self.directory / "rules*.json")],
            "scrape_configs": [
                {
                    "job_name": "lab",
                    "file_sd_configs": [{"files": [str(self.directory / "targets.json")], "refresh_interval": "1s"}],
                }
            ],
        }
        (self.directory / "prometheus.yml").write_text(json.dumps(config))
        self.process = self.processes.start(
            "prometheus",
            [
                self.binary,
                f"--config.file={self.directory / 'prometheus.yml'}",
                f"--storage.tsdb.path={self.directory / 'data'}",
                f"--web.listen-address={self.host}:{self.port}",
                "--storage.tsdb.retention.time=1y",
                "--query.lookback-delta=5s",  # INTERVALS say so to the operator
                "--log.level=warn",
            ],
        )
        return self.process

    def stop(self) -> None:
        """Stop the server; the data stays."""
        assert self.process is not None
        self.process.stop()

    def ready(self) -> bool:
        """Whether it answers queries."""
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=1) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


def remove(directory: Path) -> None:
    """Delete a lab's directory."""
    shutil.rmtree(directory, ignore_errors=True)
