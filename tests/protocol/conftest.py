"""Hypothesis for all tests here: nothing fails because the machine is slow, and a failure says how to see it again."""

from hypothesis import HealthCheck, settings

settings.register_profile("patient", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")
