"""`python -m session_rollout.cli`, and the entry point of the archive that krew installs."""

import sys
from pathlib import Path

from session_rollout.cli import app, completion

if Path(sys.argv[0]).name.startswith("kubectl_complete-"):  # a link with the name that kubectl runs for completion
    completion.main()
else:
    app.main()
