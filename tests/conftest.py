"""What every test shares."""

from hypothesis import HealthCheck, settings

pytest_plugins = ["pytester"]

# How long examples take to be made says how busy this host is, and nothing of what is tested.
settings.register_profile("any-host", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any-host")
