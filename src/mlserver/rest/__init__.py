"""The REST front end: HTTP in, the data plane asked, HTTP out."""
