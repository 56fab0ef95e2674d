"""Programs of this repository's developers: pages generated from the code, the site, releases."""
