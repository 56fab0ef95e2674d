"""TLS, authentication, authorization, and the policy on model code."""
