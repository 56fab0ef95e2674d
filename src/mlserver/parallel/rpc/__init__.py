"""Remote calls between the server and its worker processes, over socket pairs."""
