"""The paper's claims, put to the test on small models: what is compared, measured, and written to claims.md."""
