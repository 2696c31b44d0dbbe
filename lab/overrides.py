"""Support gives single users a feature, or takes it from them: rows in the table that the first migration creates."""

from lab.lab import Lab
from lab.population import users
from lab.proofs import Proof
from lab.session_persistence import DeployedApplication
from lab.sessions import run, value


class Overrides:
    """Support gives single users a feature, or takes it from them: rows in the table that the first migration makes."""

    FEATURE = "offlineMode"

    def __init__(self, lab: Lab, application: DeployedApplication) -> None:
        assert lab.postgres is not None
        self.dsn, self.lab, self.application = lab.postgres.url, lab, application
        self.on, self.off, self.expired = (user.id for user in users(400)[-3:])
        self.early = False

    def write(self) -> None:
        """As soon as the table exists."""
        self.lab.until(lambda: value(self.dsn, "SELECT to_regclass('session_feature_flags')"), 120, "the table of overrides")
        for user, enabled, expires in (
            (self.on, True, "1 hour"),
            (self.off, False, "1 hour"),
            (self.expired, False, "-1 hour"),
        ):
            run(
                self.dsn,
                f"INSERT INTO users (id) VALUES ('{user}') ON CONFLICT DO NOTHING",
                "INSERT INTO session_feature_flags (user_id, feature_name, enabled, reason, expires_at) VALUES"
                f" ('{user}', '{self.FEATURE}', {enabled}, 'support', now() + '{expires}'::interval)",
            )
        self.lab.until(lambda: self.application.has(self.on, self.FEATURE), 20, "the override being read")
        self.early = True

    def prove(self, proof: Proof) -> None:
        """On before its phase, off after it, and as for all other users where it has expired."""
        have = [self.application.has(user, self.FEATURE) for user in (self.on, self.off, self.expired)]
        text = f"overrides of {self.FEATURE}: on before its phase {self.early}, then on/off/expired {have}"
        proof.check(self.early and have == [True, False, True], text)
