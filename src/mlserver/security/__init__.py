"""TLS, authentication, authorisation, and the policy of which code may run."""
