"""What every test shares."""

import os

from hypothesis import HealthCheck, settings

pytest_plugins = ["pytester"]

# How long examples take to be made says how busy this host is, and nothing of what is tested.
settings.register_profile("any-host", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any-host")

# Runs of pytest and of commands inside of tests are to look the same whoever looks at this one.
for name in ("COLUMNS", "LINES", "FORCE_COLOR", "NO_COLOR", "PY_COLORS"):
    os.environ.pop(name, None)
