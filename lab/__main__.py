"""`make lab`: leaves the parts and the operator running until Ctrl-C, and prints how to reach them."""

import contextlib
import signal

from lab.lab import Lab, ended_by_signals


def main() -> None:
    """Entry point."""
    with ended_by_signals(), Lab() as lab:
        lab.install()
        lab.namespace("default")
        lab.start_operator()
        assert lab.postgres is not None
        assert lab.prometheus is not None
        print(f"export KUBECONFIG={lab.kubeconfig}")
        print(f"# PostgreSQL {lab.postgres.url}   Prometheus {lab.prometheus.url}   operator :{lab.operator_port}/metrics")
        print(f"# logs {lab.logs}   Ctrl-C ends everything", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()


if __name__ == "__main__":
    main()
