"""The paper's claims as data, each decided by one function (docs/adr/0017)."""
