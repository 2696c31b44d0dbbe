"""The control plane: etcd, kube-apiserver and kube-controller-manager with certificates of their own."""

import base64
import json
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import trustme

from lab import sources
from lab.processes import Process, Processes, free_port

LOOPBACK: Final = "127.0.0.1"
SERVICE_IP: Final = "10.96.0.1"


@dataclass(frozen=True)
class Credentials:
    """Files of one lab's certificate authority."""

    ca: Path
    server_cert: Path
    server_key: Path
    client_cert: Path
    client_key: Path
    service_account_key: Path


def issue(directory: Path, host: str) -> Credentials:
    """A CA, the server's certificate, an administrator's, and the key that signs ServiceAccount tokens."""
    authority = trustme.CA(key_type=trustme.KeyType.RSA)
    server = authority.issue_cert(host, "localhost", SERVICE_IP, "kubernetes.default.svc", key_type=trustme.KeyType.RSA)
    client = authority.issue_cert(
        "lab-admin@localhost", common_name="lab-admin", organization_name="system:masters", key_type=trustme.KeyType.RSA
    )
    files = Credentials(*(directory / f for f in ("ca.crt", "server.crt", "server.key", "admin.crt", "admin.key", "sa.key")))
    authority.cert_pem.write_to_path(str(files.ca))
    for cert, key, leaf in (
        (files.server_cert, files.server_key, server),
        (files.client_cert, files.client_key, client),
    ):
        leaf.cert_chain_pems[0].write_to_path(str(cert))
        leaf.private_key_pem.write_to_path(str(key))
    server.private_key_pem.write_to_path(str(files.service_account_key))
    return files


def kubeconfig(url: str, ca: bytes, user: dict[str, Any], namespace: str = "default") -> dict[str, Any]:
    """A kubeconfig for one user of the lab."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "lab", "cluster": {"server": url, "certificate-authority-data": base64.b64encode(ca).decode()}}],
        "users": [{"name": "lab", "user": user}],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "lab", "namespace": namespace}}],
        "current-context": "lab",
    }


class Cluster:
    """A running control plane; on another address than loopback it is one that Pods of a real node reach."""

    def __init__(self, directory: Path, processes: Processes, host: str = LOOPBACK) -> None:
        self.host = host
        self.directory = directory
        self.processes = processes
        self.binaries = sources.control_plane()
        self.credentials = issue(directory, host)
        self.port = free_port()
        self.url = f"https://{host}:{self.port}"
        self.kubeconfig = directory / "admin.kubeconfig"
        self.audit_log = directory / "audit.log"
        self._etcd_port = free_port()

    def start_etcd(self) -> Process:
        """Start etcd; it needs no waiting, the API server retries."""
        peer = free_port()
        client_url, peer_url = f"http://127.0.0.1:{self._etcd_port}", f"http://127.0.0.1:{peer}"
        return self.processes.start(
            "etcd",
            [
                self.binaries / "etcd",
                f"--data-dir={self.directory / 'etcd'}",
                f"--listen-client-urls={client_url}",
                f"--advertise-client-urls={client_url}",
                f"--listen-peer-urls={peer_url}",
                f"--initial-advertise-peer-urls={peer_url}",
                f"--initial-cluster=default={peer_url}",
                "--unsafe-no-fsync",
                "--log-level=error",
            ],
        )

    def start_api_server(self) -> Process:
        """Start kube-apiserver and write the administrator's kubeconfig."""
        files = self.credentials
        policy = self.directory / "audit-policy.yaml"
        policy.write_text(
            "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules:\n"
            "- {level: Metadata, userGroups: ['system:serviceaccounts:session-rollout']}\n- {level: None}\n"
        )
        user = {
            "client-certificate-data": base64.b64encode(files.client_cert.read_bytes()).decode(),
            "client-key-data": base64.b64encode(files.client_key.read_bytes()).decode(),
        }
        self.kubeconfig.write_text(json.dumps(kubeconfig(self.url, files.ca.read_bytes(), user)))
        self.kubeconfig.chmod(0o600)
        return self.processes.start(
            "kube-apiserver",
            [
                self.binaries / "kube-apiserver",
                f"--etcd-servers=http://127.0.0.1:{self._etcd_port}",
                f"--bind-address={self.host}",
                f"--secure-port={self.port}",
                "--authorization-mode=RBAC",
                "--service-account-issuer=https://kubernetes.default.svc",
                f"--service-account-key-file={files.service_account_key}",
                f"--service-account-signing-key-file={files.service_account_key}",
                f"--client-ca-file={files.ca}",
                f"--tls-cert-file={files.server_cert}",
                f"--tls-private-key-file={files.server_key}",
                f"--cert-dir={self.directory / 'apiserver'}",
                "--enable-admission-plugins=OwnerReferencesPermissionEnforcement",
                *self._for_pods(),
                "--service-cluster-ip-range=10.96.0.0/16",
                f"--audit-policy-file={policy}",
                f"--audit-log-path={self.audit_log}",
                "--audit-log-mode=blocking",
            ],
        )

    def _for_pods(self) -> list[str]:
        if self.host == LOOPBACK:
            return ["--endpoint-reconciler-type=none"]
        return [
            f"--advertise-address={self.host}",
            "--kubelet-preferred-address-types=InternalIP",
            f"--kubelet-client-certificate={self.credentials.client_cert}",
            f"--kubelet-client-key={self.credentials.client_key}",
        ]

    def start_controller_manager(self) -> Process:
        """Start kube-controller-manager."""
        return self.processes.start(
            "kube-controller-manager",
            [
                self.binaries / "kube-controller-manager",
                f"--kubeconfig={self.kubeconfig}",
                "--controllers=*",
                "--leader-elect=false",
                "--use-service-account-credentials",
                f"--service-account-private-key-file={self.credentials.service_account_key}",
                f"--root-ca-file={self.credentials.ca}",
                "--node-monitor-grace-period=10s",
                f"--cert-dir={self.directory / 'controller-manager'}",
                "--secure-port=0",
            ],
        )

    def ready(self) -> bool:
        """Whether the API server serves."""
        context = ssl.create_default_context(cafile=str(self.credentials.ca))
        context.load_cert_chain(self.credentials.client_cert, self.credentials.client_key)
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=2, context=context) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.HTTPError):
            return False
